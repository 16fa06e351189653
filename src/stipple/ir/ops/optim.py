"""Optimiser updates."""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple.ir.attributes import Attr
from stipple.ir.graph import Operandish, Value
from stipple.ir.op import InferContext, OpDef, Operand, register


class AdamOperands(NamedTuple):
    """Operands of adam; see :func:`adam`."""

    param: Any
    grad: Any
    m: Any
    v: Any
    lr: Any
    step: Any


class AdamVisibleOperands(NamedTuple):
    """Operands of adam_visible; see :func:`adam`."""

    param: Any
    grad: Any
    m: Any
    v: Any
    lr: Any
    step: Any
    visible: Any


class AdamResults(NamedTuple):
    """The next parameter and the next two moments."""

    param: Any
    m: Any
    v: Any


def _infer_adam(c: InferContext) -> AdamResults:
    x: AdamOperands | AdamVisibleOperands = c.operands
    param = x.param
    for name, type_ in (("grad", x.grad), ("m", x.m), ("v", x.v)):
        if type_ != param:
            c.fail(f"{name}: expected {param}, the type of param, got {type_}")
    rate = x.lr.shape
    if rate.rank and (param.shape.rank < 2 or tuple(rate) != tuple(param.shape)[1:]):
        c.fail(f"lr: expected a number, or one for each column of {param}, got shape {rate}")
    return AdamResults(param, param, param)


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


_INPLACE = {AdamResults._fields.index(name): AdamOperands._fields.index(name) for name in ("param", "m", "v")}


def _infer_visible(c: InferContext) -> AdamResults:
    param, mask = c.operands.param, c.operands.visible
    if param.shape.rank < 1 or tuple(mask.shape) != param.shape[:1]:
        c.fail(f"visible: expected one bool for each row of {param}, got {mask}")
    return _infer_adam(c)


register(
    OpDef(
        "adam",
        _OPERANDS,
        AdamResults._fields,
        _infer_adam,
        "One Adam update with bias correction. step counts from 1. lr is a number, or one for each element of a row.",
        attrs=_ATTRS,
        inplace=_INPLACE,
        operand_record=AdamOperands,
        result_record=AdamResults,
    )
)
register(
    OpDef(
        "adam_visible",
        (*_OPERANDS, Operand("visible", dtype="bool")),
        AdamResults._fields,
        _infer_visible,
        "An Adam update of the rows that a mask selects; the others keep their values and moments.",
        attrs=_ATTRS,
        inplace=_INPLACE,
        operand_record=AdamVisibleOperands,
        result_record=AdamResults,
    )
)


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
) -> AdamResults:
    """One Adam update (Kingma and Ba, 2015): param - lr * m_hat / (sqrt(v_hat) + eps).

    ``grad``, ``m``, ``v`` have the type of ``param``; ``lr`` and ``step`` are scalars of its dtype, ``step``
    counting from 1; ``lr`` may also hold a rate for each element of a row, shaped like ``param`` without its
    first axis. The defaults are those 3DGS trains with. With ``visible`` [N] bool, only those
    rows change.
    """
    graph = param.graph
    operands = AdamOperands(param, grad, m, v, graph.lift(lr, param.dtype), graph.lift(step, param.dtype))
    attrs = {"beta1": beta1, "beta2": beta2, "eps": eps}
    if visible is None:
        node = graph.add("adam", operands, attrs)
    else:
        node = graph.add("adam_visible", AdamVisibleOperands(*operands, visible), attrs)
    results: AdamResults = node.results
    return results
