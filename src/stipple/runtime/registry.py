"""Devices by name. Backends register how they are opened; nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from stipple import arguments
from stipple.errors import DeviceError
from stipple.runtime.backend import Backend

_OPENERS: dict[str, Callable[[], Backend]] = {}
_PREFERENCE: list[str] = []


def register_device(name: str, opener: Callable[[], Backend]) -> None:
    """Make a device available to ``Session(name)``. ``"auto"`` takes the device registered last."""
    _OPENERS[name] = opener
    if name not in _PREFERENCE:
        _PREFERENCE.append(name)


def devices() -> list[str]:
    """Names of the devices, the one that ``"auto"`` takes first."""
    importlib.import_module("stipple.backends")
    return list(reversed(_PREFERENCE))


def open_device(name: str) -> Backend:
    """Open a device by name, or ``"auto"``."""
    arguments.device(name)
    known = devices()
    chosen = known[0] if name == "auto" else name
    if chosen not in _OPENERS:
        raise DeviceError(f"no device {name!r}; there are: auto, {', '.join(known)}")
    return _OPENERS[chosen]()
