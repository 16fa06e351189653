"""The end of a run: its results, and whether they are any good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stipple.backends.gpu.binning import checked_total
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.guesses import Guess
from stipple.ir.dtype import DType

Array = np.ndarray


def collect(gpu: Gpu, wanted: Sequence[tuple[GpuBuffer, DType]]) -> list[Array] | None:
    """Values of buffers, or None if a list of this run had no room for its entries: then what it made, faults too, may
    be wrong. Raises the first fault that the device found. One wait for all."""
    guesses, checks = gpu.guesses.take_pending(), gpu.faults.take_pending()
    boards = list({id(check.board): check.board for check in checks}.values())
    found = [*(guess.found for guess in guesses), *boards]
    arrays = gpu.download_all([*((buffer, DType.I32) for buffer in found), *wanted])
    fitting = [_fits(gpu, guess, total) for guess, total in zip(guesses, arrays, strict=False)]
    if not all(fitting):
        gpu.forget_run()
        return None
    seen = {id(board): words for board, words in zip(boards, arrays[len(guesses) :], strict=False)}
    for check in checks:
        fault = check.fault(seen[id(check.board)])
        if fault is not None:
            gpu.forget_run()
            raise fault
    return arrays[len(found) :]


def _fits(gpu: Gpu, guess: Guess, found: Array) -> bool:
    """Whether there was room; what there was of it is learned from."""
    total = checked_total(found)
    gpu.guesses.learn(guess.key, total)
    return total <= guess.room
