"""The devices that ship with Stipple, worst first: ``"auto"`` takes the last."""

from __future__ import annotations

from functools import lru_cache, partial

from stipple.runtime.backend import Backend
from stipple.runtime.registry import register_device


def _reference() -> Backend:
    from stipple.backends.reference import ReferenceBackend

    return ReferenceBackend()


register_device("reference", _reference)


@lru_cache(maxsize=4)  # one device a process: pipelines are compiled once
def _gpu(kind: str) -> Backend:
    from stipple.backends.gpu import GpuBackend

    return GpuBackend(kind)


for _kind in ("dx12", "vulkan", "metal", "gpu"):
    register_device(_kind, partial(_gpu, _kind))


def _cpu() -> Backend:
    from stipple.backends.cpu import CpuBackend

    return CpuBackend()


register_device("cpu", _cpu)
