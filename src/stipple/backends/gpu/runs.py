"""A run from beginning to end: what the device finds out on the way, and whether its results can be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.capacity import Capacity
from stipple.backends.gpu.driver import Driver
from stipple.backends.gpu.faults import Faults
from stipple.backends.gpu.memory import Memory
from stipple.ir.dtype import DType

Array = np.ndarray


class Runs:
    """The run in progress, if there is one. Other threads wait until it has ended."""

    def __init__(self, driver: Driver, memory: Memory) -> None:
        self._lock = driver.lock
        self._memory = memory
        self._unusable: GpuBuffer | None = None
        self.is_overwriting = False
        self.capacity = Capacity(driver.largest)
        self.faults = Faults(memory)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a run. If it raises, what it has not come to is forgotten."""
        with self._lock:
            try:
                yield
            except BaseException:
                self.forget()
                raise

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Kernels dispatched inside by :meth:`Gpu.each` change nothing if what the run computes cannot be used."""
        self.is_overwriting = True
        try:
            yield
        finally:
            self.is_overwriting = False

    def unusable(self) -> GpuBuffer:
        """A number on the device: 0 until a kernel finds that what this run computes cannot be used, because of an
        overflow or an operand at fault. The host learns of that at the end of the run; kernels that overwrite what
        cannot be computed again look at it themselves."""
        if self._unusable is None:
            self._unusable = self._memory.upload_changing(np.zeros(1, np.int32), DType.I32)
        return self._unusable

    def guard(self) -> GpuBuffer | None:
        """What kernels must look at before they overwrite something, if they must."""
        if self.is_overwriting and (self.capacity.pending or self.faults.pending):
            return self.unusable()
        return None

    def forget(self) -> None:
        """Forget what was to be asked at the end of the run."""
        self.capacity.forget()
        self.faults.forget()
        self._unusable = None

    def collect(self, requested: Sequence[tuple[GpuBuffer, DType]]) -> list[Array] | None:
        """Values of buffers, or None if a capacity overflowed: then what the run computed, faults too, may be wrong.

        Raises the first fault that the device found. Waits once for all.
        """
        sizes, boards = self.capacity.found(), self.faults.boards()
        arrays = self._memory.download_all([*((buffer, DType.I32) for buffer in (*sizes, *boards)), *requested])
        ends = len(sizes), len(sizes) + len(boards)
        if not self.capacity.check(arrays[: ends[0]]):
            self.forget()
            return None
        fault = self.faults.first(arrays[ends[0] : ends[1]])
        if fault is not None:
            self.forget()
            raise fault
        return arrays[ends[1] :]
