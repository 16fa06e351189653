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
    return [param] * 3


register(
    OpDef(
        "adam",
        (
            Operand("param"),
            Operand("grad"),
            Operand("m"),
            Operand("v"),
            Operand("lr", "", finite=True),
            Operand("step", "", finite=True),
        ),
        ("param", "m", "v"),
        _infer_adam,
        "One Adam update with bias correction. step counts from 1.",
        attrs=(
            Attr("beta1", "float", default=0.9, minimum=0.0, maximum=0.9999999),
            Attr("beta2", "float", default=0.999, minimum=0.0, maximum=0.9999999),
            Attr("eps", "float", default=1e-15, minimum=0.0, open_minimum=True),
        ),
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
) -> AdamUpdate:
    """One Adam update (Kingma and Ba, 2015): param - lr * m_hat / (sqrt(v_hat) + eps).

    ``grad``, ``m``, ``v`` have the type of ``param``; ``lr`` and ``step`` are scalars of its dtype, ``step``
    counting from 1. The defaults are those 3DGS trains with.
    """
    graph = param.graph
    inputs = [param, grad, m, v, graph.lift(lr, param.dtype), graph.lift(step, param.dtype)]
    node = graph.add("adam", inputs, {"beta1": beta1, "beta2": beta2, "eps": eps})
    return AdamUpdate(*node.outputs)
