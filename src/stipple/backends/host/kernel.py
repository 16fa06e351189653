"""Kernels of the devices in host memory: a function computes new arrays, which are copied to the planned buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stipple.backends.host import checks
from stipple.ir.dtype import DType
from stipple.ir.graph import Node

Array = np.ndarray
Dims = Mapping[str, int]
Compute = Callable[[Node, Any, Dims], Sequence[Array]]
"""Computes a node's results from its operands, as the op's record: arrays of any dtype, possibly views of operands."""

Held = Callable[[DType], np.dtype[np.generic]]
"""The NumPy dtype in which a device stores values of a dtype."""


def empty(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """An uninitialised array; MemoryError also for one that is larger than NumPy can address."""
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        raise MemoryError(f"an array of {list(shape)}: {error}") from None


@dataclass(frozen=True)
class HostKernel:
    """Runs a node by ``compute``."""

    node: Node
    name: str
    compute: Compute
    held: Held
    owns_outputs: bool = False

    def check(self, inputs: Sequence[Array], dims: Dims) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Dims) -> Sequence[Array]:
        with np.errstate(all="ignore"):  # infinities and NaN are values here, integers wrap around
            result = self.compute(self.node, self.node.definition.named_operands(inputs), dims)
            if self.node.definition.view:
                return result
            return [
                self._placed(array, buffer, value.dtype)
                for array, buffer, value in zip(result, outputs, self.node.outputs, strict=True)
            ]

    def _placed(self, array: Array, buffer: Array | None, dtype: DType) -> Array:
        """The array copied to its planned buffer, or to new memory."""
        if buffer is None:
            buffer = np.empty(array.shape, self.held(dtype))
        np.copyto(buffer, array, casting="unsafe")
        return buffer
