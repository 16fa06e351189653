"""split: an axis cut in two, whose gradient is one concat instead of a sum of two padded halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.graph import Graph, Value
from stipple.ir.op import InferContext, OpDef, Operand, register
from stipple.ir.ops.structure import concat, known_value, narrow
from stipple.ir.shape import DimLike, Shape, TensorType


def _infer(c: InferContext) -> list[TensorType]:
    shape, axis, at = c.operands.x.shape, c.attrs["axis"], c.attrs["at"]
    if axis >= shape.rank:
        c.fail(f"axis: expected an axis of {shape}, got {axis}")
    size = shape[axis]
    if at.value is not None and size.value is not None and not 0 <= at.value <= size.value:
        c.fail(f"at: expected 0 to {size}, the length of axis {axis}, got {at}")
    lengths = (at, size - at)
    return [TensorType(Shape([*shape[:axis], n, *shape[axis + 1 :]]), c.operands.x.dtype) for n in lengths]


def _expand(graph: Graph, operands: Any, attrs: Mapping[str, AttrValue]) -> list[Value]:
    x, axis, at = operands.x, attrs["axis"], attrs["at"]
    return [narrow(x, axis, 0, at), narrow(x, axis, at, x.shape[axis] - at)]


register(
    OpDef(
        "split",
        (Operand("x", dtype="any"),),
        ("first", "second"),
        _infer,
        "The elements of one axis before ``at``, and those from ``at`` on.",
        attrs=(Attr("axis", "int", required=True, minimum=0), Attr("at", "dim", required=True)),
        vjp=lambda g: [concat([g.cotangent("first"), g.cotangent("second")], g.attrs["axis"])],
        expand=_expand,
    )
)


def split(x: Value, axis: int, at: DimLike) -> tuple[Value, Value]:
    """The elements of one axis before ``at``, and those from ``at`` on."""
    known_value("split: x", x)
    first, second = x.graph.add("split", [x], {"axis": axis, "at": at}).outputs
    return first, second
