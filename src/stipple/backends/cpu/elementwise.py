"""Elementwise nodes and fused groups of them: block by block, so that what lies between stays in cache.

Each block runs the group's steps as NumPy's vectorised loops over a few thousand elements; blocks run on all
threads. There is nothing to compile, whatever the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stipple.backends.cpu.threads import Threads
from stipple.backends.host.tensor import compute_elementwise
from stipple.ir.ops.elementwise import Program

Array = np.ndarray
_BLOCK = 16384


@dataclass(frozen=True)
class ElementwiseKernel:
    """Runs one elementwise node or group."""

    program: Program
    name: str
    threads: Threads
    owns_outputs: bool = False

    def __call__(
        self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Mapping[str, int]
    ) -> Sequence[Array]:
        out = outputs[0]
        if out is None:
            return [self._run(inputs)]
        if out.size <= _BLOCK or out.ndim == 0:
            np.copyto(out, self._run(inputs), casting="unsafe")
            return [out]
        rows, operands = self._rows(out, inputs)

        def run(start: int, end: int) -> None:
            parts = [a[start:end] if a.ndim == rows.ndim and len(a) == len(rows) else a for a in operands]
            np.copyto(rows[start:end], self._run(parts), casting="unsafe")

        self.threads.blocks(len(rows), max(1, _BLOCK * len(rows) // rows.size), run)
        return [out]

    @staticmethod
    def _rows(out: Array, inputs: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The result and operands cut along axis 0, flat where every operand is whole or a single number."""
        if all(a.shape == out.shape or a.size == 1 for a in inputs):
            return out.reshape(-1), [a.reshape(-1) if a.shape == out.shape else a.reshape(()) for a in inputs]
        return out, list(inputs)

    def _run(self, operands: Sequence[Array]) -> Array:
        values = list(operands)
        for op, refs, attrs in self.program:
            values.append(compute_elementwise(op, attrs, [values[r] for r in refs]))
        return values[-1]
