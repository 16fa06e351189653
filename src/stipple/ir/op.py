"""The definition of an op: its operands, attributes, shape inference, invariants and gradient, in one place.

An op is defined once, by an :class:`OpDef` in one of the modules of ``stipple.ir.ops``, and found by name in
:data:`REGISTRY`. Backends map the name to a kernel and never redefine what the op means.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from stipple.errors import GraphError
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.dtype import DType
from stipple.ir.shape import Dim, Shape, TensorType

if TYPE_CHECKING:
    from stipple.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Operand:
    """One operand of an op.

    ``shape`` is a pattern: names and numbers separated by spaces, such as ``"N 3"``; a name stands for the
    same dimension everywhere in the op, or for the attribute of that name; None accepts any shape.
    ``dtype`` is float, int, bool, number (float or int), any, or the name of one dtype; all float operands of a node
    agree.
    ``finite`` operands may not hold NaN or infinity when the graph runs.
    """

    name: str
    shape: str | None = None
    dtype: str = "float"
    finite: bool = False


@dataclass
class InferContext:
    """The input of an op's inference: operand types (``operands`` has them by name), attributes, and the dimensions
    that its patterns matched."""

    op: str
    types: Sequence[TensorType]
    operands: Any
    attrs: Mapping[str, AttrValue]
    dims: dict[str, Dim]
    fresh: Callable[[str], Dim]

    def fail(self, message: str) -> NoReturn:
        raise GraphError(f"{self.op}: {message}")

    @property
    def float_dtype(self) -> DType:
        """The dtype that the op's float operands share."""
        return next(t.dtype for t in self.types if t.dtype.is_float)

    def result(self, shape: str, dtype: DType) -> TensorType:
        """The type for a shape pattern over the matched dimensions and attributes."""
        return TensorType(Shape(_token_dim(t, self.dims, self.attrs) for t in shape.split()), dtype)


@dataclass
class VjpContext:
    """The input of an op's gradient: the node and the cotangents of its results (None where there is none)."""

    node: Node
    cotangents: Sequence[Value | None]

    @property
    def graph(self) -> Graph:
        return self.node.graph

    @property
    def inputs(self) -> Sequence[Value]:
        return self.node.inputs

    @property
    def outputs(self) -> Sequence[Value]:
        return self.node.outputs

    @property
    def operands(self) -> Any:
        """The operands by name."""
        return self.node.operands

    @property
    def results(self) -> Any:
        """The results by name."""
        return self.node.results

    @property
    def attrs(self) -> Mapping[str, AttrValue]:
        return self.node.attrs

    def cotangent(self, result: str | int = 0) -> Value:
        """The cotangent of a result, by name or position; zeros where there is none."""
        index = self.node.definition.results.index(result) if isinstance(result, str) else result
        given = self.cotangents[index]
        return _zeros(self.outputs[index]) if given is None else given


def _zeros(like: Value) -> Value:
    attrs = {"shape": like.shape, "value": 0.0, "dtype": like.dtype}
    return like.graph.add("full", (), attrs).outputs[0]


InferFn = Callable[[InferContext], Sequence[TensorType]]
VjpFn = Callable[[VjpContext], "Sequence[Value | None]"]
ExpandFn = Callable[["Graph", Any, Mapping[str, AttrValue]], "Sequence[Value]"]
HostFn = Callable[..., Sequence[Any]]


