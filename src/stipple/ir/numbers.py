"""Numbers that become tensors: accepted only if the dtype can represent them, never truncated silently."""

from __future__ import annotations

from typing import Any

import numpy as np

from stipple.ir.dtype import DType

_KINDS = "biuf"
_RANGES = {DType.I32: (-(2**31), 2**31 - 1), DType.U8: (0, 255)}


def as_dtype(value: Any, dtype: DType) -> np.ndarray:
    """Numbers (a number, nested lists of them, an array) as a new dense array of a dtype.

    Floats accept every number that does not overflow, rounded; integers accept whole numbers in their range; bool
    accepts only booleans. Raises ValueError with what was expected and the first number that does not fit.
    """
    given = numbers_of(value)
    if given.dtype == dtype.numpy:
        return np.array(given, order="C")
    if dtype is DType.BOOL:
        _refuse(given, given.dtype.kind != "b", "true or false")
    elif dtype.is_int:
        low, high = _RANGES[dtype]
        with np.errstate(invalid="ignore"):
            whole = given == np.floor(given) if given.dtype.kind == "f" else True
            _refuse(given, ~(whole & (given >= low) & (given <= high)), f"whole numbers from {low} to {high}")
    with np.errstate(over="ignore"):
        result = np.array(given, dtype=dtype.numpy, order="C")
    if dtype.is_float and given.dtype.kind != "b":
        _refuse(given, np.isinf(result) & np.isfinite(given), f"numbers up to {np.finfo(result.dtype).max:.4g}")
    return result


def numbers_of(value: Any) -> np.ndarray:
    """Numbers as an array of NumPy's choice. Raises ValueError for anything else."""
    try:
        given = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"expected numbers in rows of equal length, got {value!r:.100}") from None
    if given.dtype.kind == "O" and given.size and all(isinstance(v, (int, float)) for v in given.flat):
        raise ValueError(f"expected numbers of at most 64 bits, got {max(given.flat, key=abs)!r:.60}")
    if given.dtype.kind not in _KINDS:
        raise ValueError(f"expected numbers, got {_described(value, given)}")
    return given


def _refuse(given: np.ndarray, bad: Any, expected: str) -> None:
    found = given[np.broadcast_to(bad, given.shape)]
    if found.size:
        raise ValueError(f"expected {expected}, got {found.flat[0]}")


def _described(value: object, given: np.ndarray) -> str:
    return f"an array of {given.dtype}" if isinstance(value, np.ndarray) else f"{value!r:.100}"
