"""The capacity for tile entries: only the device knows how many there are.

The capacity is estimated from earlier sizes, and nothing waits for the true number. If it is too small, the device
records the overflow, kernels that would overwrite parameters then leave them unchanged, and the run is repeated with a
larger capacity. Nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.kernels import Kernel
from stipple.backends.gpu.pool import rounded
from stipple.errors import InputError
from stipple.ir.dtype import DType

if TYPE_CHECKING:
    from stipple.backends.gpu.device import Gpu

_WIDEST_ROW = 64
"""Bytes of a tile entry's largest row in any array."""

_COUNT = """
  let end = offsets(i + 1u);
  let wrapped = end < offsets(i);
  if (wrapped) { found[1] = 1; }
  if (i + 1u == P.count) { found[0] = end; }"""
_OVERFLOW = "\n  if (wrapped || end > i32(P.capacity)) { unusable[0] = 1; }"


class _Pending(NamedTuple):
    """An estimate that is still to be checked, and the buffer in which the device reports the number of entries."""

    key: Hashable
    capacity: int
    found: GpuBuffer


class Capacity:
    """Capacities by key, and the estimates of this run that are still to be checked.

    An estimate is a quarter more than the last size, and decreases slowly, so that a view with few entries between
    views with many does not make it too small. It is rounded up, so that it, and with it memory and bindings, seldom
    changes. The margin ends at what the device can hold, so that only sizes without enough memory are refused.
    """

    def __init__(self, largest: int) -> None:
        self._max = largest // _WIDEST_ROW
        self._needs: dict[Hashable, int] = {}
        self._pending: list[_Pending] = []
        self.estimates: dict[Hashable, int] = {}

    @property
    def pending(self) -> bool:
        """Whether this run relies on an estimate."""
        return bool(self._pending)

    def learn(self, key: Hashable, size: int) -> None:
        """Update the estimate from an actual size."""
        self._needs[key] = max(size + size // 4 + 1024, int(0.99 * self._needs.get(key, 0)))
        self.estimates[key] = max(size, min(rounded(self._needs[key]), self._max))

    def estimated(self, gpu: Gpu, key: Hashable, offsets: GpuBuffer) -> int | None:
        """The estimated capacity for the number of entries, the last of ``offsets``, or None without an estimate. The
        device records an overflow, and :meth:`check` must be called at the end of the run."""
        capacity = self.estimates.get(key)
        if capacity is not None:
            self._pending.append(_Pending(key, capacity, _counted(gpu, offsets, capacity)))
        return capacity

    def exact(self, gpu: Gpu, key: Hashable, offsets: GpuBuffer) -> int:
        """The number of entries; waits for the device."""
        size = _checked_size(gpu.memory.download(_counted(gpu, offsets)))
        self.learn(key, size)
        return size

    def found(self) -> list[GpuBuffer]:
        """The buffers whose values :meth:`check` needs."""
        return [p.found for p in self._pending]

    def check(self, found: Sequence[np.ndarray]) -> bool:
        """Whether no estimate of this run overflowed; learns from all of them."""
        pending, self._pending = self._pending, []
        sizes = [_checked_size(array) for array in found]
        for p, size in zip(pending, sizes, strict=True):
            self.learn(p.key, size)
        return all(size <= p.capacity for p, size in zip(pending, sizes, strict=True))

    def forget(self) -> None:
        """The run has ended early: discard its estimates."""
        self._pending.clear()


def _counted(gpu: Gpu, offsets: GpuBuffer, capacity: int | None = None) -> GpuBuffer:
    """The number of entries, and whether the sums overflowed; with ``capacity``, the run becomes unusable if there are
    more."""
    found = gpu.memory.allocate((2,), DType.I32)
    gpu.each(Kernel("clear", "  found[i] = 0;"), {}, {"found": found}, 2)
    if capacity is None:
        gpu.each(Kernel("count_entries", _COUNT), {"offsets": offsets}, {"found": found}, offsets.size - 1)
    else:
        writes = {"found": found, "unusable": gpu.runs.unusable()}
        kernel = Kernel("check_capacity", _COUNT + _OVERFLOW)
        gpu.each(kernel, {"offsets": offsets}, writes, offsets.size - 1, {"capacity": capacity})
    return found


def _checked_size(found: np.ndarray) -> int:
    size, wrapped = (int(v) for v in found)
    if wrapped or size < 0:
        raise InputError(
            "splat_bin: more tile entries than can be numbered; the Gaussians are too large for this image: use a "
            "smaller image, larger tiles, or max_list_entries"
        )
    return size
