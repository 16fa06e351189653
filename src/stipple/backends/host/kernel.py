"""Kernels of the devices in host memory: a function that makes results anew, put where the runtime planned them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stipple.backends.host import checks
from stipple.ir.dtype import DType
from stipple.ir.graph import Node

Array = np.ndarray
Dims = Mapping[str, int]
Held = Callable[[DType], np.dtype[np.generic]]
"""The NumPy dtype in which a device holds values of a dtype."""


@dataclass(frozen=True)
class HostKernel:
    """Runs a node by ``compute``, which may return arrays of any dtype and views of its operands."""

    node: Node
    name: str
    compute: Callable[[Node, Sequence[Array], Dims], Sequence[Array]]
    held: Held
    owns_outputs: bool = False

    def check(self, inputs: Sequence[Array], dims: Dims) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Dims) -> Sequence[Array]:
        made = self.compute(self.node, inputs, dims)
        if self.node.definition.view:
            return made
        return [
            self._placed(array, buffer, value.dtype)
            for array, buffer, value in zip(made, outputs, self.node.outputs, strict=True)
        ]

    def _placed(self, array: Array, buffer: Array | None, dtype: DType) -> Array:
        """The array in its planned buffer, or in memory of its own."""
        if buffer is None:
            return np.array(array, dtype=self.held(dtype), order="C")
        np.copyto(buffer, array, casting="unsafe")
        return buffer
