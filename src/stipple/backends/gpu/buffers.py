"""Arrays in GPU memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stipple.backends.gpu.pool import Block
from stipple.ir.dtype import DType

WGSL_TYPES = {DType.F32: "f32", DType.I32: "i32", DType.U8: "u32", DType.BOOL: "u32"}
"""Element types in memory; bytes and bools take a word each."""

_STORED = {
    DType.F32: np.dtype(np.float32), DType.I32: np.dtype(np.int32), DType.U8: np.dtype(np.uint32),
    DType.BOOL: np.dtype(np.uint32),
}  # fmt: skip


@dataclass(eq=False)
class GpuBuffer:
    """A dense array on the GPU.

    ``host`` is a copy of small uploaded arrays (scalars, cameras), so that the host can read them without a download.
    ``derived`` caches what was computed from the values, until they are overwritten; ``wgsl`` is the type in kernels.
    """

    block: Block
    shape: tuple[int, ...]
    dtype: DType
    host: np.ndarray | None = None
    derived: dict[str, Any] = field(default_factory=dict)
    wgsl: str = field(init=False)

    def __post_init__(self) -> None:
        self.wgsl = WGSL_TYPES[self.dtype]

    @property
    def raw(self) -> Any:
        """wgpu's buffer."""
        return self.block.raw

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def overwritten(self) -> None:
        """A kernel is about to write other values."""
        self.host = None
        self.derived.clear()

    def reshaped(self, shape: tuple[int, ...]) -> GpuBuffer:
        """The same memory with another shape."""
        host = None if self.host is None else self.host.reshape(shape)
        return GpuBuffer(self.block, shape, self.dtype, host)


def stored(dtype: DType) -> np.dtype[Any]:
    """How elements of a dtype are stored in GPU memory."""
    return _STORED[dtype]
