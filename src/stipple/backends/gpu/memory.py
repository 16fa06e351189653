"""Arrays in GPU memory: allocated, uploaded, copied, downloaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer, stored
from stipple.backends.gpu.driver import Driver
from stipple.backends.gpu.locking import alone
from stipple.backends.gpu.pool import Block, Pool
from stipple.backends.gpu.readback import Readback, batches
from stipple.backends.gpu.stream import CommandStream
from stipple.ir.dtype import DType

Array = np.ndarray

SMALL = 256
"""Maximum number of elements of uploaded arrays of which the host keeps a copy."""


class Memory:
    """The arrays of one device. ``largest`` is the maximum size in bytes.

    ``dropped`` is called with released memory.
    """

    def __init__(self, driver: Driver, stream: CommandStream, dropped: Callable[[Sequence[Any]], None]) -> None:
        self.lock = driver.lock
        self.largest = driver.largest
        self.pool = Pool(self._create, driver.largest)
        self._driver, self._stream, self._dropped = driver, stream, dropped
        self._failures = driver.failures
        self._readback = Readback(driver.wgpu, driver.device, driver.largest)
        self._fence: GpuBuffer | None = None

    def _create(self, size: int) -> Any:
        usage = self._driver.wgpu.BufferUsage
        return self._driver.device.create_buffer(size=size, usage=usage.STORAGE | usage.COPY_SRC | usage.COPY_DST)

    @alone
    def allocate(self, shape: tuple[int, ...], dtype: DType) -> GpuBuffer:
        """Uninitialised memory."""
        return GpuBuffer(self._take(4 * math.prod(shape)), shape, dtype)

    def _take(self, size: int, upload: bool = False) -> Block:
        self._failures.check_size(size, self.largest)
        try:
            return self.pool.take(size, upload)
        except self._failures.errors:
            self.release()
        with self._failures.reported(f"{size / 1e6:.0f} MB could not be allocated"):
            return self.pool.take(size, upload)

    @alone
    def release(self) -> None:
        """Release unused memory."""
        self._stream.flush()
        self._dropped(self.pool.drop())

    def tidy(self) -> None:
        """Work was submitted: release memory that has been idle for long."""
        self._dropped(self.pool.tick())

    @alone
    def upload(self, array: Array, dtype: DType) -> GpuBuffer:
        """A new array with these values; the host keeps a copy of small ones."""
        buffer = self.upload_changing(np.asarray(array, dtype.numpy), dtype)
        if buffer.size <= SMALL:
            buffer.host = np.array(array, dtype.numpy)
        return buffer

    @alone
    def upload_changing(self, array: Array, dtype: DType) -> GpuBuffer:
        """A new array with values that kernels will change, so that the host keeps no copy."""
        data = np.ascontiguousarray(array, stored(dtype))
        block = self._take(data.nbytes, upload=True)
        if data.nbytes:
            with self._failures.reported(f"{data.nbytes / 1e6:.0f} MB could not be uploaded"):
                self._driver.device.queue.write_buffer(block.raw, 0, data.reshape(-1))
        return GpuBuffer(block, tuple(np.shape(array)), dtype)

    @alone
    def copy(self, buffer: GpuBuffer) -> GpuBuffer:
        """A new buffer with a buffer's contents after all earlier work."""
        twin = GpuBuffer(self._take(4 * buffer.size), buffer.shape, buffer.dtype, buffer.host)
        self.copy_into(buffer, twin, 0)
        return twin

    @alone
    def copy_into(self, source: GpuBuffer, target: GpuBuffer, start: int) -> None:
        """Copy a whole buffer to the elements of another from ``start`` on."""
        if source.size:
            with self._failures.reported("an array could not be copied"):
                self._stream.encoder().copy_buffer_to_buffer(source.raw, 0, target.raw, 4 * start, 4 * source.size)

    def download(self, buffer: GpuBuffer, dtype: DType | None = None) -> Array:
        """A buffer's values; waits for all dispatched work."""
        return self.download_all([(buffer, dtype or buffer.dtype)])[0]

    @alone
    def download_all(self, requested: Sequence[tuple[GpuBuffer, DType]]) -> list[Array]:
        """The values of some buffers; the host waits once for all that fit into one buffer together."""
        arrays: list[Array] = []
        for part in batches([buffer for buffer, _ in requested], self.largest):
            with self._failures.reported("a result could not be read"):
                self._readback.copy(self._stream.encoder(), part)
            self._stream.flush()
            with self._failures.reported("a result could not be read"), self._stream.waiting():
                arrays += self._readback.take(part)
        self._stream.flush()
        return [a.astype(dtype.numpy, copy=False) for a, (_, dtype) in zip(arrays, requested, strict=True)]

    def known(self, buffer: GpuBuffer) -> Array:
        """Values that the host needs: from its copy, else downloaded."""
        return self.download(buffer) if buffer.host is None else buffer.host

    @alone
    def wait(self) -> None:
        """Submit, and wait until everything is done: a download completes after all earlier work."""
        if self._fence is None:
            self._fence = self.allocate((1,), DType.I32)
        self.download(self._fence)
