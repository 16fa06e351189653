"""Tile lists: the Gaussians of each tile, front to back.

The visible ones are sorted by depth, their tiles are counted and listed in that order, and a stable sort by tile yields
the list of each tile. The numbers of visible Gaussians and of entries stay on the device, where sorts read them.
"""

from __future__ import annotations

import warnings
from string import Template

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, footprint_constants
from stipple.backends.gpu.device import Gpu, groups_of
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.loops import check_tiles, parts_of
from stipple.backends.gpu.sorting import LOWER_BOUND, exclusive_sum, sort_pairs
from stipple.errors import LimitWarning
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import BinListedResults, BinOperands

_DEPTH_BITS = 32


def bin_tiles(gpu: Gpu, x: BinOperands, attrs: Attrs, exact: bool) -> BinListedResults:
    """Results of splat_bin_listed. Unless ``exact``, ``sorted_ids`` and ``emission`` may be longer than the number of
    entries: an estimated capacity, which :meth:`Runs.collect` checks."""
    size, count = attrs["tile_size"], x.depths.size
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    tiles = columns * rows
    check_tiles(gpu, columns, rows)
    params: dict[str, int | float] = {
        "count": count, "tile": size, "columns": columns, "rows": rows, "height": attrs["height"],
        "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip
    order = _front_to_back(gpu, x.radii, x.depths)
    reads = {"means2d": x.means2d, "conics": x.conics, "opacities": x.opacities, "radii": x.radii, "order": order}
    counts = gpu.memory.allocate((count,), DType.I32)
    kernel = Kernel("count_tiles", _tiles_code(attrs, end="  counts[rank] = i32(n);"))
    gpu.run(kernel, reads, {"counts": counts}, groups_of(count), params)
    offsets = exclusive_sum(gpu, counts)
    capacity = _capacity(gpu, offsets, attrs, exact)
    keys, gaussians, emission = (gpu.memory.allocate((capacity,), DType.I32) for _ in range(3))
    if capacity:
        reads["offsets"], params["capacity"] = offsets, capacity
        writes = {"keys": keys, "gaussians": gaussians, "emission": emission}
        code = _tiles_code(attrs, begin="  let first_entry = u32(offsets(rank));", row=_MAKE_ENTRIES)
        for first_row, band in parts_of(gpu, rows, columns + 3):
            params |= {"first_row": first_row, "band": band}
            gpu.run(Kernel("make_entries", code), reads, writes, groups_of(count), params)
    keys, emission = sort_pairs(gpu, keys, emission, max(1, (tiles - 1).bit_length()), sums=offsets)
    sorted_ids = _ids_of(gpu, gaussians, emission, offsets)
    ranges = _ranges_of(gpu, keys, offsets, tiles)
    return BinListedResults(ranges, sorted_ids, order, offsets, emission)


_VISIBLE = Kernel("visible", "  out[i] = select(0, 1, radii(2u * i) > 0 && radii(2u * i + 1u) > 0);")
_VISIBLE_FIRST = Kernel(
    "visible_first",
    """
  let before = u32(places(i));
  if (visible(i) != 0) {
    keys[before] = bitcast<i32>(depth_key(depths(i)));
    order[before] = i32(i);
  } else {
    order[u32(places(P.count)) + i - before] = i32(i);
  }""",
    """
// unsigned integers in the order of the floats; zeros are equal, and NaN is last
fn depth_key(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return 0xffffffffu; }
  if (size == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
""",
)


def _front_to_back(gpu: Gpu, radii: GpuBuffer, depths: GpuBuffer) -> GpuBuffer:
    """The index of every Gaussian: the visible ones by depth, ties by index, then all others by index."""
    count = depths.size
    visible, keys, order = (gpu.memory.allocate((count,), DType.I32) for _ in range(3))
    gpu.each(_VISIBLE, {"radii": radii}, {"out": visible}, count)
    places = exclusive_sum(gpu, visible)
    reads = {"visible": visible, "places": places, "depths": depths}
    gpu.each(_VISIBLE_FIRST, reads, {"keys": keys, "order": order}, count)
    return sort_pairs(gpu, keys, order, _DEPTH_BITS, sums=places)[1]


def _tiles_code(attrs: Attrs, begin: str = "", row: str = "", end: str = "") -> str:
    """The kernel that iterates over the rows of a Gaussian's tiles, with code for the beginning, each row and the
    end."""
    return footprint_constants(attrs) + Template(shader_text("tiles")).substitute(begin=begin, row=row, end=end)


_MAKE_ENTRIES = """
      if (u32(row_) - P.first_row < P.band) {
        for (var column = first; column <= last; column++) {
          let at = first_entry + n + u32(column - first);
          if (at < P.capacity) { keys[at] = row_ * columns + column; gaussians[at] = i32(i); emission[at] = i32(at); }
        }
      }"""
# the number of entries, at most the capacity
_HELD = "fn held() -> u32 { return min(u32(offsets(P.last)), P.capacity); }\n"
_ENTRY_IDS = Kernel(
    "entry_ids", "  var id = 0;\n  if (i < held()) { id = gaussians(u32(emission(i))); }\n  out[i] = id;", _HELD
)
_TILE_RANGES = Kernel(
    "tile_ranges",
    """
  let count = held();
  out[2u * i] = lower_bound(i32(i), count); out[2u * i + 1u] = lower_bound(i32(i) + 1, count);""",
    _HELD + LOWER_BOUND,
)


def _ids_of(gpu: Gpu, gaussians: GpuBuffer, emission: GpuBuffer, offsets: GpuBuffer) -> GpuBuffer:
    """The Gaussian of each entry; 0 after the last."""
    ids = gpu.memory.allocate(emission.shape, DType.I32)
    reads = {"gaussians": gaussians, "emission": emission, "offsets": offsets}
    gpu.each(_ENTRY_IDS, reads, {"out": ids}, ids.size, {"capacity": ids.size, "last": offsets.size - 1})
    return ids


def _ranges_of(gpu: Gpu, keys: GpuBuffer, offsets: GpuBuffer, tiles: int) -> GpuBuffer:
    """Where each tile's entries begin and end."""
    ranges = gpu.memory.allocate((tiles, 2), DType.I32)
    params = {"capacity": keys.size, "last": offsets.size - 1}
    gpu.each(_TILE_RANGES, {"keys": keys, "offsets": offsets}, {"out": ranges}, tiles, params)
    return ranges


def _capacity(gpu: Gpu, offsets: GpuBuffer, attrs: Attrs, exact: bool) -> int:
    """How many entries to allocate: an estimate that is checked later, or the exact number."""
    key, limit = (attrs["width"], attrs["height"], attrs["tile_size"], offsets.size), attrs["max_list_entries"]
    if not exact and not limit:
        estimate = gpu.runs.capacity.estimated(gpu, key, offsets)
        if estimate is not None:
            return estimate
    total = gpu.runs.capacity.exact(gpu, key, offsets)
    if limit and total > limit:
        warnings.warn(
            f"splat_bin: max_list_entries = {limit} cut {total - limit} of {total} tile entries, the farthest ones",
            LimitWarning,
            stacklevel=2,
        )
        return int(limit)
    return total
