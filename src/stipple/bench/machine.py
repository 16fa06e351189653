"""The machine that benchmarks ran on."""

from __future__ import annotations

import platform
from typing import Any

from stipple.backends.cpu.simd import LANES
from stipple.backends.cpu.threads import default_threads


def machine() -> dict[str, Any]:
    """The machine that the benchmarks ran on."""
    return {
        "processor": _processor(),
        "threads": default_threads(),
        "lanes": LANES,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()
