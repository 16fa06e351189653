"""The runtime: a Session compiles a graph for a device; an Executable runs it."""

from stipple.backends.registry import devices, register_device
from stipple.runtime.backend import Backend, Buffer, Kernel
from stipple.runtime.executable import Executable
from stipple.runtime.handles import DeviceArray
from stipple.runtime.memory import MemoryUse
from stipple.runtime.params import Params
from stipple.runtime.reports import Dispatch, Timing
from stipple.runtime.session import Session

__all__ = [
    "Backend",
    "Buffer",
    "DeviceArray",
    "Dispatch",
    "Executable",
    "Kernel",
    "MemoryUse",
    "Params",
    "Session",
    "Timing",
    "devices",
    "register_device",
]
