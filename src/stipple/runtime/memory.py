"""The memory of a run: buffers that dead values leave are taken by later ones of the same shape and dtype."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stipple.ir.dtype import DType
from stipple.runtime.backend import Backend, Buffer

Key = tuple[tuple[int, ...], DType]
"""Shape and dtype: buffers are interchangeable where these are equal."""


@dataclass
class MemoryUse:
    """Buffers of the last run: made new, taken over from dead values, written in place; peak in bytes."""

    allocated: int = 0
    reused: int = 0
    in_place: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0


class Pool:
    """Buffers between uses, for one size of the graph's symbols."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._free: dict[Key, list[Buffer]] = {}
        self._dims: dict[str, int] = {}
        self.use = MemoryUse()

    def begin(self, dims: Mapping[str, int]) -> None:
        """A run starts: buffers of another size are let go."""
        if dims != self._dims:
            self._free.clear()
            self._dims = dict(dims)
        self.use = MemoryUse()

    def take(self, key: Key) -> Buffer:
        free = self._free.get(key)
        self.use.live_bytes += _bytes(key)
        self.use.peak_bytes = max(self.use.peak_bytes, self.use.live_bytes)
        if free:
            self.use.reused += 1
            return free.pop()
        self.use.allocated += 1
        return self._backend.allocate(*key)

    def give(self, key: Key, buffer: Buffer) -> None:
        self._free.setdefault(key, []).append(buffer)
        self.use.live_bytes -= _bytes(key)

    def clear(self) -> None:
        self._free.clear()


def _bytes(key: Key) -> int:
    return math.prod(key[0]) * key[1].itemsize
