"""Parameters: tensors by name in a device's memory, which the executables that are compiled with a store share."""

from __future__ import annotations

from typing import Any

import numpy as np

from stipple import arguments
from stipple.errors import FeedError
from stipple.ir.dtype import DType
from stipple.ir.shape import Shape, TensorType
from stipple.runtime.backend import Backend, Buffer
from stipple.runtime.feeds import as_array


class Params:
    """The single owner of parameters' values. Created by :meth:`stipple.runtime.Session.params`.

    Executables of any graphs bind to a store by ``Session.compile(graph, params=store)``: a parameter that one of them
    updates has its new value in all of them. An executable that is compiled without one has its own store.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._held: dict[str, tuple[Buffer, DType]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._held

    @property
    def names(self) -> list[str]:
        """The parameters that have a value."""
        return list(self._held)

    def set(self, name: str, value: Any, dtype: DType | str = DType.F32) -> None:
        """Set a parameter's value: an array of that dtype, or numbers that the dtype can represent."""
        type_, what = DType.of(dtype), f"parameter {arguments.instance('parameter', name, str)!r}"
        array = as_array(what, value, TensorType(Shape(_shape(what, value)), type_))
        self.put(name, self.backend.upload(array, type_), type_)

    def get(self, name: str) -> np.ndarray:
        """A copy of a parameter's value."""
        buffer, dtype = self._entry(name)
        return self.backend.download(buffer, dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        """A parameter's shape, without reading it."""
        return self.backend.shape(self._entry(name)[0])

    def put(self, name: str, buffer: Buffer, dtype: DType) -> None:
        """Hold a buffer as a parameter's value: it belongs to the store from now on."""
        self._held[name] = (buffer, dtype)

    def buffer(self, name: str, dtype: DType) -> Buffer:
        """The buffer with a parameter's value; the store still owns it."""
        buffer, held = self._entry(name)
        if held is not dtype:
            raise FeedError(f"parameter {name!r}: expected dtype {dtype.value}, its value is {held.value}")
        return buffer

    def _entry(self, name: str) -> tuple[Buffer, DType]:
        if arguments.instance("parameter", name, str) not in self._held:
            raise FeedError(f"parameter {name!r} has no value yet; call set_param({name!r}, ...)")
        return self._held[name]


def _shape(what: str, value: Any) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError:
        raise FeedError(f"{what}: expected numbers in rows of equal length, got {arguments.shown(value)}") from None
