"""The memory of runs: buffers of dead values are reused by later ones of the same shape and dtype.

A backend has one pool, which all executables on it share. Buffers that no run has used for a while are released, and
all of them when an executable runs at another size: the old sizes seldom come back.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, finalize

import numpy as np

from stipple.ir.dtype import DType
from stipple.runtime.backend import Backend, Buffer

Key = tuple[tuple[int, ...], DType]
"""Shape and dtype: buffers are interchangeable where these are equal."""

ComeBack = Callable[[object], None]
"""Arranges a buffer's return to the pool once the object passed to it is gone."""

_IDLE_RUNS = 8


@dataclass
class MemoryUse:
    """Buffers of the last run: allocated, reused from dead values, written in place; peak in bytes."""

    allocated: int = 0
    reused: int = 0
    in_place: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0


class Pool:
    """Buffers between uses. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[Key, list[Buffer]] = {}
        self._last_use: dict[Key, int] = {}
        self._sizes: dict[Hashable, Hashable] = {}
        self._runs = 0
        self._returned: deque[tuple[Key, Buffer]] = deque()

    def begin(self, executable: Hashable, sizes: Hashable) -> None:
        """A run starts, with these values of its symbols."""
        with self._lock:
            self._runs += 1
            self._collect()
            if self._sizes.setdefault(executable, sizes) != sizes:
                self._sizes[executable] = sizes
                self._free.clear()
            for key in [k for k, run in self._last_use.items() if run < self._runs - _IDLE_RUNS]:
                del self._last_use[key]
                self._free.pop(key, None)

    def take(self, backend: Backend, key: Key, use: MemoryUse) -> Buffer:
        """A free buffer, or a new one."""
        use.live_bytes += _bytes(key)
        use.peak_bytes = max(use.peak_bytes, use.live_bytes)
        with self._lock:
            self._collect()
            self._last_use[key] = self._runs
            free = self._free.get(key)
            found = free.pop() if free else None
        if found is not None:
            use.reused += 1
            return found
        use.allocated += 1
        return backend.allocate(*key)

    def give(self, key: Key, buffer: Buffer, use: MemoryUse) -> None:
        """A buffer that nothing needs any more."""
        use.live_bytes -= _bytes(key)
        with self._lock:
            self._last_use[key] = self._runs
            self._free.setdefault(key, []).append(buffer)

    def lend(self, key: Key, buffer: Buffer, use: MemoryUse) -> ComeBack:
        """Let a buffer leave the run."""
        use.live_bytes -= _bytes(key)
        return partial(self._come_back, key, buffer)

    def _come_back(self, key: Key, buffer: Buffer, borrower: object) -> None:
        # Python may call this at any point, even while this thread holds the lock: a deque needs none.
        finalize(borrower, self._returned.append, (key, buffer)).atexit = False

    def _collect(self) -> None:
        """Collect buffers that were returned."""
        while self._returned:
            key, buffer = self._returned.popleft()
            self._last_use[key] = self._runs
            self._free.setdefault(key, []).append(buffer)

    def forget(self, executable: Hashable) -> None:
        """An executable is gone."""
        self._sizes.pop(executable, None)


class _Lent:
    """The object that an array in lent memory, and every view of it, keeps alive."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


def lent_array(array: np.ndarray, come_back: ComeBack) -> np.ndarray:
    """The same array; its memory is returned when nobody holds it, or a view of it, any more."""
    lent = _Lent(array)
    come_back(lent)
    return np.asarray(lent)


_POOLS: WeakKeyDictionary[Backend, Pool] = WeakKeyDictionary()


def pool_of(backend: Backend) -> Pool:
    """The pool of a backend."""
    return _POOLS.setdefault(backend, Pool())


def _bytes(key: Key) -> int:
    return math.prod(key[0]) * key[1].itemsize
