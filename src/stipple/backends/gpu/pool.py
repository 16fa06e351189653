"""Reuse of GPU memory: blocks return to the pool when nothing references them, and serve the next request that fits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

_MIN_BYTES = 256
_IDLE = 96
_TRIM_EVERY = 32

_Kind = tuple[int, bool]


class Block:
    """Memory of the device. It returns to the pool with the last reference."""

    __slots__ = ("_give", "_kind", "_number", "raw")

    def __init__(self, raw: Any, number: int, kind: _Kind, give: Callable[[tuple[int, _Kind]], None]) -> None:
        self.raw = raw
        self._number, self._kind, self._give = number, kind, give

    def __del__(self) -> None:
        self._give((self._number, self._kind))


class _Free(NamedTuple):
    number: int
    given_back: int
    raw: Any


class Pool:
    """Free memory, by rounded size.

    Work runs in the order in which it was dispatched, so memory may be reused as soon as nothing on the host references
    it. Only uploads overtake work that is not submitted yet: they have separate memory, which rests until the next
    submission (``tick``). Memory that is idle for long is released.

    The oldest block is reused first: runs that take and return blocks in the same order get the same memory each time,
    and with it cached bindings.

    Lent memory is referenced here as well: Python may collect a block and its memory in one garbage cycle (an
    exception's frames), and would otherwise release the memory just before the block returns it.

    Python may finalise a block at any time: in any thread, or in the middle of a method here. A returning block is
    therefore only appended to a queue, which needs no lock; everything else is for one thread at a time.
    """

    def __init__(self, create: Callable[[int], Any], largest: int) -> None:
        self._create, self._largest = create, largest
        self._free: dict[_Kind, list[_Free]] = {}
        self._resting: list[tuple[_Kind, _Free]] = []
        self._lent: dict[int, tuple[int, Any]] = {}
        self._returned: deque[tuple[int, _Kind]] = deque()
        self.clock = 0
        self.created = 0

    def take(self, size: int, upload: bool = False) -> Block:
        """At least ``size`` bytes; ``upload``: written before the work that is not submitted yet."""
        self._take_back()
        kind = (min(rounded(size), self._largest), upload)
        free = self._free.get(kind)
        if free:
            number, _, raw = heappop(free)
        else:
            number, raw = self.created, self._create(kind[0])
            self.created += 1
        self._lent[number] = (kind[0], raw)
        return Block(raw, number, kind, self._returned.append)

    def _take_back(self) -> None:
        """Collect returned blocks."""
        while self._returned:
            number, kind = self._returned.popleft()
            entry = _Free(number, self.clock, self._lent.pop(number)[1])
            if kind[1]:
                self._resting.append((kind, entry))
            else:
                heappush(self._free.setdefault(kind, []), entry)

    def tick(self) -> list[Any]:
        """Work was submitted. Returns the memory that is released because it was idle."""
        self._take_back()
        self.clock += 1
        resting, self._resting = self._resting, []
        for kind, entry in resting:
            heappush(self._free.setdefault(kind, []), entry)
        return self.drop(self.clock - _IDLE) if self.clock % _TRIM_EVERY == 0 else []

    def drop(self, before: int | None = None) -> list[Any]:
        """Release free memory, or only that returned before a tick; returns it."""
        self._take_back()
        dropped = []
        for kind, free in self._free.items():
            dropped += [entry.raw for entry in free if before is None or entry.given_back < before]
            self._free[kind] = [entry for entry in free if before is not None and entry.given_back >= before]
            heapify(self._free[kind])
        return dropped

    @property
    def lent_bytes(self) -> int:
        """Bytes in use."""
        self._take_back()
        return sum(size for size, _ in self._lent.values())

    @property
    def free_bytes(self) -> int:
        """Bytes that are free."""
        self._take_back()
        waiting = sum(size for (size, _), _ in self._resting)
        return waiting + sum(size * len(free) for (size, _), free in self._free.items())


def rounded(size: int) -> int:
    """A size rounded up by at most an eighth, so that nearly equal ones share memory; a multiple of 16."""
    if size <= _MIN_BYTES:
        return _MIN_BYTES
    step = 1 << max(4, (size - 1).bit_length() - 4)  # eight sizes from a power of two to the next
    return -(-size // step) * step
