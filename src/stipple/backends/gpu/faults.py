"""Operands that an op does not accept, where only the device knows them: it looks, and the host hears of it later."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.errors import InputError

Array = np.ndarray
Explain = Callable[[Array], str]
"""What is said of a fault, from the words that were written about it."""

UNTOUCHED = 0x7FFFFFFF
"""What every word of a board holds that no fault has lowered."""

BOARD = 1024
"""Words of a board."""

WRITTEN = "atomic<i32>"
"""The type of a board's words in kernels."""

FUNCTIONS = """
// the smallest of what is said of a check's word stays there: the same, whichever thread is first
fn fault(word: u32, value: i32) {
  atomicMin(&board[P.board_start + word], value);
  spoiled[0] = 1;
}
"""


class Check(NamedTuple):
    """Words of a board for what one check finds; every fault lowers one of them at least."""

    board: GpuBuffer
    start: int
    words: int
    explain: Explain

    def fault(self, board: Array) -> InputError | None:
        """The fault that the words tell of, if any does."""
        words = board[self.start : self.start + self.words]
        return InputError(self.explain(words)) if (words != UNTOUCHED).any() else None


class Faults:
    """The checks that nobody has read yet, in order, and the boards that they write on.

    Boards are used again from run to run until a fault has touched one: then all are forgotten.
    """

    def __init__(self, make_board: Callable[[], GpuBuffer]) -> None:
        self._make_board = make_board
        self._boards: list[GpuBuffer] = []
        self._used = 0
        self.pending: list[Check] = []

    def expect(self, words: int, explain: Explain) -> Check:
        """Room for what a check will find."""
        if words > -self._used % BOARD:
            self._used += -self._used % BOARD
        number, start = divmod(self._used, BOARD)
        if number == len(self._boards):
            self._boards.append(self._make_board())
        self._used += words
        check = Check(self._boards[number], start, words, explain)
        self.pending.append(check)
        return check

    def take_pending(self) -> list[Check]:
        """The checks to be read now, and from here on no more."""
        taken, self.pending = self.pending, []
        self._used = 0
        return taken

    def forget(self) -> None:
        """Expect nothing, and write on no board that may have been touched."""
        self.take_pending()
        self._boards.clear()
