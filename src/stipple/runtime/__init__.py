"""The runtime: a Session compiles a graph for a device; an Executable runs it."""

from stipple.runtime.backend import Backend, Buffer, Kernel
from stipple.runtime.executable import Executable
from stipple.runtime.memory import MemoryUse
from stipple.runtime.registry import devices, register_device
from stipple.runtime.reports import Dispatch, Timing
from stipple.runtime.session import Session

__all__ = [
    "Backend",
    "Buffer",
    "Dispatch",
    "Executable",
    "Kernel",
    "MemoryUse",
    "Session",
    "Timing",
    "devices",
    "register_device",
]
