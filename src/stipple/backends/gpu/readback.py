"""Results on their way to the host: copied into one buffer that it can map, so that it waits once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer, stored
from stipple.backends.gpu.pool import rounded

Array = np.ndarray
_KEPT = 16 << 20


class Readback:
    """A buffer that the host can map; kept for the next results unless it is large."""

    def __init__(self, wgpu: Any, device: Any, largest: int) -> None:
        self._device, self._largest = device, largest
        self._usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
        self._raw: Any = None

    def copy(self, encoder: Any, buffers: Sequence[GpuBuffer]) -> None:
        """Record copies of the buffers with ``encoder``."""
        size = sum(4 * b.size for b in buffers)
        if self._raw is None or self._raw.size < size:
            self._raw = None
            self._raw = self._device.create_buffer(size=min(rounded(size), self._largest), usage=self._usage)
        for buffer, start in zip(buffers, _starts(buffers), strict=False):
            if buffer.size:
                encoder.copy_buffer_to_buffer(buffer.raw, 0, self._raw, start, 4 * buffer.size)

    def take(self, buffers: Sequence[GpuBuffer]) -> list[Array]:
        """Wait for the copies; returns them as arrays of the types stored on the device."""
        raw, self._raw = self._raw, None  # a buffer that cannot be mapped is not used again
        raw.map_sync("READ")
        try:
            mapped = raw.read_mapped(copy=False)
            arrays = [
                np.frombuffer(mapped, stored(b.dtype), b.size, start).reshape(b.shape).copy()
                for b, start in zip(buffers, _starts(buffers), strict=False)
            ]
        finally:
            raw.unmap()
        if raw.size <= _KEPT:
            self._raw = raw
        return arrays


def batches(buffers: Sequence[GpuBuffer], largest: int) -> list[list[GpuBuffer]]:
    """The buffers in their order, as many at a time as ``largest`` bytes hold."""
    parts: list[list[GpuBuffer]] = []
    free = 0
    for buffer in buffers:
        if not parts or 4 * buffer.size > free:
            parts.append([])
            free = largest
        parts[-1].append(buffer)
        free -= 4 * buffer.size
    return parts


def _starts(buffers: Sequence[GpuBuffer]) -> list[int]:
    return list(accumulate((4 * b.size for b in buffers), initial=0))
