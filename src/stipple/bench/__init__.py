"""Benchmarks of this machine, for ``stipple bench`` and ``benchmarks/``: cases, measurements and tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group

from stipple.backends.cpu import CpuBackend
from stipple.backends.gpu import GpuBackend
from stipple.bench import cpu, gpu
from stipple.bench.cases import Case, usual_cases
from stipple.bench.tables import cpu_table, gpu_table
from stipple.errors import InputError
from stipple.runtime import Session

__all__ = ["Case", "measure", "table", "usual_cases"]


def measure(device: str, cases: list[Case], progress: Console) -> dict[str, Any]:
    """The figures of a device; what is being measured is printed to ``progress``.

    Raises InputError for a device that is neither the CPU nor a GPU, DeviceError for one that is not available.
    """
    session = Session(device)
    if isinstance(session.backend, GpuBackend):
        return gpu.run(session, cases, progress)
    if isinstance(session.backend, CpuBackend):
        return cpu.run(cases, progress)
    raise InputError(f"bench: expected the device cpu or a GPU, got {device!r}")


def table(measured: dict[str, Any]) -> Group:
    """What :func:`measure` returned, as tables for the terminal."""
    return gpu_table(measured) if "gpu" in measured["machine"] else cpu_table(measured)
