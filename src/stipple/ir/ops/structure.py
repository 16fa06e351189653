"""Structure ops: sources, constants, and everything that moves elements without computing."""

from __future__ import annotations

from collections.abc import Sequence

from stipple.errors import GraphError
from stipple.ir.attributes import Attr
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Scalar, Value
from stipple.ir.numbers import as_dtype
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.shape import Dim, DimLike, Shape, ShapeLike, TensorType, broadcast_shapes

_ANY = Operand("x", dtype="any")


def one(op: str, inputs: Sequence[Value], **attrs: object) -> Value:
    """Add a node with one output to its operands' graph and return that output."""
    for i, value in enumerate(inputs):
        known_value(f"{op}: operand {i}", value)
    if not inputs:
        raise GraphError(f"{op}: needs at least one operand")
    return inputs[0].graph.add(op, inputs, attrs).outputs[0]


def known_value(what: str, value: object) -> None:
    """Raise GraphError unless something is a graph value."""
    if not isinstance(value, Value):
        raise GraphError(f"{what}: expected a graph value, got {type(value).__name__}")


# --- definitions ------------------------------------------------------------------------------------------
def _declared(c: InferContext) -> list[TensorType]:
    return [TensorType(c.attrs["shape"], c.attrs["dtype"])]


for _name, _doc in (
    ("input", "A value fed on every run."),
    ("param", "A value kept by the executable between runs."),
):
    register(
        OpDef(
            _name,
            (),
            ("out",),
            _declared,
            _doc,
            attrs=(
                Attr("name", "str", required=True),
                Attr("shape", "shape", required=True),
                Attr("dtype", "dtype", required=True),
            ),
            source=True,
        )
    )

register(
    OpDef(
        "constant",
        (),
        ("out",),
        lambda c: [TensorType(Shape(c.attrs["value"].shape), DType.of(c.attrs["value"].dtype))],
        "A tensor stored in the graph.",
        attrs=(Attr("value", "array", required=True),),
        vjp=lambda g: [],
    )
)


def _infer_full(c: InferContext) -> list[TensorType]:
    value, dtype = c.attrs["value"], c.attrs["dtype"]
    if dtype is DType.BOOL and value not in (0, 1):
        c.fail(f"value: expected 0 or 1 for bool, got {value}")
    try:
        as_dtype(bool(value) if dtype is DType.BOOL else value, dtype)
    except ValueError as error:
        c.fail(f"value: {error}")
    return _declared(c)


register(
    OpDef(
        "full",
        (),
        ("out",),
        _infer_full,
        "A tensor with one value everywhere; its shape may be symbolic.",
        attrs=(
            Attr("shape", "shape", required=True),
            Attr("dtype", "dtype", required=True),
            Attr("value", "float", required=True),
        ),
        vjp=lambda g: [],
    )
)


def _infer_reshape(c: InferContext) -> list[TensorType]:
    shape: Shape = c.attrs["shape"]
    if shape.size != c.operands.x.shape.size:
        c.fail(f"{c.operands.x.shape} has {c.operands.x.shape.size} elements, {shape} has {shape.size}")
    return [TensorType(shape, c.operands.x.dtype)]


register(
    OpDef(
        "reshape",
        (_ANY,),
        ("out",),
        _infer_reshape,
        "The same elements in row-major order with another shape.",
        attrs=(Attr("shape", "shape", required=True),),
        vjp=lambda g: [reshape(g.cotangent(), g.operands.x.shape)],
        view=True,
    )
)


def _infer_transpose(c: InferContext) -> list[TensorType]:
    axes, type_ = c.attrs["axes"], c.operands.x
    if sorted(axes) != list(range(type_.shape.rank)):
        c.fail(f"axes: expected a permutation of the {type_.shape.rank} axes of x, got {list(axes)}")
    return [TensorType(Shape(type_.shape[a] for a in axes), type_.dtype)]


def _vjp_transpose(g: VjpContext) -> list[Value]:
    axes = g.attrs["axes"]
    return [transpose(g.cotangent(), [axes.index(i) for i in range(len(axes))])]


register(
    OpDef(
        "transpose",
        (_ANY,),
        ("out",),
        _infer_transpose,
        "Axes in another order.",
        attrs=(Attr("axes", "axes", required=True),),
        vjp=_vjp_transpose,
    )
)


