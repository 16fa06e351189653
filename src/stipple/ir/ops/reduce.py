"""Reductions and the matrix product."""

from __future__ import annotations

from collections.abc import Sequence

from stipple.errors import GraphError
from stipple.ir.attributes import Attr
from stipple.ir.graph import Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.elementwise import cast, equal
from stipple.ir.ops.structure import broadcast_to, full, known_value, one, reshape, transpose
from stipple.ir.shape import Dim, Shape, TensorType

_ATTRS = (Attr("axes", "axes", required=True), Attr("keepdims", "bool", default=False))


def _infer_reduce(c: InferContext) -> list[TensorType]:
    shape, axes = c.operands.x.shape, c.attrs["axes"]
    if any(a >= shape.rank for a in axes):
        c.fail(f"axes: expected axes of {shape}, got {list(axes)}")
    if c.op in ("reduce_max", "reduce_min") and any(shape[a] == 0 for a in axes):
        c.fail(f"axes: {shape} has no element along an axis of {list(axes)}")
    if c.attrs["keepdims"]:
        dims = [Dim.of(1) if i in axes else d for i, d in enumerate(shape)]
    else:
        dims = [d for i, d in enumerate(shape) if i not in axes]
    return [TensorType(Shape(dims), c.operands.x.dtype)]


def _kept_shape(x: Value, axes: Sequence[int]) -> Shape:
    return Shape(Dim.of(1) if i in axes else d for i, d in enumerate(x.shape))


def _spread(value: Value, x: Value, axes: Sequence[int]) -> Value:
    """A reduced value repeated over the axes it was reduced from."""
    return broadcast_to(reshape(value, _kept_shape(x, axes)), x.shape)


def _count(x: Value, axes: Sequence[int]) -> Value:
    """Number of elements reduced into one, as a scalar; counted when the graph runs if it is symbolic."""
    size = Shape(x.shape[a] for a in axes).size
    if size.value is not None:
        return x.graph.constant(float(size.value), x.dtype)
    ones = full(x.graph, [x.shape[a] for a in axes], 1.0, x.dtype)
    return sum_(ones)


def _vjp_sum(g: VjpContext) -> list[Value]:
    return [_spread(g.cotangent(), g.operands.x, g.attrs["axes"])]


def _vjp_mean(g: VjpContext) -> list[Value]:
    x, axes = g.operands.x, g.attrs["axes"]
    return [_spread(g.cotangent() / _count(x, axes), x, axes)]


def _vjp_extreme(g: VjpContext) -> list[Value]:
    x, axes = g.operands.x, g.attrs["axes"]
    winners = cast(equal(x, _spread(g.results.out, x, axes)), x.dtype)
    share = _spread(g.cotangent() / sum_(winners, axes, keepdims=g.attrs["keepdims"]), x, axes)
    return [winners * share]


for _name, _doc, _vjp in (
    ("sum", "The sum over axes; 0 for no elements.", _vjp_sum),
    ("mean", "The mean over axes; NaN for no elements.", _vjp_mean),
    (
        "reduce_max",
        "The maximum over axes, NaN if any is, an error for no elements; ties share the gradient.",
        _vjp_extreme,
    ),
    (
        "reduce_min",
        "The minimum over axes, NaN if any is, an error for no elements; ties share the gradient.",
        _vjp_extreme,
    ),
):
    register(OpDef(_name, (Operand("x"),), ("out",), _infer_reduce, _doc, attrs=_ATTRS, vjp=_vjp))


def _reduce(op: str, x: Value, axes: int | Sequence[int] | None, keepdims: bool) -> Value:
    known_value(f"{op}: x", x)
    if axes is None:
        chosen = tuple(range(x.shape.rank))
    else:
        chosen = (axes,) if isinstance(axes, int) else tuple(axes)
        if any(not isinstance(a, int) or not -x.shape.rank <= a < x.shape.rank for a in chosen):
            raise GraphError(f"{op}: axes: expected axes of {x.shape}, got {list(chosen)}")
        chosen = tuple(sorted(a % x.shape.rank for a in chosen))
    return one(op, [x], axes=chosen, keepdims=keepdims)


def sum_(x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """The sum over ``axes`` (all by default; negative ones count from the end)."""
    return _reduce("sum", x, axes, keepdims)


def mean(x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
    return _reduce("mean", x, axes, keepdims)


def reduce_max(x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
    return _reduce("reduce_max", x, axes, keepdims)


def reduce_min(x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
    return _reduce("reduce_min", x, axes, keepdims)


register(
    OpDef(
        "matmul",
        (Operand("a", "M K"), Operand("b", "K P")),
        ("out",),
        lambda c: [c.result("M P", c.float_dtype)],
        "The product of two matrices; 0 for no columns.",
        vjp=lambda g: [
            matmul(g.cotangent(), transpose(g.operands.b)),
            matmul(transpose(g.operands.a), g.cotangent()),
        ],
    )
)


def matmul(a: Value, b: Value) -> Value:
    return one("matmul", [a, b])


__all__ = ["matmul", "mean", "reduce_max", "reduce_min", "sum_"]
