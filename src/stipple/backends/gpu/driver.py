"""An open wgpu device and its limits."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from stipple.backends.gpu.adapters import AdapterInfo, choose, import_wgpu
from stipple.backends.gpu.failures import Failures
from stipple.errors import DeviceError

WORKGROUP = 256
"""Threads per workgroup, in every kernel."""

_ARRAYS = "max-storage-buffers-per-shader-stage"
_MAX_ARRAYS = 24
_PROMISED_ARRAYS = 8
_WORKGROUP_BYTES = "max-compute-workgroup-storage-size"
_MAX_WORKGROUP_BYTES = 16_384


@dataclass(frozen=True)
class Driver:
    """An open device.

    ``largest`` is the maximum size of an array in bytes, ``max_arrays`` the maximum number of arrays bound to a kernel,
    ``subgroup_size`` the minimum number of threads in a subgroup, 0 without subgroups. There is one stream of work, and
    one thread at a time adds to it: the one that holds ``lock``.
    """

    wgpu: Any
    device: Any
    info: AdapterInfo
    failures: Failures
    lock: AbstractContextManager[Any]
    largest: int
    max_arrays: int
    subgroup_size: int


def open_driver(kind: str, minimal: bool) -> Driver:
    """The best device of a kind (gpu, metal, vulkan, dx12); ``minimal``: with nothing beyond WebGPU's guarantees.

    Raises DeviceError.
    """
    wgpu = import_wgpu()
    info, adapter = choose(kind)
    subgroup_size = _subgroup_size(adapter) if info.subgroups and not minimal else 0
    limits = adapter.limits
    required = {
        _ARRAYS: min(_PROMISED_ARRAYS if minimal else _MAX_ARRAYS, limits[_ARRAYS]),
        "max-storage-buffer-binding-size": limits["max-storage-buffer-binding-size"],
        "max-buffer-size": limits["max-buffer-size"],
        _WORKGROUP_BYTES: min(_MAX_WORKGROUP_BYTES, limits[_WORKGROUP_BYTES]),
    }
    features = ["subgroup"] if subgroup_size else []
    if info.timestamps:
        features.append("timestamp-query")
    try:
        device = adapter.request_device_sync(required_features=features, required_limits=required)
    except RuntimeError as error:
        raise DeviceError(f"{info.name} ({info.api}): cannot be opened: {error}") from None
    failures = Failures(info, (wgpu.GPUError, RuntimeError))
    largest = min(required["max-storage-buffer-binding-size"], required["max-buffer-size"]) // 16 * 16
    return Driver(wgpu, device, info, failures, threading.RLock(), largest, required[_ARRAYS], subgroup_size)


def _subgroup_size(adapter: Any) -> int:
    """The smallest number of threads that a subgroup may have; 0 if that is not reported."""
    info = adapter.info
    size = next((info[k] for k in info if k.endswith("group_min_size")), 0)
    return int(size) if 0 < int(size) <= WORKGROUP else 0
