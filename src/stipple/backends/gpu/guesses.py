"""Sizes that only the device knows, guessed from those before."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.memory import rounded


class Guess(NamedTuple):
    """What was guessed, and where the device says how much it was."""

    key: Hashable
    room: int
    found: GpuBuffer


class Guesses:
    """Rooms to make, and the guesses that nobody has checked yet.

    A guess is a quarter more than the last size, and falls slowly, so that views with few entries between views with
    many do not make it too small. It is rounded up, so that it seldom changes, and with it memory and bindings. Beyond
    ``most`` there is no such surplus, so that the device refuses only what it has no memory for.

    What does not fit spoils the run (:meth:`stipple.backends.gpu.device.Gpu.spoiled`), and it is made again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._needs: dict[Hashable, int] = {}
        self._rooms: dict[Hashable, int] = {}
        self.pending: list[Guess] = []

    def size(self, key: Hashable) -> int | None:
        """The size to make room for, or None if there is nothing to guess from."""
        return self._rooms.get(key)

    def learn(self, key: Hashable, true_size: int) -> None:
        """Take in a size that was found."""
        self._needs[key] = max(true_size + true_size // 4 + 1024, int(0.99 * self._needs.get(key, 0)))
        self._rooms[key] = max(true_size, min(rounded(self._needs[key]), self._most))

    def take_pending(self) -> list[Guess]:
        """The guesses to be checked now, and from here on no more."""
        taken, self.pending = self.pending, []
        return taken