@dataclass(frozen=True)
class OpDef:
    """The definition of one op.

    ``results`` names the outputs. ``variadic`` ops repeat their single operand. ``elementwise`` ops may be
    fused; ``view`` ops may return their operand's memory; ``inplace`` maps an output to the operand whose
    buffer it may overwrite. ``differentiable`` lists the results that carry gradients (None: all).
    ``source`` ops (inputs and parameters) are created by the graph's own methods only.

    ``operand_record`` and ``result_record`` are NamedTuples whose fields have the names of the operands and the
    results: kernels, gradients and passes read ``x.means``, never ``x[0]``. Where an op declares none, they are
    generated from the names.

    A composite op has ``expand``: nodes that compute the same, which replace it on devices without a kernel for it, and
    through which gradients flow where ``vjp`` is None. ``host`` computes the results from NumPy operands on devices
    without a kernel: ``host(node, operand_record, dims)``; ops defined outside of Stipple provide one. ``numpy`` is an
    elementwise op's function of NumPy arrays.
    """

    name: str
    operands: tuple[Operand, ...]
    results: tuple[str, ...]
    infer: InferFn
    doc: str
    attrs: tuple[Attr, ...] = ()
    vjp: VjpFn | None = None
    variadic: bool = False
    elementwise: bool = False
    view: bool = False
    source: bool = False
    inplace: Mapping[int, int] = field(default_factory=dict)
    differentiable: frozenset[str] | None = None
    operand_record: Any = None
    result_record: Any = None
    expand: ExpandFn | None = None
    host: HostFn | None = None
    numpy: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        names = tuple(o.name for o in self.operands)
        for kind, expected in (("operand_record", names), ("result_record", self.results)):
            declared = getattr(self, kind)
            record: Any = namedtuple(f"{self.name}_{kind}", expected) if declared is None else declared
            if record._fields != expected:
                raise GraphError(f"{self.name}: {kind}: expected the fields {expected}, got {record._fields}")
            object.__setattr__(self, kind, record)

    @property
    def carries_gradients(self) -> bool:
        """Whether gradients can flow through it."""
        return self.vjp is not None or self.expand is not None

    def named_operands(self, operands: Sequence[Any]) -> Any:
        """Operands as their record; those of a variadic op as a tuple."""
        return tuple(operands) if self.variadic else self.operand_record(*operands)

    def attr(self, name: str) -> Attr:
        return next(a for a in self.attrs if a.name == name)

    def normalise_attrs(self, given: Mapping[str, AttrValue]) -> dict[str, AttrValue]:
        """All attributes in canonical form, defaults filled in."""
        known = {a.name for a in self.attrs}
        for name in given:
            if name not in known:
                expected = ", ".join(sorted(known)) or "none"
                raise GraphError(f"{self.name}: no attribute {name!r}; it has: {expected}")
        result: dict[str, AttrValue] = {}
        for attr in self.attrs:
            value = given.get(attr.name)
            if value is None:
                if attr.required:
                    raise GraphError(f"{self.name}: {attr.name} is required: {attr.expected()}")
                value = attr.default
            result[attr.name] = attr.normalise(self.name, value)
        return result

    def infer_types(
        self,
        types: Sequence[TensorType],
        attrs: Mapping[str, AttrValue],
        fresh: Callable[[str], Dim],
    ) -> tuple[TensorType, ...]:
        """Output types for operand types, after all checks of the op's schema."""
        dims = self._check_operands(types, attrs)
        context = InferContext(self.name, tuple(types), self.named_operands(types), attrs, dims, fresh)
        result = tuple(self.infer(context))
        assert len(result) == len(self.results), self.name
        return result

    def operand(self, index: int) -> Operand:
        return self.operands[0] if self.variadic else self.operands[index]

    def _check_operands(self, types: Sequence[TensorType], attrs: Mapping[str, AttrValue]) -> dict[str, Dim]:
        if self.variadic:
            if not types:
                raise GraphError(f"{self.name}: needs at least one operand")
        elif len(types) != len(self.operands):
            names = ", ".join(o.name for o in self.operands)
            raise GraphError(f"{self.name}: takes {len(self.operands)} operands ({names}), got {len(types)}")
        dims: dict[str, Dim] = {}
        bound_by: dict[str, str] = {}
        float_from: tuple[str, DType] | None = None
        for i, given in enumerate(types):
            operand = self.operand(i)
            name = f"{operand.name}[{i}]" if self.variadic else operand.name
            _check_dtype(self.name, name, operand.dtype, given)
            if given.dtype.is_float:
                if float_from is not None and float_from[1] is not given.dtype and operand.dtype == "float":
                    raise GraphError(
                        f"{self.name}: {name}: expected dtype {float_from[1].value} like {float_from[0]}, got {given}"
                    )
                float_from = float_from or (name, given.dtype)
            if operand.shape is not None:
                _match(self.name, name, operand.shape, given, attrs, dims, bound_by)
        return dims


def _check_dtype(op: str, name: str, expected: str, given: TensorType) -> None:
    ok = {
        "any": True,
        "float": given.dtype.is_float,
        "int": given.dtype.is_int,
        "bool": given.dtype is DType.BOOL,
        "number": given.dtype is not DType.BOOL,
    }.get(expected, given.dtype.value == expected)
    if not ok:
        raise GraphError(f"{op}: {name}: expected dtype {expected}, got {given}")


def _token_dim(token: str, dims: Mapping[str, Dim], attrs: Mapping[str, AttrValue]) -> Dim:
    if token.isdigit():
        return Dim.of(int(token))
    return Dim.of(attrs[token]) if token in attrs else dims[token]


def _match(
    op: str,
    name: str,
    pattern: str,
    given: TensorType,
    attrs: Mapping[str, AttrValue],
    dims: dict[str, Dim],
    bound_by: dict[str, str],
) -> None:
    """Match a shape against a pattern, binding new names; GraphError with both shapes if it does not fit."""
    tokens = pattern.split()
    fits = len(tokens) == given.shape.rank
    known = [t for t in tokens if not t.isdigit() and (t in attrs or t in dims)]
    if fits:
        for token, dim in zip(tokens, given.shape, strict=True):
            if not token.isdigit() and token not in attrs and token not in dims:
                dims[token] = dim
                bound_by[token] = name
            elif _token_dim(token, dims, attrs) != dim:
                fits = False
                break
    if not fits:
        reasons = [
            f"{t} = {attrs[t]}" if t in attrs else f"{t} = {dims[t]} from {bound_by[t]}" for t in dict.fromkeys(known)
        ]
        where = f" with {', '.join(reasons)}" if reasons else ""
        raise GraphError(f"{op}: {name}: expected shape [{', '.join(tokens)}]{where}, got {given.shape}")


REGISTRY: dict[str, OpDef] = {}
"""Every op by name. Filled when ``stipple.ir`` is imported."""


def register(definition: OpDef) -> OpDef:
    """Add an op to the registry. Names are unique."""
    if definition.name in REGISTRY:
        raise GraphError(f"op {definition.name!r} is defined twice")
    REGISTRY[definition.name] = definition
    return definition


def lookup(name: str) -> OpDef:
    """The definition of an op, or GraphError."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise GraphError(f"no op is called {name!r}") from None
