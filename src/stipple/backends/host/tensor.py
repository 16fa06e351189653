"""Structure and reduction ops, and Adam: mostly one line of NumPy each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stipple.backends.host.kernel import Compute, Dims
from stipple.ir.graph import Node
from stipple.ir.ops.optim import AdamOperands, AdamResults, AdamVisibleOperands

Array = np.ndarray


# --- structure --------------------------------------------------------------------------------------------
def _full(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
    return [np.full(node.attrs["shape"].resolve(dims), node.attrs["value"])]


def _reshape(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
    return [x.x.reshape(node.attrs["shape"].resolve(dims))]


def _broadcast(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
    return [np.broadcast_to(x.x, node.attrs["shape"].resolve(dims))]


def _narrow(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
    axis = node.attrs["axis"]
    start, length = node.attrs["start"].resolve(dims), node.attrs["length"].resolve(dims)
    return [x.x[(slice(None),) * axis + (slice(start, start + length),)]]


def _pad(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
    widths = [(0, 0)] * x.x.ndim
    widths[node.attrs["axis"]] = (node.attrs["before"].resolve(dims), node.attrs["after"].resolve(dims))
    return [np.pad(x.x, widths)]


def _gather(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
    return [x.x[x.ids]]


# --- reductions -------------------------------------------------------------------------------------------
def _reduction(reduce: Callable[..., Array]) -> Compute:
    def compute(node: Node, x: Any, dims: Dims) -> Sequence[Array]:
        return [np.asarray(reduce(x.x, axis=node.attrs["axes"], keepdims=node.attrs["keepdims"]))]

    return compute


def _mean(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    count = int(np.prod([x.shape[a] for a in axis]))
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims) / np.float64(count))


# --- optimiser --------------------------------------------------------------------------------------------
def adam_factors(node: Node, step: Array) -> tuple[float, float]:
    """1 - beta1^step and 1 - beta2^step, the bias corrections of the moments."""
    return 1 - node.attrs["beta1"] ** float(step), 1 - node.attrs["beta2"] ** float(step)


def _adam(node: Node, x: AdamOperands, dims: Dims) -> AdamResults:
    beta1, beta2, eps = node.attrs["beta1"], node.attrs["beta2"], node.attrs["eps"]
    factor1, factor2 = adam_factors(node, x.step)
    m = beta1 * x.m + (1 - beta1) * x.grad
    v = beta2 * x.v + (1 - beta2) * x.grad * x.grad
    return AdamResults(x.param - x.lr * (m / factor1) / (np.sqrt(v / factor2) + eps), m, v)


def _adam_visible(node: Node, x: AdamVisibleOperands, dims: Dims) -> AdamResults:
    moved = _adam(node, AdamOperands(*x[:-1]), dims)
    mask = x.visible.reshape(-1, *[1] * (x.param.ndim - 1))
    kept = (x.param, x.m, x.v)
    return AdamResults(*(np.where(mask, new, old) for new, old in zip(moved, kept, strict=True)))


KERNELS: dict[str, Compute] = {
    "full": _full,
    "reshape": _reshape,
    "stop_gradient": lambda node, x, dims: [x.x],
    "transpose": lambda node, x, dims: [np.transpose(x.x, node.attrs["axes"])],
    "broadcast": _broadcast,
    "narrow": _narrow,
    "pad": _pad,
    "concat": lambda node, x, dims: [np.concatenate(x, axis=node.attrs["axis"])],
    "gather": _gather,
    "sum": _reduction(np.sum),
    "mean": _reduction(_mean),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "matmul": lambda node, x, dims: [x.a @ x.b],
    "adam": _adam,
    "adam_visible": _adam_visible,
}
