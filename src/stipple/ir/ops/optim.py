"""Optimiser updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stipple.ir.attributes import Attr
from stipple.ir.op import InferContext, OpDef, Operand, register
from stipple.ir.shape import TensorType

if TYPE_CHECKING:
    from stipple.ir.graph import Operandish, Value


def _infer_adam(c: InferContext) -> list[TensorType]:
    param = c.types[0]
    for name, type_ in zip(("grad", "m", "v"), c.types[1:4], strict=True):
        if type_ != param:
            c.fail(f"{name}: expected {param} as param has, got {type_}")
    rate = c.types[4].shape
    if rate.rank and (param.shape.rank < 2 or tuple(rate) != tuple(param.shape)[1:]):
        c.fail(f"lr: expected a number, or one for each column of {param}, got shape {rate}")
    return [param] * 3


_OPERANDS = (
    Operand("param"),
    Operand("grad"),
    Operand("m"),
    Operand("v"),
    Operand("lr", finite=True),
    Operand("step", "", finite=True),
)
_ATTRS = (
    Attr("beta1", "float", default=0.9, minimum=0.0, maximum=0.9999999),
    Attr("beta2", "float", default=0.999, minimum=0.0, maximum=0.9999999),
    Attr("eps", "float", default=1e-15, minimum=0.0, open_minimum=True),
)


def _infer_visible(c: InferContext) -> list[TensorType]:
    param, mask = c.types[0], c.types[6]
    if param.shape.rank < 1 or tuple(mask.shape) != param.shape[:1]:
        c.fail(f"visible: expected one bool for each row of {param}, got {mask}")
    return _infer_adam(c)


register(
    OpDef(
        "adam",
        _OPERANDS,
        ("param", "m", "v"),
        _infer_adam,
        "One Adam update with bias correction. step counts from 1. lr is a number, or one for each element of a row.",
        attrs=_ATTRS,
        inplace={0: 0, 1: 2, 2: 3},
    )
)
register(
    OpDef(
        "adam_visible",
        (*_OPERANDS, Operand("visible", dtype="bool")),
        ("param", "m", "v"),
        _infer_visible,
        "An Adam update of the rows that a mask names; the others keep their values and moments.",
        attrs=_ATTRS,
        inplace={0: 0, 1: 2, 2: 3},
    )
)


class AdamUpdate(NamedTuple):
    """The next parameter and the next two moments."""

    param: Value
    m: Value
    v: Value


def adam(
    param: Value,
    grad: Value,
    m: Value,
    v: Value,
    lr: Operandish,
    step: Value,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
    visible: Value | None = None,
) -> AdamUpdate:
    """One Adam update (Kingma and Ba, 2015): param - lr * m_hat / (sqrt(v_hat) + eps).

    ``grad``, ``m``, ``v`` have the type of ``param``; ``lr`` and ``step`` are scalars of its dtype, ``step``
    counting from 1; ``lr`` may also hold a rate for each element of a row, shaped like ``param`` without its
    first axis. The defaults are those 3DGS trains with. With ``visible`` [N] bool, only those
    rows change.
    """
    graph = param.graph
    inputs = [param, grad, m, v, graph.lift(lr, param.dtype), graph.lift(step, param.dtype)]
    attrs = {"beta1": beta1, "beta2": beta2, "eps": eps}
    node = graph.add("adam", inputs, attrs) if visible is None else graph.add("adam_visible", [*inputs, visible], attrs)
    return AdamUpdate(*node.outputs)
