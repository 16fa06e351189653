"""Long loops in parts, for devices that end loops early without reporting it.

Mesa's software device (llvmpipe) allows a thread 65,535 loop iterations in total, and then leaves whichever loop it is
in. So kernels whose loops depend on the data are dispatched several times there, each time for a part of the data that
is small enough for a thread. All other devices process everything at once.
"""

from __future__ import annotations

from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.errors import DeviceError

_MANY = 32


class Part(NamedTuple):
    """``length`` items from the one with index ``skip``."""

    skip: int
    length: int


def max_items(gpu: Gpu, rounds: int) -> int | None:
    """How many items of ``rounds`` iterations each a thread can process, with an eighth left for other loops; None:
    all."""
    limit = gpu.loop_limit
    return max(1, (limit - limit // 8) // rounds) if limit else None


def parts_of(gpu: Gpu, count: int, rounds: int, further: int = 0) -> list[Part]:
    """Items split into parts that a thread can process, at least one; ``rounds`` bounds the iterations per item. A
    thread iterates as if there were ``further`` items more."""
    max_count = max_items(gpu, rounds)
    if max_count is not None:
        max_count = max(1, max_count - further)
    if max_count is None or count <= max_count:
        return [Part(0, count)]
    return [Part(skip, min(max_count, count - skip)) for skip in range(0, count, max_count)]


def check_tiles(gpu: Gpu, columns: int, rows: int) -> None:
    """Raise DeviceError if a thread cannot process a row of tiles, or reach every row."""
    max_count = max_items(gpu, 1)
    if max_count is not None and (columns + 3 > max_count or 2 * rows > gpu.loop_limit - max_count):
        raise DeviceError(
            f"{gpu.info.name} ({gpu.info.api}): ends loops after {gpu.loop_limit} iterations, too few for {columns} x "
            f"{rows} tiles; use larger tiles or a smaller image, or continue with --device cpu"
        )


def tile_parts(gpu: Gpu, ranges: GpuBuffer, entries: int, rounds: int, further: int = 0) -> list[Part]:
    """Parts of the longest list of a tile. A few parts too many cost less than waiting; if there would be many, the
    host reads the length of the longest list."""
    if len(parts_of(gpu, entries, rounds, further)) > _MANY:
        held = gpu.memory.known(ranges).reshape(-1, 2)
        longest = int((held[:, 1].astype(int) - held[:, 0]).max(initial=0))
        entries = min(max(longest, 0), entries)
    return parts_of(gpu, entries, rounds, further)
