"""Invalid operands whose values only the device knows: it checks them, and reports faults to the host later."""

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
"""The message of a fault, from the words that the device wrote about it."""

UNTOUCHED = 0x7FFFFFFF
"""The value of every word of a board that no fault has changed."""

BOARD = 1024
"""Words of a board."""

_ATOMIC = "atomic<i32>"

FUNCTIONS = """
// a word keeps the smallest of the values reported for it, so that the order of threads does not matter
fn fault(word: u32, value: i32) {
  atomicMin(&board[P.board_start + word], value);
  unusable[0] = 1;
}
"""


class Check(NamedTuple):
    """The words of a board for one check's faults; every fault lowers at least one of them."""

    board: GpuBuffer
    start: int
    words: int
    explain: Explain

    def fault(self, board: Array) -> InputError | None:
        """The fault that the words report, if any."""
        words = board[self.start : self.start + self.words]
        return InputError(self.explain(words)) if (words != UNTOUCHED).any() else None


class Faults:
    """The checks that are not read yet, in order, and the boards that they write to.

    Boards are reused from run to run until a fault has changed one: then all are discarded.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._boards: list[GpuBuffer] = []
        self._used = 0
        self.pending: list[Check] = []

    def expect(self, words: int, explain: Explain) -> Check:
        """Reserve words for a check's faults."""
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
        """The buffers whose values :meth:`first` needs."""
        return self._boards[: -(-self._used // BOARD)]

    def first(self, boards: Sequence[Array]) -> InputError | None:
        """The first fault in the order of the checks, if any; no check is pending afterwards."""
        held = {id(buffer): words for buffer, words in zip(self.boards(), boards, strict=True)}
        pending, self.pending, self._used = self.pending, [], 0
        faults = (check.fault(held[id(check.board)]) for check in pending)
        return next((fault for fault in faults if fault is not None), None)

    def forget(self) -> None:
        """Drop all checks, and the boards that faults may have changed."""
        self.pending, self._used = [], 0
        self._boards.clear()