def _infer_broadcast(c: InferContext) -> list[TensorType]:
    shape: Shape = c.attrs["shape"]
    if broadcast_shapes(c.operands.x.shape, shape) != shape:
        c.fail(f"{c.operands.x.shape} does not broadcast to {shape}")
    return [TensorType(shape, c.operands.x.dtype)]


register(
    OpDef(
        "broadcast",
        (_ANY,),
        ("out",),
        _infer_broadcast,
        "Repeated along axes of length one and new leading axes.",
        attrs=(Attr("shape", "shape", required=True),),
        vjp=lambda g: [sum_to(g.cotangent(), g.operands.x.shape)],
    )
)


def _check_axis(c: InferContext, rank: int) -> int:
    axis: int = c.attrs["axis"]
    if axis >= rank:
        c.fail(f"axis: expected an axis below the rank {rank}, got {axis}")
    return axis


def _infer_narrow(c: InferContext) -> list[TensorType]:
    type_ = c.operands.x
    axis = _check_axis(c, type_.shape.rank)
    start, length = c.attrs["start"], c.attrs["length"]
    left = (type_.shape[axis] - start - length).value
    for name, dim in (("start", start.value), ("length", length.value), ("start + length", left)):
        if dim is not None and dim < 0:
            c.fail(f"{name}: elements {start} to {start + length} are outside axis {axis} of {type_.shape}")
    dims = [*type_.shape[:axis], length, *type_.shape[axis + 1 :]]
    return [TensorType(Shape(dims), type_.dtype)]


def _vjp_narrow(g: VjpContext) -> list[Value]:
    axis, start, length = g.attrs["axis"], g.attrs["start"], g.attrs["length"]
    return [pad(g.cotangent(), axis, start, g.operands.x.shape[axis] - start - length)]


_AXIS = Attr("axis", "int", required=True, minimum=0)
register(
    OpDef(
        "narrow",
        (_ANY,),
        ("out",),
        _infer_narrow,
        "A range of one axis.",
        attrs=(_AXIS, Attr("start", "dim", required=True), Attr("length", "dim", required=True)),
        vjp=_vjp_narrow,
    )
)


def _infer_pad(c: InferContext) -> list[TensorType]:
    type_ = c.operands.x
    axis = _check_axis(c, type_.shape.rank)
    before, after = c.attrs["before"], c.attrs["after"]
    if (before.value or 0) < 0 or (after.value or 0) < 0:
        c.fail(f"before, after: expected lengths >= 0, got {before} and {after}")
    dims = [*type_.shape[:axis], type_.shape[axis] + before + after, *type_.shape[axis + 1 :]]
    return [TensorType(Shape(dims), type_.dtype)]


register(
    OpDef(
        "pad",
        (_ANY,),
        ("out",),
        _infer_pad,
        "Zeros added before and after along one axis.",
        attrs=(_AXIS, Attr("before", "dim", default=0), Attr("after", "dim", default=0)),
        vjp=lambda g: [narrow(g.cotangent(), g.attrs["axis"], g.attrs["before"], g.operands.x.shape[g.attrs["axis"]])],
    )
)


def _infer_concat(c: InferContext) -> list[TensorType]:
    first = c.types[0]
    axis = _check_axis(c, first.shape.rank)
    total = Dim.of(0)
    for i, type_ in enumerate(c.types):
        same = type_.shape.rank == first.shape.rank and all(
            a == b for k, (a, b) in enumerate(zip(type_.shape, first.shape, strict=True)) if k != axis
        )
        if not same or type_.dtype is not first.dtype:
            c.fail(f"x[{i}]: expected {first} except in axis {axis}, got {type_}")
        total = total + type_.shape[axis]
    return [TensorType(Shape([*first.shape[:axis], total, *first.shape[axis + 1 :]]), first.dtype)]


def _vjp_concat(g: VjpContext) -> list[Value]:
    axis, start, parts = g.attrs["axis"], Dim.of(0), []
    for value in g.inputs:
        parts.append(narrow(g.cotangent(), axis, start, value.shape[axis]))
        start = start + value.shape[axis]
    return parts


register(
    OpDef(
        "concat",
        (_ANY,),
        ("out",),
        _infer_concat,
        "Values joined along one axis.",
        attrs=(_AXIS,),
        vjp=_vjp_concat,
        variadic=True,
    )
)


