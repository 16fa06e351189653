"""How long each kernel takes, by the device's own clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stipple.backends.gpu.native import tick_seconds


class KernelTime(NamedTuple):
    """One dispatch: its kernel, its time, and the size of the arrays bound to it, each counted once."""

    name: str
    seconds: float
    bytes: int


class KernelClock:
    """Timestamps before and after each dispatch; while timed, each dispatch has its own pass.

    ``capacity`` is the maximum number of timestamps between two submissions.
    """

    def __init__(self, wgpu: Any, device: Any, capacity: int) -> None:
        usage = wgpu.BufferUsage
        self._device = device
        self._queries = device.create_query_set(type="timestamp", count=capacity)
        self._ticks = device.create_buffer(size=8 * capacity, usage=usage.QUERY_RESOLVE | usage.COPY_SRC)
        self._period = tick_seconds(device)
        self._begun: list[tuple[str, int]] = []
        self.times: list[KernelTime] = []

    def begin(self, name: str, size: int) -> dict[str, Any]:
        """The timestamps that the pass of the next dispatch must write."""
        first = 2 * len(self._begun)
        self._begun.append((name, size))
        return {
            "query_set": self._queries,
            "beginning_of_pass_write_index": first,
            "end_of_pass_write_index": first + 1,
        }

    def resolve(self, encoder: Any) -> None:
        """Record the copy of the timestamps to a buffer that can be read."""
        encoder.resolve_query_set(self._queries, 0, 2 * len(self._begun), self._ticks, 0)

    def read(self) -> None:
        """Wait for submitted work, and collect its times. There may be none: copies are not timed."""
        if not self._begun:
            return
        data = self._device.queue.read_buffer(self._ticks, 0, 16 * len(self._begun))
        ticks = np.frombuffer(data, np.uint64).reshape(-1, 2).astype(np.int64)
        for (name, size), (start, end) in zip(self._begun, ticks, strict=True):
            self.times.append(KernelTime(name, max(int(end - start), 0) * self._period, size))
        self._begun.clear()
