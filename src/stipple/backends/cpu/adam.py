"""The fused Adam update: one pass over parameters and moments, in place where the runtime allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.simd import LANES, first_lanes, load, load_lanes, sqrt, store, store_lanes
from stipple.backends.cpu.threads import Threads
from stipple.backends.host import checks
from stipple.backends.host.tensor import adam_factors
from stipple.ir.graph import Node
from stipple.ir.ops.optim import AdamOperands, AdamResults, AdamVisibleOperands

Array = np.ndarray
f4 = np.float32
_BLOCK = 32768


class Before(NamedTuple):
    """Operands, flat."""

    param: Array
    grad: Array
    m: Array
    v: Array


class After(NamedTuple):
    """Results, flat; they may be the operands themselves."""

    param: Array
    m: Array
    v: Array


class Rule(NamedTuple):
    """The constants of an update."""

    keep_m: np.float32
    take_m: np.float32
    keep_v: np.float32
    take_v: np.float32
    scale: np.float32
    """1 / (1 - beta2^step)."""
    eps: np.float32
    rates: Array
    """lr / (1 - beta1^step) of each element of a row, repeated for ``period`` elements and one vector more."""
    period: int
    """At least LANES; the rates repeat after this many elements."""
    width: int
    """Elements of a row."""


@inline
def updated(rule, param, grad, m, v, rate):
    """The next parameter and moments."""
    m = rule.keep_m * m + rule.take_m * grad
    v = rule.keep_v * v + rule.take_v * grad * grad
    return param - rate * m / (sqrt(v * rule.scale) + rule.eps), m, v


@inline
def update_span(start, end, x, rule, out):
    """Update elements start to end, where start is the first of a row."""
    at = 0
    whole = end - (end - start) % LANES
    for i in range(start, whole, LANES):
        param, m, v = updated(rule, load(x.param, i), load(x.grad, i), load(x.m, i), load(x.v, i), load(rule.rates, at))
        store(out.param, i, param)
        store(out.m, i, m)
        store(out.v, i, v)
        at += LANES
        if at >= rule.period:
            at -= rule.period
    if whole < end:
        lanes = first_lanes(end - whole)
        param, m, v = updated(
            rule,
            load_lanes(x.param, whole, lanes),
            load_lanes(x.grad, whole, lanes),
            load_lanes(x.m, whole, lanes),
            load_lanes(x.v, whole, lanes),
            load(rule.rates, at),
        )
        store_lanes(out.param, whole, param, lanes)
        store_lanes(out.m, whole, m, lanes)
        store_lanes(out.v, whole, v, lanes)


_SPAN, _VECTOR = ("i8", "i8"), "f4[::1]"
_TYPES = (
    record_type(Before, *[_VECTOR] * 4),
    record_type(Rule, *["f4"] * 6, _VECTOR, "i8", "i8"),
    record_type(After, *[_VECTOR] * 3),
)


@kernel((*_SPAN, *_TYPES))
def update(first_row, last_row, x, rule, out):
    """Update rows first to last."""
    update_span(first_row * rule.width, last_row * rule.width, x, rule, out)


@kernel((*_SPAN, "b1[::1]", *_TYPES))
def update_visible(first_row, last_row, visible, x, rule, out):
    """Update those of rows first to last that are visible; copy the others."""
    row = first_row
    while row < last_row:
        end = row + 1
        while end < last_row and visible[end] == visible[row]:
            end += 1
        if visible[row]:
            update_span(row * rule.width, end * rule.width, x, rule, out)
        else:
            for i in range(row * rule.width, end * rule.width):
                out.param[i], out.m[i], out.v[i] = x.param[i], x.m[i], x.v[i]
        row = end


def _rule(node: Node, x: AdamOperands | AdamVisibleOperands, width: int) -> Rule:
    """The rule of a step, for rows of ``width`` elements."""
    beta1, beta2 = node.attrs["beta1"], node.attrs["beta2"]
    factor1, factor2 = adam_factors(node, x.step)
    shares = [f4(share) for share in (beta1, 1 - beta1, beta2, 1 - beta2)]  # 1 - beta2 in float32 may be 20 % off
    rates = np.asarray(np.asarray(x.lr, np.float64) / factor1, f4).reshape(-1)
    period = width if width >= LANES else width * LANES
    repeated = np.resize(rates, period + LANES)
    return Rule._make([*shares, f4(1 / factor2), f4(node.attrs["eps"]), repeated, period, width])


@dataclass(frozen=True)
class AdamKernel:
    """Runs an adam or adam_visible node."""

    node: Node
    threads: Threads
    owns_outputs: bool = False

    @property
    def name(self) -> str:
        return f"numba.{self.node.op}"

    def check(self, inputs: Sequence[Array], dims: Mapping[str, int]) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(
        self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Mapping[str, int]
    ) -> AdamResults:
        x: AdamOperands | AdamVisibleOperands = self.node.definition.named_operands(inputs)
        results = AdamResults(*(np.empty_like(x.param) if o is None else o for o in outputs))
        if not x.param.size:
            return results
        rows = len(x.param) if x.param.ndim else 1
        width = x.param.size // rows
        before = Before(*(a.reshape(-1) for a in (x.param, x.grad, x.m, x.v)))
        after = After(*(a.reshape(-1) for a in results))
        rule, block = _rule(self.node, x, width), max(1, _BLOCK // width)
        if isinstance(x, AdamVisibleOperands):
            visible = x.visible
            self.threads.blocks(rows, block, lambda a, b: update_visible(a, b, visible, before, rule, after))
        else:
            self.threads.blocks(rows, block, lambda a, b: update(a, b, before, rule, after))
        return results
