"""Sums and means on the CPU: float64 accumulators, in blocks that do not depend on the number of threads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stipple.backends.cpu.threads import Threads
from stipple.ir.graph import Node

Array = np.ndarray
_BLOCK = 1 << 16
_FEW = 8
"""Columns that are added one by one."""


def reduced(node: Node, x: Any, dims: Mapping[str, int], threads: Threads) -> list[Array]:
    """The result of a sum or mean node."""
    array, axes = x.x, node.attrs["axes"]
    total = _total(array, axes, threads)
    if node.op == "mean":
        count = math.prod(array.shape[a] for a in axes)
        total = total / count if count else np.full_like(total, np.nan)
    if node.attrs["keepdims"]:
        total = total.reshape([1 if i in axes else n for i, n in enumerate(array.shape)])
    return [total]


def _total(array: Array, axes: Sequence[int], threads: Threads) -> Array:
    """The sum over axes in float64."""
    kept = math.prod(n for i, n in enumerate(array.shape) if i not in axes)
    if array.size <= _BLOCK or (0 in axes and kept > _BLOCK):
        return np.asarray(np.sum(array, axis=tuple(axes), dtype=np.float64))
    rows = max(1, _BLOCK * len(array) // array.size)
    rest = [n for i, n in enumerate(array.shape) if i not in axes]
    whole = 0 not in axes  # if so, each block computes rows of the result, else a partial sum of all of it
    result = np.empty(rest if whole else [-(-len(array) // rows), *rest])

    short = array.ndim == 2 and tuple(axes) == (1,) and 0 < array.shape[1] <= _FEW

    def run(start: int, end: int) -> None:
        target = slice(start, end) if whole else start // rows
        if short:  # NumPy takes a loop of its own for every row
            result[target] = array[start:end, 0]
            for column in range(1, array.shape[1]):
                result[target] += array[start:end, column]
        else:
            result[target] = np.sum(array[start:end], axis=tuple(axes), dtype=np.float64)

    threads.blocks(len(array), rows, run)
    return result if whole else np.asarray(result.sum(axis=0))
