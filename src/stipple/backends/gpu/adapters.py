"""The GPUs of this machine, as reported by wgpu, and the choice among them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stipple.backends.gpu import process
from stipple.errors import DeviceError

KINDS = {"metal": "Metal", "vulkan": "Vulkan", "dx12": "D3D12"}
"""Values of --device, and wgpu's names for them."""

_PREFERRED = ("Metal", "Vulkan", "D3D12")
_TYPES = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "Unknown", "CPU")
_VARIABLE = "STIPPLE_GPU_ADAPTER"
_LOOP_LIMITS = {"llvmpipe": 65_535}


@dataclass(frozen=True)
class AdapterInfo:
    """A GPU's identity and capabilities."""

    name: str
    driver: str
    api: str
    type: str
    subgroups: bool
    timestamps: bool
    largest_buffer: int
    loop_limit: int = 0
    """Total iterations after which the device silently ends the loops of a thread; 0: no limit."""

    @property
    def device(self) -> str:
        """The value of --device for its API."""
        return next(k for k, v in KINDS.items() if v == self.api)


def import_wgpu() -> Any:
    """The wgpu module, or an error that says how to install it, or that it was opened before this process was
    forked."""
    process.enter()
    os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")  # EGL complains on stderr where a server has none
    try:
        import wgpu
    except ImportError:
        raise DeviceError("GPUs need wgpu: pip install 'stipple[gpu]'") from None
    return wgpu


@lru_cache(maxsize=1)
def _adapters() -> tuple[tuple[AdapterInfo, Any], ...]:
    wgpu = import_wgpu()
    found = []
    for adapter in wgpu.gpu.enumerate_adapters_sync():
        info = adapter.info
        if info["backend_type"] in KINDS.values():
            found.append((_describe(info, adapter), adapter))
    return tuple(sorted(found, key=lambda pair: _rank(pair[0])))


def _describe(info: Any, adapter: Any) -> AdapterInfo:
    limits = [
        limit for name, limit in _LOOP_LIMITS.items() if name in f"{info['device']} {info['description']}".lower()
    ]
    return AdapterInfo(
        info["device"],
        info["description"],
        info["backend_type"],
        info["adapter_type"],
        "subgroup" in adapter.features,
        "timestamp-query" in adapter.features,
        adapter.limits["max-storage-buffer-binding-size"],
        min(limits, default=0),
    )


def _rank(info: AdapterInfo) -> tuple[int, int]:
    return (_TYPES.index(info.type) if info.type in _TYPES else len(_TYPES), _PREFERRED.index(info.api))


def adapters() -> list[AdapterInfo]:
    """The machine's GPUs, the best first; software devices last."""
    return [info for info, _ in _adapters()]


def choose(kind: str) -> tuple[AdapterInfo, Any]:
    """The best adapter for ``gpu`` or one API; STIPPLE_GPU_ADAPTER selects one by a part of its name.

    Raises DeviceError, saying what is available and what to do.
    """
    requested = os.environ.get(_VARIABLE, "").lower()
    pairs = [(i, a) for i, a in _adapters() if requested in i.name.lower()]
    fitting = [(i, a) for i, a in pairs if kind == "gpu" or i.api == KINDS[kind]]
    if fitting:
        return fitting[0]
    there = ", ".join(f"{i.name} ({i.api})" for i in adapters()) or "none"
    named = f" whose name contains {requested!r} (from {_VARIABLE})" if requested else ""
    api = "GPU" if kind == "gpu" else f"{KINDS[kind]} GPU"
    raise DeviceError(
        f"device {kind!r}: no {api}{named} was found (available: {there}); install its driver, on Linux also the "
        "Vulkan loader (libvulkan1; mesa-vulkan-drivers has a software device), or use --device cpu"
    )
