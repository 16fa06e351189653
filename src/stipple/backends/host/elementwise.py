"""Elementwise ops and programs of them in NumPy, each result in the dtype that the op declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.host.kernel import Held
from stipple.ir.attributes import AttrValue
from stipple.ir.dtype import DType
from stipple.ir.op import lookup
from stipple.ir.ops.fused import Program

Array = np.ndarray


def run_program(program: Program, operands: Sequence[Array], held: Held) -> Array:
    """The last result of a program. ``held`` maps each dtype to the one that the device stores: every step is rounded
    to it, so that a program gives the same results as its ops one by one. The result may be an operand itself."""
    values = list(operands)
    with np.errstate(all="ignore"):  # set here because it applies per thread
        for op, refs, attrs, dtype in program:
            result = _compute(op, attrs, [values[r] for r in refs], dtype, held)
            assert result.dtype == held(dtype), op
            values.append(result)
    return values[-1]


def _compute(op: str, attrs: Mapping[str, AttrValue], x: Sequence[Array], dtype: DType, held: Held) -> Array:
    if op == "clamp":
        low, high = (np.asarray(attrs[n]).astype(held(dtype)) for n in ("low", "high"))
        return np.asarray(np.clip(x[0], low, high))
    if op == "cast":
        return _cast(x[0], dtype).astype(held(dtype), copy=False)
    function = lookup(op).numpy
    assert function is not None, op
    return np.asarray(function(*x))


_LIMITS = {DType.I32: (-(2**31), 2**31 - 1), DType.U8: (0, 255)}


def _cast(x: Array, to: DType) -> Array:
    """Values converted to a dtype: to integers, floats are truncated and saturate, and NaN becomes 0; to bool,
    everything but zero, including NaN, is true."""
    if to is DType.BOOL:
        return np.asarray(x != 0)
    if to not in _LIMITS:
        return x
    low, high = _LIMITS[to]
    if x.dtype.kind != "f":
        return np.asarray(np.clip(x.astype(np.int64), low, high))
    # In float64, which represents the limits exactly: the largest i32 is not a float32.
    return np.asarray(np.clip(np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0)), low, high))
