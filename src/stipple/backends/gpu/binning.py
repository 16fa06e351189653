"""Which Gaussians each tile sees, front to back.

Those that are seen are sorted by depth, their tiles are counted and listed in that order, and a stable sort by tile
gives each tile its own. How many are seen and how many entries there are stays on the device: sorts read it there.
"""

from __future__ import annotations

import warnings
from string import Template
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, constants
from stipple.backends.gpu.device import Gpu, groups_of
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.loops import check_tiles, parts_of
from stipple.backends.gpu.sorting import exclusive_sum, sort_pairs
from stipple.errors import LimitWarning
from stipple.ir.dtype import DType

_DEPTH_BITS = 32


class Footprints(NamedTuple):
    """What the lists are made from; ``seen`` is 1 or 0, and 0 where radii are 0."""

    means2d: GpuBuffer
    conics: GpuBuffer
    opacities: GpuBuffer
    depths: GpuBuffer
    radii: GpuBuffer
    seen: GpuBuffer


class Lists(NamedTuple):
    """How a Gaussian finds its entries: those of rank r (Gaussian ``order[r]``) stand at ``offsets[r]`` to
    ``offsets[r + 1]`` in the order in which they were made; ``emission`` says where a sorted entry stood."""

    order: GpuBuffer
    offsets: GpuBuffer
    emission: GpuBuffer


_SEEN_FIRST = """
  let before = u32(places(i));
  if (seen(i) != 0) {
    keys[before] = bitcast<i32>(depths(i));
    order[before] = i32(i);
  } else {
    order[u32(places(P.count)) + i - before] = i32(i);
  }"""


def _front_to_back(gpu: Gpu, seen: GpuBuffer, depths: GpuBuffer) -> GpuBuffer:
    """Every Gaussian's index once: those that are seen by depth, equal ones by index, then all others by index."""
    count = seen.size
    places = exclusive_sum(gpu, seen)
    keys, order = gpu.memory.allocate((count,), DType.I32), gpu.memory.allocate((count,), DType.I32)
    reads = {"seen": seen, "places": places, "depths": depths}
    gpu.each(Kernel("visible_first", _SEEN_FIRST), reads, {"keys": keys, "order": order}, count)
    return sort_pairs(gpu, keys, order, _DEPTH_BITS, sums=places)[1]