def _infer_gather(c: InferContext) -> list[TensorType]:
    x, ids = c.types
    if x.shape.rank < 1:
        c.fail(f"x: expected at least one axis, got {x}")
    return [TensorType(Shape([*ids.shape, *x.shape[1:]]), x.dtype)]


register(
    OpDef(
        "gather",
        (_ANY, Operand("ids", dtype="i32")),
        ("out",),
        _infer_gather,
        "Rows of x picked by ids along axis 0. Ids outside x are an error when the graph runs.",
        vjp=lambda g: [scatter_add(zeros_like(g.operands.x), g.operands.ids, g.cotangent()), None],
    )
)


def _infer_scatter(c: InferContext) -> list[TensorType]:
    base, ids, updates = c.types
    expected = Shape([*ids.shape, *base.shape[1:]]) if base.shape.rank else None
    if expected != updates.shape or base.dtype is not updates.dtype:
        c.fail(f"updates: expected {base.dtype.value}{expected}, got {updates}")
    return [base]


register(
    OpDef(
        "scatter_add",
        (Operand("base"), Operand("ids", dtype="i32"), Operand("updates")),
        ("out",),
        _infer_scatter,
        "base with each row of updates added to the row given by ids, in order of ids. Ids outside base are an "
        "error when the graph runs.",
        vjp=lambda g: [g.cotangent(), None, gather(g.cotangent(), g.operands.ids)],
        inplace={0: 0},
    )
)
register(
    OpDef(
        "stop_gradient",
        (_ANY,),
        ("out",),
        lambda c: [c.operands.x],
        "The same value; gradients stop here.",
        vjp=lambda g: [None],
        view=True,
    )
)


# --- builders ---------------------------------------------------------------------------------------------
def full(graph: Graph, shape: ShapeLike, value: Scalar, dtype: DType | str = DType.F32) -> Value:
    """A tensor with one value everywhere. Symbols of ``shape`` must occur in an input or parameter."""
    attrs = {"shape": Shape(shape), "value": value, "dtype": DType.of(dtype)}
    return graph.add("full", (), attrs).outputs[0]


def full_like(x: Value, value: Scalar) -> Value:
    return full(x.graph, x.shape, value, x.dtype)


def zeros_like(x: Value) -> Value:
    return full_like(x, 0.0)


def reshape(x: Value, shape: ShapeLike) -> Value:
    known_value("reshape: x", x)
    target = Shape(shape)
    return x if target == x.shape else one("reshape", [x], shape=target)


def transpose(x: Value, axes: Sequence[int] | None = None) -> Value:
    """Axes in the given order; without ``axes``, reversed."""
    known_value("transpose: x", x)
    order = tuple(reversed(range(x.shape.rank))) if axes is None else tuple(axes)
    return one("transpose", [x], axes=order)


def broadcast_to(x: Value, shape: ShapeLike) -> Value:
    known_value("broadcast_to: x", x)
    target = Shape(shape)
    return x if target == x.shape else one("broadcast", [x], shape=target)


def narrow(x: Value, axis: int, start: DimLike, length: DimLike) -> Value:
    """Elements ``start`` to ``start + length`` of one axis."""
    return one("narrow", [x], axis=axis, start=start, length=length)


def pad(x: Value, axis: int, before: DimLike = 0, after: DimLike = 0) -> Value:
    return one("pad", [x], axis=axis, before=before, after=after)


def concat(values: Sequence[Value], axis: int = 0) -> Value:
    if not isinstance(values, Sequence):
        raise GraphError(f"concat: values: expected a list of graph values, got {type(values).__name__}")
    return one("concat", values, axis=axis)


def gather(x: Value, ids: Value) -> Value:
    """Rows of ``x`` [V, ...] picked by int32 ``ids`` of any shape."""
    return one("gather", [x, ids])


def scatter_add(base: Value, ids: Value, updates: Value) -> Value:
    return one("scatter_add", [base, ids, updates])


def stop_gradient(x: Value) -> Value:
    return one("stop_gradient", [x])


def sum_to(x: Value, shape: Shape) -> Value:
    """Sum a broadcast value back to the shape it was broadcast from."""
    if x.shape == shape:
        return x
    lead = x.shape.rank - shape.rank
    axes = [i for i in range(x.shape.rank) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1)]
    summed = one("sum", [x], axes=tuple(axes), keepdims=False) if axes else x
    return reshape(summed, shape)
