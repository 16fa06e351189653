"""Elementwise nodes and fused groups of them: block by block, so that intermediate results stay in cache.

Each block runs the group's steps as NumPy's vectorised loops over 64 Ki elements; blocks run on all
threads. There is nothing to compile, whatever the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.cpu.threads import Threads
from stipple.backends.host.elementwise import run_program
from stipple.ir.graph import Node
from stipple.ir.ops.fused import program_of

Array = np.ndarray
_BLOCK = 65536


class ElementwiseKernel:
    """Runs one elementwise node or group."""

    owns_outputs = False

    def __init__(self, node: Node, threads: Threads) -> None:
        self.name = f"blocks.{node.op}"
        self._program = program_of(node)
        self._threads = threads

    def check(self, inputs: Sequence[Array], dims: Mapping[str, int]) -> None:
        """Nothing to check: every value is accepted."""

    def __call__(
        self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Mapping[str, int]
    ) -> Sequence[Array]:
        out = outputs[0]
        if out is None:
            return [np.array(self._run(inputs), order="C")]
        if out.size <= _BLOCK or out.ndim == 0:
            np.copyto(out, self._run(inputs), casting="unsafe")
            return [out]
        rows, operands = self._rows(out, inputs)

        def run(start: int, end: int) -> None:
            parts = [a[start:end] if a.ndim == rows.ndim and len(a) == len(rows) else a for a in operands]
            np.copyto(rows[start:end], self._run(parts), casting="unsafe")

        self._threads.blocks(len(rows), max(1, _BLOCK * len(rows) // rows.size), run)
        return [out]

    @staticmethod
    def _rows(out: Array, inputs: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The result and operands cut along axis 0, flat where every operand is whole or a single number."""
        if all(a.shape == out.shape or a.size == 1 for a in inputs):
            return out.reshape(-1), [a.reshape(-1) if a.shape == out.shape else a.reshape(()) for a in inputs]
        return out, list(inputs)

    def _run(self, operands: Sequence[Array]) -> Array:
        return run_program(self._program, operands, lambda dtype: dtype.numpy)
