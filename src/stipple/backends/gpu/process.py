"""GPUs and forked processes: a driver's threads and its connection to the device do not survive a fork.

In a forked process, the parent's GPU objects raise one clear error when they are used, and are not released when the
process ends: releasing them would wait for threads that do not exist there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from stipple.errors import DeviceError
from stipple.forking import in_forked_children

_LIBRARY = "wgpu.backends.wgpu_native._api"


class _Drivers:
    """The process that opened the GPUs' drivers."""

    process: int | None = None


_DRIVERS = _Drivers()


def enter() -> None:
    """Called before the drivers are used. Raises DeviceError if they were opened before this process was forked."""
    if _DRIVERS.process is None:
        _DRIVERS.process = os.getpid()
        in_forked_children(_DRIVERS, lambda _: _release_nothing())
    elif _DRIVERS.process != os.getpid():
        raise _error()


def bind(gpu: Any) -> None:
    """Make ``gpu`` refuse every use in processes that are forked from this one."""
    in_forked_children(gpu, _leave_behind)


def _error() -> DeviceError:
    return DeviceError(
        f"the GPU was opened by process {_DRIVERS.process} before this one, {os.getpid()}, was forked from it, and "
        'cannot be used here; start workers with multiprocessing\'s "spawn" method, or open the GPU first in the worker'
    )


class _LeftBehind:
    """The parent's GPU in a forked child."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise _error()


def _leave_behind(gpu: Any) -> None:
    gpu.__class__ = _LeftBehind


def _release_nothing() -> None:
    """Release neither wgpu's objects (without its library wgpu does not, as at Python's exit) nor those of drivers, by
    exiting before their exit handlers run: Mesa's would join its threads."""
    library = sys.modules.get(_LIBRARY)
    if library is not None:
        library.libf = None  # type: ignore[attr-defined]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):  # glibc: runs before all handlers that were registered earlier
            libc.on_exit(libc._exit, None)
