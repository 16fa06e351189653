"""The fused Adam update: one pass over parameters and moments, in place where the runtime allows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stipple.backends.cpu.compile import kernel
from stipple.backends.cpu.threads import Threads
from stipple.backends.host import checks
from stipple.backends.host.tensor import adam_factors
from stipple.ir.graph import Node
from stipple.ir.ops.optim import AdamOperands, AdamVisibleOperands

Array = np.ndarray
f4 = np.float32
_BLOCK = 32768


@kernel("void(i8,i8,f4[::1],f4[::1],f4[::1],f4[::1],f4[::1],f4,f4,f4,b1[::1],i8,f4[::1],f4[::1],f4[::1])")
def update(start, end, param, grad, m, v, shares, rate, scale, eps, visible, width, o_param, o_m, o_v):
    """Update elements start to end; with ``visible``, only those of rows (of ``width``) that it names.

    ``shares`` are beta1, 1 - beta1, beta2, 1 - beta2; ``rate`` is lr / (1 - beta1^step), ``scale`` is
    1 / (1 - beta2^step).
    """
    old_m, new_m, old_v, new_v = shares[0], shares[1], shares[2], shares[3]
    for i in range(start, end):
        if len(visible) and not visible[i // width]:
            o_param[i], o_m[i], o_v[i] = param[i], m[i], v[i]
            continue
        g = grad[i]
        next_m = old_m * m[i] + new_m * g
        next_v = old_v * v[i] + new_v * g * g
        o_param[i] = param[i] - rate * next_m / (math.sqrt(next_v * scale) + eps)
        o_m[i] = next_m
        o_v[i] = next_v


@kernel(
    "void(i8,i8,f4[:,::1],f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f4[::1],f4,f4,b1[::1],f4[:,::1],f4[:,::1],f4[:,::1])"
)
def update_rows(start, end, param, grad, m, v, shares, rates, scale, eps, visible, o_param, o_m, o_v):
    """As ``update`` for rows start to end, each column with a rate of its own."""
    old_m, new_m, old_v, new_v = shares[0], shares[1], shares[2], shares[3]
    for i in range(start, end):
        if len(visible) and not visible[i]:
            o_param[i], o_m[i], o_v[i] = param[i], m[i], v[i]
            continue
        for k in range(param.shape[1]):
            g = grad[i, k]
            next_m = old_m * m[i, k] + new_m * g
            next_v = old_v * v[i, k] + new_v * g * g
            o_param[i, k] = param[i, k] - rates[k] * next_m / (math.sqrt(next_v * scale) + eps)
            o_m[i, k] = next_m
            o_v[i, k] = next_v


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
    ) -> Sequence[Array]:
        x: AdamOperands | AdamVisibleOperands = self.node.definition.named_operands(inputs)
        param, lr, attrs = x.param, x.lr, self.node.attrs
        factor1, factor2 = adam_factors(self.node, x.step)
        visible = x.visible if isinstance(x, AdamVisibleOperands) else np.empty(0, np.bool_)
        width = math.prod(param.shape[1:])
        results = [np.empty_like(param) if o is None else o for o in outputs]
        beta1, beta2 = attrs["beta1"], attrs["beta2"]
        shares = np.array([beta1, 1 - beta1, beta2, 1 - beta2], np.float32)  # 1 - beta2 in float32 may be 20 % off
        scale, eps = np.float32(1 / factor2), np.float32(attrs["eps"])
        shape = (len(param), width) if lr.ndim else (-1,)
        before = [a.reshape(shape) for a in (param, x.grad, x.m, x.v)]
        after = [a.reshape(shape) for a in results]
        if lr.ndim:
            rates = np.asarray(lr.astype(np.float64) / factor1, np.float32).reshape(-1)
            rest = (shares, rates, scale, eps, visible)
            rows = max(1, _BLOCK // max(width, 1))
            self.threads.blocks(len(param), rows, lambda s, e: update_rows(s, e, *before, *rest, *after))
        else:
            one = (shares, np.float32(float(lr) / factor1), scale, eps, visible)
            self.threads.blocks(param.size, _BLOCK, lambda s, e: update(s, e, *before, *one, width, *after))
        return results
