"""Elements moved and not computed: narrow, pad and concat, straight into the result, on all threads.

Channels of images are moved by kernels: NumPy takes a loop of its own for every pixel.
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
    """``width`` places of the axis, from ``start`` of a source (None: zeros) to ``target`` of the result."""

    source: Array | None
    start: int
    target: int
    width: int


@kernel("void(i8,i8,f4[:,::1],i8,f4[:,::1],i8,i8)")
def move_columns(first_row, last_row, source, start, out, target, count):
    """Columns from ``start`` on to those from ``target`` on."""
    if count == 1:
        for i in range(first_row, last_row):
            out[i, target] = source[i, start]
    elif count == 3:  # colours: a loop over them would cost more than they do
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
        for move in self._moves(inputs, out, dims):
            self._copy(move, out)
        return [out]

    def _span(self, dims: Mapping[str, int]) -> tuple[int, int]:
        """Of narrow its start and length, of pad what is before and after."""
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
        """What goes where along the axis; a pad's zeros come from nowhere."""
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

    def _copy(self, move: Move, out: Array) -> None:
        axis, count = self.node.attrs["axis"], move.width
        if not count or not out.size:
            return
        if out.dtype == np.float32 and axis == out.ndim - 1 > 0:
            rows = out.reshape(-1, out.shape[-1])
            if move.source is None:
                self._blocks(len(rows), count, lambda a, b: clear_columns(a, b, rows, move.target, count))
            else:
                source = move.source.reshape(-1, move.source.shape[-1])
                self._blocks(
                    len(rows), count, lambda a, b: move_columns(a, b, source, move.start, rows, move.target, count)
                )
            return
        target = _part(out, axis, move.target, count)
        source_part = None if move.source is None else _part(move.source, axis, move.start, count)

        def run(start: int, end: int) -> None:
            target[start:end] = 0 if source_part is None else source_part[start:end]

        self._blocks(len(target), target.size // len(target), run)

    def _blocks(self, rows: int, width: int, run: Callable[[int, int], None]) -> None:
        self.threads.blocks(rows, max(1, _BLOCK // max(width, 1)), run)


def copy(source: Array, target: Array, threads: Threads) -> None:
    """All elements of a source, to a target of the same shape without gaps."""
    if source.flags.c_contiguous:
        elements, targets = source.reshape(-1), target.reshape(-1)
        threads.blocks(len(elements), _BLOCK, lambda start, end: np.copyto(targets[start:end], elements[start:end]))
    else:
        np.copyto(target, source)


def _part(array: Array, axis: int, start: int, width: int) -> Array:
    """``width`` places of an axis."""
    return np.moveaxis(np.moveaxis(array, axis, 0)[start : start + width], 0, axis)
