"""Structure, elementwise and reduction ops, and Adam: one line of NumPy each where NumPy has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stipple.errors import InputError
from stipple.ir.attributes import AttrValue
from stipple.ir.graph import Node
from stipple.ir.ops.elementwise import step_attrs

Array = np.ndarray
Dims = Mapping[str, int]
Compute = Callable[[Node, Sequence[Array], Dims], Sequence[Array]]


# --- elementwise ------------------------------------------------------------------------------------------
def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "square": np.square,
    "reciprocal": np.reciprocal,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(0, x),
    "relu": lambda x: np.where(x > 0, x, 0),
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "isfinite": np.isfinite,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": np.where,
}


def compute_elementwise(op: str, attrs: Mapping[str, AttrValue], x: Sequence[Array]) -> Array:
    with np.errstate(all="ignore"):  # infinities and NaN are values here
        if op == "clamp":
            return np.asarray(np.clip(x[0], attrs["low"], attrs["high"]))
        if op == "cast":
            return _cast(x[0], attrs["dtype"].value)
        return np.asarray(_ELEMENTWISE[op](*x))


def _cast(x: Array, dtype: str) -> Array:
    """C's conversions where defined; floats beyond an integer's range are held at its ends, NaN is 0."""
    limits = {"i32": (-(2**31), 2**31 - 1), "u8": (0, 255)}
    if dtype in limits:
        low, high = limits[dtype]
        whole = np.trunc(np.nan_to_num(x, nan=0.0)) if x.dtype.kind == "f" else x.astype(np.int64)
        return np.asarray(np.clip(whole, low, high))
    return np.asarray(x != 0) if dtype == "bool" else x


def _elementwise(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    return [compute_elementwise(node.op, node.attrs, x)]


def _fused(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    values = list(x)
    for step in node.attrs["program"]:
        values.append(compute_elementwise(step[0], step_attrs(step), [values[r] for r in step[1]]))
    return [values[-1]]


# --- structure --------------------------------------------------------------------------------------------
def _full(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    return [np.full(node.attrs["shape"].resolve(dims), node.attrs["value"])]


def _reshape(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    return [x[0].reshape(node.attrs["shape"].resolve(dims))]


def _broadcast(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    return [np.broadcast_to(x[0], node.attrs["shape"].resolve(dims))]


def _narrow(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    axis = node.attrs["axis"]
    start, length = node.attrs["start"].resolve(dims), node.attrs["length"].resolve(dims)
    if start < 0 or length < 0 or start + length > x[0].shape[axis]:
        raise InputError(
            f"narrow: elements {start} to {start + length} do not lie in axis {axis} of {list(x[0].shape)}"
        )
    return [x[0][(slice(None),) * axis + (slice(start, start + length),)]]


def _pad(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    widths = [(0, 0)] * x[0].ndim
    widths[node.attrs["axis"]] = (node.attrs["before"].resolve(dims), node.attrs["after"].resolve(dims))
    if min(widths[node.attrs["axis"]]) < 0:
        raise InputError(f"pad: lengths must not be negative, got {widths[node.attrs['axis']]}")
    return [np.pad(x[0], widths)]


def _check_ids(op: str, ids: Array, rows: int) -> None:
    if ids.size and not (ids.min() >= 0 and ids.max() < rows):
        raise InputError(f"{op}: ids must lie in 0 to {rows - 1}, got {ids.min()} to {ids.max()}")


def _gather(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    _check_ids("gather", x[1], len(x[0]))
    return [x[0][x[1]]]


def _scatter_add(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    base, ids, updates = x
    _check_ids("scatter_add", ids, len(base))
    made = base.copy()
    np.add.at(made, ids, updates)
    return [made]


# --- reductions -------------------------------------------------------------------------------------------
def _reduction(reduce: Callable[..., Array]) -> Compute:
    def compute(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
        with np.errstate(all="ignore"):
            return [np.asarray(reduce(x[0], axis=node.attrs["axes"], keepdims=node.attrs["keepdims"]))]

    return compute


def _extreme(reduce: Callable[..., Array]) -> Compute:
    compute = _reduction(reduce)

    def checked(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
        if any(x[0].shape[a] == 0 for a in node.attrs["axes"]):
            raise InputError(f"{node.op}: no element along an axis of {list(x[0].shape)}")
        return compute(node, x, dims)

    return checked


def _mean(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    count = int(np.prod([x.shape[a] for a in axis]))
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims) / np.float64(count))


# --- optimiser --------------------------------------------------------------------------------------------
def adam_factors(node: Node, step: Array) -> tuple[float, float]:
    """1 - beta1^step and 1 - beta2^step, which undo the moments' start at zero."""
    if step < 1:
        raise InputError(f"{node.op}: step counts from 1, got {float(step):g}")
    return 1 - node.attrs["beta1"] ** float(step), 1 - node.attrs["beta2"] ** float(step)


def _adam(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    param, grad, m, v, lr, step = x[:6]
    beta1, beta2, eps = node.attrs["beta1"], node.attrs["beta2"], node.attrs["eps"]
    factor1, factor2 = adam_factors(node, step)
    next_m = beta1 * m + (1 - beta1) * grad
    next_v = beta2 * v + (1 - beta2) * grad * grad
    next_param = param - lr * (next_m / factor1) / (np.sqrt(next_v / factor2) + eps)
    made = [next_param, next_m, next_v]
    if node.op == "adam_visible":
        mask = x[6].reshape(-1, *[1] * (param.ndim - 1))
        made = [np.where(mask, new, old) for new, old in zip(made, (param, m, v), strict=True)]
    return made


KERNELS: dict[str, Compute] = {
    **dict.fromkeys((*_ELEMENTWISE, "clamp", "cast"), _elementwise),
    "fused": _fused,
    "full": _full,
    "reshape": _reshape,
    "stop_gradient": lambda node, x, dims: [x[0]],
    "transpose": lambda node, x, dims: [np.transpose(x[0], node.attrs["axes"])],
    "broadcast": _broadcast,
    "narrow": _narrow,
    "pad": _pad,
    "concat": lambda node, x, dims: [np.concatenate(x, axis=node.attrs["axis"])],
    "gather": _gather,
    "scatter_add": _scatter_add,
    "sum": _reduction(np.sum),
    "mean": _reduction(_mean),
    "reduce_max": _extreme(np.max),
    "reduce_min": _extreme(np.min),
    "matmul": lambda node, x, dims: [x[0] @ x[1]],
    "adam": _adam,
    "adam_visible": _adam,
}
