"""A run's outputs on their way to the caller: as NumPy arrays, or as handles to arrays that stay on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stipple.ir.graph import Value
from stipple.runtime.backend import Backend, Buffer
from stipple.runtime.handles import DeviceArray
from stipple.runtime.memory import ComeBack, MemoryUse, Pool, lent_array


@dataclass(frozen=True)
class _Fetch:
    """An output that becomes an array: the buffer itself if it is given away, or if a handle holds it too; how memory
    of the pool is returned."""

    name: str
    value: Value
    buffer: Buffer
    given: bool
    come_back: ComeBack | None = None
    handle: DeviceArray | None = None


class _Gone:
    """A borrower of a buffer that is already gone."""


class Outputs:
    """Outputs of one run, collected before anything is overwritten. Handles come first: what they hold is shared, as is
    what was fed as a handle."""

    def __init__(self, backend: Backend, pool: Pool, use: MemoryUse, fed: Mapping[Value, DeviceArray]) -> None:
        self.kept: dict[str, DeviceArray] = {}
        self._backend, self._pool, self._use = backend, pool, use
        self._handles = dict(fed)
        self._fetches: list[_Fetch] = []

    def shares(self, value: Value) -> bool:
        """Whether a handle holds this value. Nobody writes to what a handle holds."""
        return value in self._handles

    def share(self, name: str, value: Value, keep: bool) -> None:
        """One more output with the value of a handle."""
        handle = self._handles[value]
        if keep:
            self.kept[name] = handle
        else:
            self._fetches.append(_Fetch(name, value, handle.buffer, given=True, handle=handle))

    def keep(self, name: str, value: Value, buffer: Buffer, given: bool, come_back: ComeBack | None) -> None:
        """An output that stays on the device, in a copy unless its buffer is given away."""
        if not given:
            key = self._backend.shape(buffer), value.dtype
            copied = self._pool.take(self._backend, key, self._use)
            come_back = self._pool.lend(key, copied, self._use)
            buffer = self._backend.copy(buffer, value.dtype, copied)
        self.kept[name] = self._handles[value] = DeviceArray(self._backend, buffer, value.dtype)
        if come_back is not None:
            come_back(self.kept[name])

    def fetch(self, name: str, value: Value, buffer: Buffer, given: bool, come_back: ComeBack | None) -> None:
        """An output that becomes an array."""
        self._fetches.append(_Fetch(name, value, buffer, given, come_back))

    def stage(self) -> Any:
        """The argument of :meth:`Backend.collect`."""
        return self._backend.stage([(f.buffer, f.value.dtype, f.given) for f in self._fetches])

    def results(self, collected: Sequence[np.ndarray]) -> dict[str, Any]:
        """All outputs by name. Arrays that share a handle's value are read-only."""
        arrays = {f.name: _array(f, array) for f, array in zip(self._fetches, collected, strict=True)}
        return {**self.kept, **arrays}


def _array(fetch: _Fetch, array: np.ndarray) -> np.ndarray:
    """What was fetched; memory of the pool is returned when nobody holds the array, or a view of it, any more."""
    is_buffer = array is fetch.buffer
    if fetch.handle is not None:
        array = _view(fetch.handle, array) if is_buffer else array
        array.flags.writeable = False
    elif fetch.come_back is not None and is_buffer:
        return lent_array(array, fetch.come_back)
    elif fetch.come_back is not None:
        fetch.come_back(_Gone())
    return array


class _Held:
    """The object that an array in a handle's memory, and every view of it, keeps alive."""

    def __init__(self, handle: DeviceArray, array: np.ndarray) -> None:
        self._handle = handle
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, True)}


def _view(handle: DeviceArray, array: np.ndarray) -> np.ndarray:
    """A read-only view of a handle's array."""
    return np.asarray(_Held(handle, array))
