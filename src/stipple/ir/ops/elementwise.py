"""Elementwise ops with NumPy broadcasting, and the fused group of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stipple.errors import GraphError
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node, Operandish, Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, lookup, register
from stipple.ir.ops.structure import known_value, one, sum_to
from stipple.ir.shape import Dim, TensorType, broadcast_shapes

Rule = Callable[[VjpContext, "Value"], "Sequence[Value | None]"]

Unary = Callable[["Value"], "Value"]


def _infer_same(c: InferContext) -> list[TensorType]:
    return [c.types[0]]


def _broadcast(c: InferContext, dtype: DType) -> list[TensorType]:
    shape = c.types[0].shape
    for type_ in c.types[1:]:
        joined = broadcast_shapes(shape, type_.shape)
        if joined is None:
            c.fail(f"shapes {' and '.join(str(t.shape) for t in c.types)} do not broadcast together")
        shape = joined
    return [TensorType(shape, dtype)]


def _infer_binary(c: InferContext) -> list[TensorType]:
    if c.types[0].dtype is not c.types[1].dtype:
        c.fail(f"operands have different dtypes: {c.types[0]} and {c.types[1]}")
    return _broadcast(c, c.types[0].dtype)


def _infer_compare(c: InferContext) -> list[TensorType]:
    return [TensorType(_infer_binary(c)[0].shape, DType.BOOL)]


def _unary(name: str, doc: str, rule: Rule | None) -> Callable[[Value], Value]:
    def vjp(g: VjpContext) -> Sequence[Value | None]:
        assert rule is not None
        return rule(g, g.cotangent())

    register(
        OpDef(
            name,
            (Operand("x"),),
            ("out",),
            _infer_same,
            doc,
            vjp=vjp if rule else (lambda g: [None]),
            elementwise=True,
            inplace={0: 0},
        )
    )

    def build(x: Value) -> Value:
        return one(name, [x])

    build.__name__, build.__doc__ = name, doc
    return build


def _binary(name: str, doc: str, rule: Rule) -> Callable[[Operandish, Operandish], Value]:
    def vjp(g: VjpContext) -> Sequence[Value | None]:
        parts = rule(g, g.cotangent())
        return [None if p is None else sum_to(p, v.shape) for p, v in zip(parts, g.inputs, strict=True)]

    kind = "number" if name in ("add", "sub", "mul", "maximum", "minimum") else "float"
    operands = (Operand("a", dtype=kind), Operand("b", dtype=kind))
    register(OpDef(name, operands, ("out",), _infer_binary, doc, vjp=vjp, elementwise=True, inplace={0: 0}))

    def build(a: Operandish, b: Operandish) -> Value:
        return _two(name, a, b)

    build.__name__, build.__doc__ = name, doc
    return build


def _compare(name: str, doc: str) -> Callable[[Operandish, Operandish], Value]:
    kind = "any" if name == "equal" else "number"
    operands = (Operand("a", dtype=kind), Operand("b", dtype=kind))
    register(OpDef(name, operands, ("out",), _infer_compare, doc, vjp=lambda g: [None, None], elementwise=True))

    def build(a: Operandish, b: Operandish) -> Value:
        return _two(name, a, b)

    build.__name__, build.__doc__ = name, doc
    return build


def _two(name: str, a: Operandish, b: Operandish) -> Value:
    known = _known(name, a, b)
    graph, dtype = known.graph, known.dtype
    return one(name, [graph.lift(a, dtype), graph.lift(b, dtype)])


def _known(op: str, *operands: Operandish) -> Value:
    """The first operand that is a graph value: it says which graph and dtype numbers join."""
    for operand in operands:
        if isinstance(operand, Value):
            return operand
    raise GraphError(f"{op}: at least one operand must be a graph value")


# --- unary ------------------------------------------------------------------------------------------------
neg = _unary("neg", "-x", lambda g, ct: [-ct])
abs_: Unary = _unary("abs", "The magnitude; its gradient at 0 is 0.", lambda g, ct: [ct * sign(g.inputs[0])])
sign: Unary = _unary("sign", "-1, 0 or 1; 0 of both zeros, NaN of NaN.", None)
floor = _unary("floor", "The largest integer not above x; infinities and NaN are themselves.", None)
exp = _unary("exp", "e to the power x; 0 of -inf, inf where it overflows.", lambda g, ct: [ct * g.outputs[0]])
log = _unary("log", "The natural logarithm; -inf of 0, NaN of negative numbers.", lambda g, ct: [ct / g.inputs[0]])
sqrt = _unary("sqrt", "The square root; NaN of negative numbers.", lambda g, ct: [ct * 0.5 / g.outputs[0]])
square: Unary = _unary("square", "x * x; inf where it overflows.", lambda g, ct: [ct * 2.0 * g.inputs[0]])
reciprocal = _unary(
    "reciprocal", "1 / x; infinite at zeros, with their sign.", lambda g, ct: [-ct * square(g.outputs[0])]
)
sin: Unary = _unary("sin", "The sine of radians; NaN of infinities.", lambda g, ct: [ct * cos(g.inputs[0])])
cos: Unary = _unary("cos", "The cosine of radians; NaN of infinities.", lambda g, ct: [-ct * sin(g.inputs[0])])
tanh = _unary(
    "tanh", "The hyperbolic tangent; -1 and 1 of infinities.", lambda g, ct: [ct * (1.0 - square(g.outputs[0]))]
)
sigmoid = _unary(
    "sigmoid", "1 / (1 + exp(-x)); 0 and 1 of infinities.", lambda g, ct: [ct * g.outputs[0] * (1.0 - g.outputs[0])]
)
softplus = _unary("softplus", "log(1 + exp(x)); 0 of -inf, inf of inf.", lambda g, ct: [ct * sigmoid(g.inputs[0])])
relu = _unary(
    "relu",
    "x where positive, else 0, NaN of NaN; its gradient at 0 is 0.",
    lambda g, ct: [where(g.inputs[0] > 0.0, ct, 0.0)],
)

# --- comparisons and logic --------------------------------------------------------------------------------
less = _compare("less", "a < b; false of NaN.")
less_equal = _compare("less_equal", "a <= b; false of NaN.")
equal = _compare("equal", "a == b; false of NaN, 0 equals -0.")


def _logic(name: str, count: int, doc: str) -> None:
    operands = tuple(Operand(n, dtype="bool") for n in "ab"[:count])
    register(
        OpDef(
            name,
            operands,
            ("out",),
            lambda c: _broadcast(c, DType.BOOL),
            doc,
            vjp=lambda g: [None] * count,
            elementwise=True,
        )
    )


_logic("logical_and", 2, "Both.")
_logic("logical_or", 2, "Either or both.")
_logic("logical_not", 1, "The opposite.")


def logical_and(a: Value, b: Value) -> Value:
    return one("logical_and", [a, b])


def logical_or(a: Value, b: Value) -> Value:
    return one("logical_or", [a, b])


def logical_not(a: Value) -> Value:
    return one("logical_not", [a])


register(
    OpDef(
        "isfinite",
        (Operand("x"),),
        ("out",),
        lambda c: [TensorType(c.types[0].shape, DType.BOOL)],
        "Neither infinite nor NaN.",
        vjp=lambda g: [None],
        elementwise=True,
    )
)


def isfinite(x: Value) -> Value:
    return one("isfinite", [x])


# --- binary -----------------------------------------------------------------------------------------------
def _pow_rule(g: VjpContext, ct: Value) -> list[Value | None]:
    base, power = g.inputs
    # x^0 is 1 everywhere, but 0 * 0^-1 is no number.
    to_base = ct * where(equal(power, 0.0), 0.0, power * pow_(base, power - 1.0))
    # x^p has a derivative in p only where log x exists; 0 elsewhere keeps integer powers of negatives usable.
    safe = where(base > 0.0, base, 1.0)
    return [to_base, where(base > 0.0, ct * g.outputs[0] * log(safe), 0.0)]


def _tie_rule(first_wins: Callable[[Value, Value], Value]) -> Rule:
    """Gradient of maximum / minimum: all to the winner, half to each in a tie."""

    def rule(g: VjpContext, ct: Value) -> list[Value | None]:
        a, b = g.inputs
        half = where(equal(a, b), ct * 0.5, 0.0)
        return [where(first_wins(a, b), ct, half), where(first_wins(b, a), ct, half)]

    return rule


add = _binary("add", "a + b; integers wrap around.", lambda g, ct: [ct, ct])
sub = _binary("sub", "a - b; integers wrap around.", lambda g, ct: [ct, -ct])
mul = _binary("mul", "a * b; integers wrap around.", lambda g, ct: [ct * g.inputs[1], ct * g.inputs[0]])
div = _binary(
    "div", "a / b; infinite or NaN where b is 0.", lambda g, ct: [ct / g.inputs[1], -ct * g.outputs[0] / g.inputs[1]]
)
pow_ = _binary(
    "pow",
    "a to the power b: 1 where b is 0 or a is 1, NaN of negative a unless b is whole; the gradient in a is 0 where b "
    "is 0, in b where a <= 0.",
    _pow_rule,
)
maximum = _binary(
    "maximum", "The larger, NaN if either is; a tie splits the gradient evenly.", _tie_rule(lambda a, b: b < a)
)
minimum = _binary(
    "minimum", "The smaller, NaN if either is; a tie splits the gradient evenly.", _tie_rule(lambda a, b: a < b)
)


# --- where, clamp, cast -----------------------------------------------------------------------------------
def _infer_where(c: InferContext) -> list[TensorType]:
    if c.types[1].dtype is not c.types[2].dtype:
        c.fail(f"a and b have different dtypes: {c.types[1]} and {c.types[2]}")
    return _broadcast(c, c.types[1].dtype)


def _vjp_where(g: VjpContext) -> list[Value | None]:
    condition, a, b = g.inputs
    ct = g.cotangent()
    return [
        None,
        sum_to(where(condition, ct, 0.0), a.shape),
        sum_to(where(condition, 0.0, ct), b.shape),
    ]


register(
    OpDef(
        "where",
        (Operand("condition", dtype="bool"), Operand("a", dtype="any"), Operand("b", dtype="any")),
        ("out",),
        _infer_where,
        "a where the condition holds, else b; what is not chosen does not matter, NaN or not.",
        vjp=_vjp_where,
        elementwise=True,
    )
)


def where(condition: Value, a: Operandish, b: Operandish) -> Value:
    known = _known("where", a, b)
    graph = known.graph
    return one("where", [condition, graph.lift(a, known.dtype), graph.lift(b, known.dtype)])


def _infer_clamp(c: InferContext) -> list[TensorType]:
    if c.attrs["low"] > c.attrs["high"]:
        c.fail(f"low: expected at most high = {c.attrs['high']}, got {c.attrs['low']}")
    return [c.types[0]]


def _vjp_clamp(g: VjpContext) -> list[Value]:
    x, low, high = g.inputs[0], g.attrs["low"], g.attrs["high"]
    inside = logical_and(x >= low, x <= high)
    return [where(inside, g.cotangent(), 0.0)]


register(
    OpDef(
        "clamp",
        (Operand("x"),),
        ("out",),
        _infer_clamp,
        "x held between low and high, NaN of NaN; the gradient passes where low <= x <= high.",
        attrs=(Attr("low", "float", default=float("-inf")), Attr("high", "float", default=float("inf"))),
        vjp=_vjp_clamp,
        elementwise=True,
        inplace={0: 0},
    )
)


def clamp(x: Value, low: float = float("-inf"), high: float = float("inf")) -> Value:
    return one("clamp", [x], low=low, high=high)


register(
    OpDef(
        "cast",
        (Operand("x", dtype="any"),),
        ("out",),
        lambda c: [TensorType(c.types[0].shape, c.attrs["dtype"])],
        "The same values as another dtype: to integers the fraction is cut off, their range's ends hold, NaN is 0; all "
        "but 0 is true. Between floats the gradient passes; ints carry none.",
        attrs=(Attr("dtype", "dtype", required=True),),
        vjp=lambda g: [cast(g.cotangent(), g.inputs[0].dtype) if g.inputs[0].dtype.is_float else None],
        elementwise=True,
    )
)


def cast(x: Value, dtype: DType | str) -> Value:
    known_value("cast: x", x)
    made = DType.of(dtype)
    return x if x.dtype is made else one("cast", [x], dtype=made)


# --- fused groups -----------------------------------------------------------------------------------------
# A program is a tuple of steps (op, references, attributes): reference i < n_operands is an operand, the rest
# are earlier steps; attributes are (name, JSON value) pairs. The last step is the result.
Step = tuple[str, tuple[int, ...], tuple[tuple[str, Any], ...]]


def program_step(op: str, refs: Sequence[int], attrs: dict[str, AttrValue]) -> Step:
    """One step of a fused program for a node's op, operand references and attributes."""
    definition = lookup(op)
    return (op, tuple(refs), tuple((n, definition.attr(n).to_json(v)) for n, v in sorted(attrs.items())))


