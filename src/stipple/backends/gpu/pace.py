"""How much work is submitted at a time."""

from __future__ import annotations

_FIRST = 16
_LONG = 0.25
_SHORT = 0.05


class Pace:
    """``current`` dispatches go into one submission: few if they are slow, because watchdogs end command buffers that
    run for seconds, and a whole step if they are fast, because each submission costs the host time."""

    maximum = 400
    """Upper bound of ``current``."""

    def __init__(self) -> None:
        self.current = _FIRST
        self._began = 0.0
        self._submissions = self._dispatches = 0

    def submitted(self, dispatches: int, now: float) -> None:
        """``dispatches`` were submitted at the time ``now``, in seconds."""
        if not self._submissions:
            self._began = now
        self._submissions += 1
        self._dispatches += dispatches

    def done(self, now: float) -> None:
        """All submitted work has ended."""
        if not self._submissions:
            return
        each = (now - self._began) / self._submissions
        if each > _LONG:
            self.current = max(1, self._dispatches // self._submissions // 2)
        elif each < _SHORT:
            self.current = min(self.maximum, 2 * self.current)
        self._submissions = self._dispatches = 0
