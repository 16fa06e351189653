"""Arrays that stay in a device's memory between runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from stipple.errors import FeedError
from stipple.ir.dtype import DType
from stipple.ir.shape import TensorType
from stipple.runtime.backend import Backend, Buffer


class DeviceArray:
    """An array in a device's memory: created by :meth:`stipple.runtime.Session.upload`, or a result of
    ``Executable.run(..., keep=...)``. It can be fed to executables of the same session, and is never overwritten.
    """

    def __init__(self, backend: Backend, buffer: Buffer, dtype: DType) -> None:
        self.backend = backend
        self.buffer = buffer
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.backend.shape(self.buffer)

    def numpy(self) -> np.ndarray:
        """A copy in host memory."""
        return self.backend.download(self.buffer, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def fit(self, what: str, type_: TensorType, backend: Backend) -> None:
        """Raise FeedError unless it has the dtype and rank of this type and is on this device."""
        if self.backend is not backend:
            raise FeedError(f"{what}: the array is in the memory of another session; feed its .numpy()")
        if self.dtype is not type_.dtype or len(self.shape) != type_.shape.rank:
            raise FeedError(f"{what}: expected {type_}, got {self!r}")

    def __repr__(self) -> str:
        return f"<{self.dtype.value}{list(self.shape)} on {self.backend.name}>"