def tile_lists(gpu: Gpu, prints: Footprints, attrs: Attrs, exact: bool) -> tuple[GpuBuffer, GpuBuffer]:
    """tile_ranges and sorted_ids. Unless ``exact``, there may be room in ``sorted_ids`` behind the last entry, and the
    run must get its results by :func:`collecting.collect`."""
    size, count = attrs["tile_size"], prints.seen.size
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    tiles = columns * rows
    check_tiles(gpu, columns, rows)
    params: dict[str, int | float] = {
        "count": count, "tile": size, "columns": columns, "rows": rows, "height": attrs["height"],
        "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip
    order = _front_to_back(gpu, prints.seen, prints.depths)
    reads = {n: getattr(prints, n) for n in ("means2d", "conics", "opacities", "radii")} | {"order": order}
    counts = gpu.memory.allocate((count,), DType.I32)
    kernel = Kernel("count_tiles", _tiles_code(attrs, end="  counts[rank] = i32(n);"))
    gpu.run(kernel, reads, {"counts": counts}, groups_of(count), params)
    offsets = exclusive_sum(gpu, counts)
    total = _capacity(gpu, offsets, attrs, exact)
    keys, gaussians, emission = (gpu.memory.allocate((total,), DType.I32) for _ in range(3))
    if total:
        reads["offsets"], params["total"] = offsets, total
        writes = {"keys": keys, "gaussians": gaussians, "emission": emission}
        code = _tiles_code(attrs, begin="  let first_entry = u32(offsets(rank));", row=_MAKE_ENTRIES)
        kernel = Kernel("make_entries", code)
        for first_row, band in parts_of(gpu, rows, columns + 3):
            params |= {"first_row": first_row, "band": band}
            gpu.run(kernel, reads, writes, groups_of(count), params)
    keys, emission = sort_pairs(gpu, keys, emission, max(1, (tiles - 1).bit_length()), sums=offsets)
    sorted_ids = _ids_of(gpu, gaussians, emission, offsets)
    sorted_ids.derived["lists"] = Lists(order, offsets, emission)
    ranges = _ranges_of(gpu, keys, offsets, tiles)
    return ranges, sorted_ids


def _tiles_code(attrs: Attrs, begin: str = "", row: str = "", end: str = "") -> str:
    """The kernel that goes through the rows of a Gaussian's tiles, and what it does on the way."""
    return constants(attrs) + Template(shader_text("tiles")).substitute(begin=begin, row=row, end=end)


_MAKE_ENTRIES = """
      if (u32(row_) - P.first_row < P.band) {
        for (var column = first; column <= last; column++) {
          let at = first_entry + n + u32(column - first);
          if (at < P.total) { keys[at] = row_ * columns + column; gaussians[at] = i32(i); emission[at] = i32(at); }
        }
      }"""
# as many entries as there are and had room
_HELD = "fn held() -> u32 { return min(u32(offsets(P.last)), P.total); }\n"


def _ids_of(gpu: Gpu, gaussians: GpuBuffer, emission: GpuBuffer, offsets: GpuBuffer) -> GpuBuffer:
    """The Gaussian of each entry; 0 where room was left."""
    ids = gpu.memory.allocate(emission.shape, DType.I32)
    body = "  var id = 0;\n  if (i < held()) { id = gaussians(u32(emission(i))); }\n  out[i] = id;"
    reads = {"gaussians": gaussians, "emission": emission, "offsets": offsets}
    params = {"total": ids.size, "last": offsets.size - 1}
    gpu.each(Kernel("entry_ids", body, _HELD), reads, {"out": ids}, ids.size, params)
    return ids


def _ranges_of(gpu: Gpu, keys: GpuBuffer, offsets: GpuBuffer, tiles: int) -> GpuBuffer:
    """Where each tile's entries begin and end."""
    ranges = gpu.memory.allocate((tiles, 2), DType.I32)
    body = """  let count = held();
  out[2u * i] = lower_bound(i32(i), count); out[2u * i + 1u] = lower_bound(i32(i) + 1, count);"""
    params = {"total": keys.size, "last": offsets.size - 1}
    reads = {"keys": keys, "offsets": offsets}
    gpu.each(Kernel("tile_ranges", body, _HELD + _LOWER_BOUND), reads, {"out": ranges}, tiles, params)
    return ranges


_LOWER_BOUND = """
fn lower_bound(wanted: i32, count: u32) -> i32 {
  var low = 0u; var high = count;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (keys(middle) < wanted) { low = middle + 1u; } else { high = middle; }
  }
  return i32(low);
}
"""


def lists_of(gpu: Gpu, ids: GpuBuffer, count: int) -> Lists:
    """How Gaussians find their entries in ``sorted_ids``; where this device did not make it, by a stable sort."""
    known: Lists | None = ids.derived.get("lists")
    if known is not None:
        return known
    total = ids.size
    keys, places, order = (gpu.memory.allocate((n,), DType.I32) for n in (total, total, count))
    body = "  keys[i] = clamp(source(i), 0, i32(P.gaussians) - 1); places[i] = i32(i);"
    writes = {"keys": keys, "places": places}
    gpu.each(Kernel("own_entries", body), {"source": ids}, writes, total, {"gaussians": count})
    keys, places = sort_pairs(gpu, keys, places, max(1, (max(count, 2) - 1).bit_length()))
    emission, offsets = gpu.memory.allocate((total,), DType.I32), gpu.memory.allocate((count + 1,), DType.I32)
    invert = Kernel("invert", "  out[u32(places(i))] = i32(i);")
    own_ranges = Kernel("own_ranges", "  out[i] = lower_bound(i32(i), P.total);", _LOWER_BOUND)
    gpu.each(invert, {"places": places}, {"out": emission}, total)
    gpu.each(own_ranges, {"keys": keys}, {"out": offsets}, count + 1, {"total": total})
    gpu.each(Kernel("identity", "  out[i] = i32(i);"), {}, {"out": order}, count)
    return Lists(order, offsets, emission)


def _capacity(gpu: Gpu, offsets: GpuBuffer, attrs: Attrs, exact: bool) -> int:
    """For how many entries to make memory: an estimate that is checked later, or as many as there are."""
    key, limit = (attrs["width"], attrs["height"], attrs["tile_size"], offsets.size), attrs["max_list_entries"]
    if not exact and not limit:
        estimate = gpu.runs.capacity.estimated(gpu, key, offsets)
        if estimate is not None:
            return estimate
    total = gpu.runs.capacity.exact(gpu, key, offsets)
    if limit and total > limit:
        warnings.warn(
            f"splat_prepare: max_list_entries = {limit} cut {total - limit} of {total} tile entries, the farthest ones",
            LimitWarning,
            stacklevel=2,
        )
        return int(limit)
    return total
