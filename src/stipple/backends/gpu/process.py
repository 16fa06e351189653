"""GPUs and forked processes: a driver's threads and its connection to the device do not survive a fork.

What a forked process finds of its parent's GPUs raises one clear error when it is touched, and is left where it is
when the process ends: to release it would be to wait for threads that are not there.
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
    """Which process opened the GPUs' drivers."""

    process: int | None = None


_DRIVERS = _Drivers()


def enter() -> None:
    """Called before the drivers are used. Raises DeviceError where they were opened before this process was forked."""
    if _DRIVERS.process is None:
        _DRIVERS.process = os.getpid()
        in_forked_children(_DRIVERS, lambda _: _release_nothing())
    elif _DRIVERS.process != os.getpid():
        raise _error()


def bind(gpu: Any) -> None:
    """Make ``gpu`` an object that refuses everything in processes that are forked from this one."""
    in_forked_children(gpu, _leave_behind)


def _error() -> DeviceError:
    return DeviceError(
        f"the GPU was opened by process {_DRIVERS.process} before this one, {os.getpid()}, was forked from it, and "
        'cannot be used here; start workers by multiprocessing\'s "spawn" method, or open the GPU first in the worker'
    )


class _LeftBehind:
    """What a GPU of the parent is in the child."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise _error()


def _leave_behind(gpu: Any) -> None:
    gpu.__class__ = _LeftBehind


def _release_nothing() -> None:
    """Neither wgpu's objects (without its library wgpu lets them lie, as at the end of Python) nor, by leaving before
    what drivers do when a process exits, the drivers' own: Mesa's joins its threads there."""
    library = sys.modules.get(_LIBRARY)
    if library is not None:
        library.libf = None  # type: ignore[attr-defined]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):  # glibc: called with the exit status, before all that was registered earlier
            libc.on_exit(libc._exit, None)
