"""The devices that ship with Stipple, worst first: ``"auto"`` takes the last."""

from __future__ import annotations

from stipple.runtime.backend import Backend
from stipple.runtime.registry import register_device


def _reference() -> Backend:
    from stipple.backends.reference import ReferenceBackend

    return ReferenceBackend()


register_device("reference", _reference)


def _cpu() -> Backend:
    from stipple.backends.cpu import CpuBackend

    return CpuBackend()


register_device("cpu", _cpu)
