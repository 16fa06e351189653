"""Operands that an op does not accept, where only the device knows them: it looks, and the host hears of it later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.memory import Memory
from stipple.errors import InputError
from stipple.ir.dtype import DType

Array = np.ndarray
Explain = Callable[[Array], str]
"""What is said of a fault, from the words that were written about it."""

UNTOUCHED = 0x7FFFFFFF
"""What every word of a board holds that no fault has lowered."""

BOARD = 1024
"""Words of a board."""

_ATOMIC = "atomic<i32>"

FUNCTIONS = """
// the smallest of what is said of a check's word stays there: the same, whichever thread is first
fn fault(word: u32, value: i32) {
  atomicMin(&board[P.board_start + word], value);
  unusable[0] = 1;
}
"""


class Check(NamedTuple):
    """Words of a board for what one check finds; every fault lowers one of them at least."""

    board: GpuBuffer
    start: int
    words: int
    explain: Explain

    def fault(self, board: Array) -> InputError | None:
        """The fault that the words report, if there is any."""
        words = board[self.start : self.start + self.words]
        return InputError(self.explain(words)) if (words != UNTOUCHED).any() else None


class Faults:
    """The checks that nobody has read yet, in order, and the boards that they write on.

    Boards are used again from run to run until a fault has touched one: then all are forgotten.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._boards: list[GpuBuffer] = []
        self._used = 0
        self.pending: list[Check] = []

    def expect(self, words: int, explain: Explain) -> Check:
        """Words for what a check will find."""
        if words > -self._used % BOARD:
            self._used += -self._used % BOARD
        number, start = divmod(self._used, BOARD)
        if number == len(self._boards):
            board = self._memory.upload_changing(np.full(BOARD, UNTOUCHED, np.int32), DType.I32)
            board.wgsl = _ATOMIC
            self._boards.append(board)
        self._used += words
        check = Check(self._boards[number], start, words, explain)
        self.pending.append(check)
        return check

    def boards(self) -> list[GpuBuffer]:
        """What :meth:`first` must be given the values of."""
        return self._boards[: -(-self._used // BOARD)]

    def first(self, boards: Sequence[Array]) -> InputError | None:
        """The fault of the first check that found one; no check is pending any more."""
        held = {id(buffer): words for buffer, words in zip(self.boards(), boards, strict=True)}
        pending, self.pending, self._used = self.pending, [], 0
        faults = (check.fault(held[id(check.board)]) for check in pending)
        return next((fault for fault in faults if fault is not None), None)

    def forget(self) -> None:
        """Expect nothing, and write on no board that may have been touched."""
        self.pending, self._used = [], 0
        self._boards.clear()
