"""Devices by name: those that ship, and those of other packages, which register an entry point.

A package adds a device by an entry point of the group ``stipple.backends``: its name is the device's, its object a
function that opens the device and returns a :class:`stipple.runtime.Backend`. Nothing is imported before it is needed.
``"auto"`` is the CPU: it is correct on every machine, and no GPU has yet been shown to be both correct and faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from stipple import arguments
from stipple.errors import DeviceError

if TYPE_CHECKING:
    from stipple.runtime.backend import Backend

Opener = Callable[[], "Backend"]
AUTO = "cpu"
GROUP = "stipple.backends"


def _cpu() -> Backend:
    from stipple.backends.cpu import CpuBackend

    return CpuBackend()


@lru_cache(maxsize=4)  # one device per process: pipelines are compiled once
def _gpu(kind: str) -> Backend:
    from stipple.backends.gpu import GpuBackend

    return GpuBackend(kind)


def _reference() -> Backend:
    from stipple.backends.reference import ReferenceBackend

    return ReferenceBackend()


_SHIPPED: dict[str, Opener] = {
    "cpu": _cpu,
    "gpu": partial(_gpu, "gpu"),
    "metal": partial(_gpu, "metal"),
    "vulkan": partial(_gpu, "vulkan"),
    "dx12": partial(_gpu, "dx12"),
    "reference": _reference,
}
_REGISTERED: dict[str, Opener] = {}


def register_device(name: str, opener: Opener) -> None:
    """Make a device available to ``Session(name)`` in this process. Packages use an entry point instead."""
    if name in _SHIPPED or name == "auto":
        raise DeviceError(f"register_device: the name {name!r} is taken")
    _REGISTERED[name] = opener


def devices() -> list[str]:
    """Names of the devices; the one that ``"auto"`` selects comes first."""
    return [*_SHIPPED, *dict.fromkeys([*_REGISTERED, *_elsewhere()])]


def open_device(name: str) -> Backend:
    """Open a device by name, or ``"auto"``."""
    arguments.device(name)
    chosen = AUTO if name == "auto" else name
    opener = _SHIPPED.get(chosen) or _REGISTERED.get(chosen) or _elsewhere().get(chosen)
    if opener is None:
        raise DeviceError(f"no device {name!r}; there are: auto, {', '.join(devices())}")
    return opener()


def _elsewhere() -> dict[str, Opener]:
    """Devices of other packages, each imported only when it is opened."""
    return {point.name: partial(_load, point.name) for point in entry_points(group=GROUP) if point.name not in _SHIPPED}


def _load(name: str) -> Backend:
    point = next(p for p in entry_points(group=GROUP) if p.name == name)
    try:
        opener: Opener = point.load()
    except (ImportError, AttributeError) as error:
        raise DeviceError(f"device {name!r}: the package that offers it, {point.value}, fails: {error}") from error
    return opener()
