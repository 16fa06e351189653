"""How much work is submitted at a time."""

from __future__ import annotations

_FIRST = 16
_LONG = 0.25
_SHORT = 0.05


class Pace:
    """``current`` dispatches go into one submission: few while they take long, for watchdogs end command buffers of
    seconds, and all of a step where they are quick, for each submission costs the host."""

    maximum = 400
    """What ``current`` never exceeds."""

    def __init__(self) -> None:
        self.current = _FIRST
        self._began = 0.0
        self._submissions = self._dispatches = 0

    def submitted(self, dispatches: int, now: float) -> None:
        """So many dispatches were submitted, at a time in seconds."""
        if not self._submissions:
            self._began = now
        self._submissions += 1
        self._dispatches += dispatches

    def done(self, now: float) -> None:
        """All of them have ended."""
        if not self._submissions:
            return
        each = (now - self._began) / self._submissions
        if each > _LONG:
            self.current = max(1, self._dispatches // self._submissions // 2)
        elif each < _SHORT:
            self.current = min(self.maximum, 2 * self.current)
        self._submissions = self._dispatches = 0
