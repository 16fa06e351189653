"""Ops that only copy elements: narrow, pad and concat, directly into the result, on all threads.

Channels of images are copied by kernels, because NumPy would run a loop for every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stipple.backends.cpu.compile import kernel
from stipple.backends.cpu.threads import Threads
from stipple.backends.host import checks
from stipple.ir.graph import Node

Array = np.ndarray
OPS = ("narrow", "pad", "concat")
_BLOCK = 1 << 16
"""Elements that a thread copies at a time; less is copied at once."""


class Move(NamedTuple):
    """Copy ``width`` positions of the axis from ``start`` of a source (None: zeros) to ``target`` of the result."""

    source: Array | None
    start: int
    target: int
    width: int


@kernel("void(i8,i8,f4[:,::1],i8,f4[:,::1],i8,i8)")
def move_columns(first_row, last_row, source, start, out, target, count):
    """Copy ``count`` columns from ``start`` on to those from ``target`` on."""
    if count == 1:
        for i in range(first_row, last_row):
            out[i, target] = source[i, start]
    elif count == 3:  # colours: a loop would cost more than the copies
        for i in range(first_row, last_row):
            a, b, c = source[i, start], source[i, start + 1], source[i, start + 2]
            out[i, target], out[i, target + 1], out[i, target + 2] = a, b, c
    else:
        for i in range(first_row, last_row):
            for k in range(count):
                out[i, target + k] = source[i, start + k]


@kernel("void(i8,i8,f4[:,::1],i8,i8)")
def clear_columns(first_row, last_row, out, target, count):
    """Zeros in columns from ``target`` on."""
    for i in range(first_row, last_row):
        for k in range(count):
            out[i, target + k] = np.float32(0)


@dataclass(frozen=True)
class CopyKernel:
    """Runs a narrow, pad or concat node."""

    node: Node
    threads: Threads
    owns_outputs: bool = False

    @property
    def name(self) -> str:
        return f"blocks.{self.node.op}"

    def check(self, inputs: Sequence[Array], dims: Mapping[str, int]) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(
        self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Mapping[str, int]
    ) -> Sequence[Array]:
        out = outputs[0]
        if out is None:
            out = np.empty(self._shape(inputs, dims), inputs[0].dtype)
        self._copy([m for m in self._moves(inputs, out, dims) if m.width], out)
        return [out]

    def _span(self, dims: Mapping[str, int]) -> tuple[int, int]:
        """Start and length of a narrow, or the lengths before and after of a pad."""
        names = ("start", "length") if self.node.op == "narrow" else ("before", "after")
        first, second = (self.node.attrs[n].resolve(dims) for n in names)
        return first, second

    def _shape(self, inputs: Sequence[Array], dims: Mapping[str, int]) -> list[int]:
        axis, shape = self.node.attrs["axis"], list(inputs[0].shape)
        if self.node.op == "concat":
            shape[axis] = sum(a.shape[axis] for a in inputs)
        else:
            first, second = self._span(dims)
            shape[axis] = second if self.node.op == "narrow" else shape[axis] + first + second
        return shape

    def _moves(self, inputs: Sequence[Array], out: Array, dims: Mapping[str, int]) -> list[Move]:
        """The copies along the axis; a pad's zeros have no source."""
        axis = self.node.attrs["axis"]
        if self.node.op == "narrow":
            start, length = self._span(dims)
            return [Move(inputs[0], start, 0, length)]
        sizes = [a.shape[axis] for a in inputs]
        if self.node.op == "concat":
            ends = np.cumsum(sizes).tolist()
            return [Move(a, 0, e - n, n) for a, e, n in zip(inputs, ends, sizes, strict=True)]
        before, after = self._span(dims)
        end = before + sizes[0]
        return [Move(None, 0, 0, before), Move(inputs[0], 0, before, sizes[0]), Move(None, 0, end, after)]

    def _copy(self, moves: Sequence[Move], out: Array) -> None:
        """Make all moves, block by block: a block of the result is written while it lies in the cache."""
        axis = self.node.attrs["axis"]
        if not out.size:
            return
        if out.dtype == np.float32 and axis == out.ndim - 1 > 0:
            rows, width = out.reshape(-1, out.shape[-1]), out.shape[-1]
            copies = [_columns(move, rows) for move in moves]
        elif axis == 0:
            for move in moves:
                self._blocks(move.width, out.size // len(out), _parts(move, out, axis))
            return
        else:
            rows, width = out, out.size // len(out)
            copies = [_parts(move, out, axis) for move in moves]

        def run(start: int, end: int) -> None:
            for copy in copies:
                copy(start, end)

        self._blocks(len(rows), width, run)

    def _blocks(self, rows: int, width: int, run: Callable[[int, int], None]) -> None:
        self.threads.blocks(rows, max(1, _BLOCK // max(width, 1)), run)


def _columns(move: Move, out: Array) -> Callable[[int, int], None]:
    """A function (start, end) that makes a move between columns of float32 matrices, for those rows."""
    if move.source is None:
        return lambda start, end: clear_columns(start, end, out, move.target, move.width)
    source = move.source.reshape(len(out), -1)
    return lambda start, end: move_columns(start, end, source, move.start, out, move.target, move.width)


def _parts(move: Move, out: Array, axis: int) -> Callable[[int, int], None]:
    """A function (start, end) that makes a move between any arrays, for those indices of the first axis."""
    target = _part(out, axis, move.target, move.width)
    source = None if move.source is None else _part(move.source, axis, move.start, move.width)

    def run(start: int, end: int) -> None:
        target[start:end] = 0 if source is None else source[start:end]

    return run


def _part(array: Array, axis: int, start: int, width: int) -> Array:
    """``width`` positions of an axis."""
    places = (slice(None),) * axis + (slice(start, start + width),)
    return array[places]
