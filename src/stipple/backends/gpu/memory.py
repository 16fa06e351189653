"""GPU memory that is used again: blocks come back when nothing holds them, and go out to the next that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LEAST = 256
_IDLE = 96
_TRIM_EVERY = 32

_Kind = tuple[int, bool]


class Block:
    """Memory of the device. When the last reference goes, the pool has it back."""

    __slots__ = ("_give", "_kind", "raw")

    def __init__(self, raw: Any, kind: _Kind, give: Callable[[Any, _Kind], None]) -> None:
        self.raw = raw
        self._kind, self._give = kind, give

    def __del__(self) -> None:
        self._give(self.raw, self._kind)


class Pool:
    """Free memory, by rounded size.

    Work runs in the order in which it was dispatched, so memory may be written again as soon as nothing on the host
    holds it. Only uploads overtake work that was not handed over yet: they have memory of their own, and take what
    was given back before the last hand-over (``tick``), or new memory. What lies idle for long is dropped.

    What is lent is held here as well: Python may find a block and its memory in one cycle of garbage (an exception's
    frames), and would else release the memory just before the block brings it back.
    """

    def __init__(self, create: Callable[[int], Any], largest: int) -> None:
        self._create, self._largest = create, largest
        self._free: dict[_Kind, list[tuple[Any, int]]] = {}
        self._lent: dict[int, Any] = {}
        self._clock = 0
        self.created = 0

    def take(self, size: int, upload: bool = False) -> Block:
        """At least ``size`` bytes; ``upload``: to be written ahead of the work that waits to be handed over."""
        kind = (min(rounded(size), self._largest), upload)
        free = self._free.get(kind)
        if free and not upload:
            raw = free.pop()[0]
        elif free and free[0][1] < self._clock:
            raw = free.pop(0)[0]
        else:
            self.created += 1
            raw = self._create(kind[0])
        self._lent[id(raw)] = raw
        return Block(raw, kind, self._give)

    def _give(self, raw: Any, kind: _Kind) -> None:
        del self._lent[id(raw)]
        self._free.setdefault(kind, []).append((raw, self._clock))

    def tick(self) -> bool:
        """Work was handed over. Returns whether idle memory was dropped."""
        self._clock += 1
        return self._clock % _TRIM_EVERY == 0 and self.drop(self._clock - _IDLE)

    def drop(self, before: int | None = None) -> bool:
        """Let go of free memory, or of what was given back before a tick; returns whether there was any."""
        dropped = False
        for kind, free in list(self._free.items()):
            kept = [] if before is None else [entry for entry in free if entry[1] >= before]
            dropped = dropped or len(kept) < len(free)
            self._free[kind] = kept
        return dropped

    @property
    def free_bytes(self) -> int:
        """How much lies free."""
        return sum(size * len(free) for (size, _), free in self._free.items())


def rounded(size: int) -> int:
    """A size rounded up by at most an eighth, so that nearly equal ones share memory; a multiple of 16."""
    if size <= _LEAST:
        return _LEAST
    step = 1 << max(4, (size - 1).bit_length() - 4)  # eight sizes from a power of two to the next
    return -(-size // step) * step