def step_attrs(step: Step) -> dict[str, AttrValue]:
    """A step's attributes in canonical form."""
    return lookup(step[0]).normalise_attrs(dict(step[2]))


class ProgramStep(NamedTuple):
    """One op of a program: what it reads (operand i, then earlier steps), its attributes, the dtype it makes."""

    op: str
    refs: tuple[int, ...]
    attrs: Mapping[str, AttrValue]
    dtype: DType


Program = tuple[ProgramStep, ...]


def program_of(node: Node) -> Program:
    """A node's steps: its own op, or those of a fused group."""
    if node.op != "fused":
        return (ProgramStep(node.op, tuple(range(len(node.inputs))), node.attrs, node.outputs[0].dtype),)
    types = [v.type for v in node.inputs]
    steps = []
    for op, refs, given in node.attrs["program"]:
        attrs = lookup(op).normalise_attrs(dict(given))
        types += lookup(op).infer_types([types[r] for r in refs], attrs, _no_fresh)
        steps.append(ProgramStep(op, refs, attrs, types[-1].dtype))
    return tuple(steps)


def _infer_fused(c: InferContext) -> list[TensorType]:
    types = list(c.types)
    for i, step in enumerate(c.attrs["program"]):
        if not (
            isinstance(step, tuple)
            and len(step) == 3
            and isinstance(step[0], str)
            and isinstance(step[1], tuple)
            and isinstance(step[2], tuple)
            and all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) for p in step[2])
        ):
            c.fail(f"program step {i}: expected (op, operands, attributes), got {step!r}")
        if len({name for name, _ in step[2]}) < len(step[2]):
            c.fail(f"program step {i}: an attribute stands twice")
        definition = lookup(step[0])
        if not definition.elementwise or definition.name == "fused":
            c.fail(f"program step {i}: {step[0]} is not an elementwise op")
        if not all(isinstance(r, int) and 0 <= r < len(types) for r in step[1]):
            c.fail(f"program step {i}: operands {step[1]} do not all exist")
        types.extend(definition.infer_types([types[r] for r in step[1]], step_attrs(step), _no_fresh))
    if len(types) == len(c.types):
        c.fail("program: expected at least one step")
    return [types[-1]]


def _no_fresh(base: str) -> Dim:
    raise GraphError("elementwise ops make no new dimensions")


def expand_fused(graph: Graph, operands: Sequence[Value], program: Sequence[Step]) -> Value:
    """The nodes that a fused program stands for; returns the result."""
    values = list(operands)
    for step in program:
        values.append(graph.add(step[0], [values[r] for r in step[1]], step_attrs(step)).outputs[0])
    return values[-1]


register(
    OpDef(
        "fused",
        (Operand("x", dtype="any"),),
        ("out",),
        _infer_fused,
        "A group of elementwise ops run as one kernel.",
        attrs=(Attr("program", "program", required=True),),
        variadic=True,
        expand=lambda graph, operands, attrs: [expand_fused(graph, operands, attrs["program"])],
    )
)
