"""The run in progress: what the device detects during it, and whether its results are usable."""

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
        """Around a run. If it raises, its pending checks are dropped."""
        with self._lock:
            try:
                yield
            except BaseException:
                self.forget()
                raise

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Kernels dispatched inside by :meth:`Gpu.each` change nothing if the run is unusable."""
        self.is_overwriting = True
        try:
            yield
        finally:
            self.is_overwriting = False

    def unusable(self) -> GpuBuffer:
        """A flag on the device: 0 until a kernel detects that the results of this run are unusable, because of an
        overflow or an invalid operand. The host learns of it at the end of the run; kernels that overwrite parameters
        read it themselves."""
        if self._unusable is None:
            self._unusable = self._memory.upload_changing(np.zeros(1, np.int32), DType.I32)
        return self._unusable

    def guard(self) -> GpuBuffer | None:
        """The flag that kernels must check before they overwrite something, or None if they need not."""
        if self.is_overwriting and (self.capacity.pending or self.faults.pending):
            return self.unusable()
        return None

    def forget(self) -> None:
        """Drop everything that was to be checked at the end of the run."""
        self.capacity.forget()
        self.faults.forget()
        self._unusable = None

    def collect(self, requested: Sequence[tuple[GpuBuffer, DType]]) -> list[Array] | None:
        """Values of buffers, or None if a capacity overflowed: then everything that the run computed, including faults,
        may be wrong.

        Raises the first fault that the device detected. Waits once for all.
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
