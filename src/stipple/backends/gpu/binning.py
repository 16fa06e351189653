"""Which Gaussians each tile sees, front to back.

Those that are seen are sorted by depth, their tiles are counted and listed in that order, and a stable sort by tile
gives each tile its own. How many are seen and how many entries there are stays on the device: sorts read it there.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from string import Template
from typing import NamedTuple

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, constants
from stipple.backends.gpu.device import Gpu, groups_of, shader_text
from stipple.backends.gpu.guesses import Guess
from stipple.backends.gpu.loops import check_tiles, parts_of
from stipple.backends.gpu.sorting import exclusive_sum, sort_pairs
from stipple.backends.gpu.structure import fill
from stipple.errors import InputError, LimitWarning
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
  let before = places[i];
  if (seen[i] != 0) {
    keys[before] = bitcast<i32>(depths[i]);
    order[before] = i32(i);
  } else {
    order[places[P.count] + i32(i) - before] = i32(i);
  }"""


def _front_to_back(gpu: Gpu, seen: GpuBuffer, depths: GpuBuffer) -> GpuBuffer:
    """Every Gaussian's index once: those that are seen by depth, equal ones by index, then all others by index."""
    count = seen.size
    places = exclusive_sum(gpu, seen)
    keys, order = gpu.allocate((count,), DType.I32), gpu.allocate((count,), DType.I32)
    reads = {"seen": seen, "places": places, "depths": depths}
    gpu.each("seen_first", _SEEN_FIRST, reads, {"keys": keys, "order": order}, count)
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
    counts = gpu.allocate((count,), DType.I32)
    code = _tiles_code(attrs, end="  counts[rank] = i32(n);")
    gpu.run("count_tiles", code, reads, {"counts": counts}, params, groups_of(count))
    offsets = exclusive_sum(gpu, counts)
    total = _room(gpu, offsets, (attrs["width"], attrs["height"], size, count), exact, attrs["max_list_entries"])
    keys, gaussians, emission = (gpu.allocate((total,), DType.I32) for _ in range(3))
    if total:
        reads["offsets"], params["total"] = offsets, total
        writes = {"keys": keys, "gaussians": gaussians, "emission": emission}
        code = _tiles_code(attrs, begin="  let first_entry = u32(offsets[rank]);", row=_MAKE_ENTRIES)
        for first_row, band in parts_of(gpu, rows, columns + 3):
            params |= {"first_row": first_row, "band": band}
            gpu.run("make_entries", code, reads, writes, params, groups_of(count))
    keys, emission = sort_pairs(gpu, keys, emission, max(1, (tiles - 1).bit_length()), sums=offsets)
    sorted_ids = _ids_of(gpu, gaussians, emission, offsets)
    sorted_ids.notes["lists"] = Lists(order, offsets, emission)
    ranges = _ranges_of(gpu, keys, offsets, tiles)
    ranges.notes["entries"] = sorted_ids.size  # they lie in that many
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
_HELD = "fn held() -> u32 { return min(u32(offsets[P.last]), P.total); }\n"


def _ids_of(gpu: Gpu, gaussians: GpuBuffer, emission: GpuBuffer, offsets: GpuBuffer) -> GpuBuffer:
    """The Gaussian of each entry; 0 where room was left."""
    ids = gpu.allocate(emission.shape, DType.I32)
    body = "  var id = 0;\n  if (i < held()) { id = gaussians[emission[i]]; }\n  out[i] = id;"
    reads = {"gaussians": gaussians, "emission": emission, "offsets": offsets}
    params = {"total": ids.size, "last": offsets.size - 1}
    gpu.each("entry_ids", body, reads, {"out": ids}, ids.size, params, _HELD)
    return ids


def _ranges_of(gpu: Gpu, keys: GpuBuffer, offsets: GpuBuffer, tiles: int) -> GpuBuffer:
    """Where each tile's entries begin and end."""
    ranges = gpu.allocate((tiles, 2), DType.I32)
    body = """  let count = held();
  out[2u * i] = lower_bound(i32(i), count); out[2u * i + 1u] = lower_bound(i32(i) + 1, count);"""
    params = {"total": keys.size, "last": offsets.size - 1}
    reads = {"keys": keys, "offsets": offsets}
    gpu.each("tile_ranges", body, reads, {"out": ranges}, tiles, params, _HELD + _LOWER_BOUND)
    return ranges


_LOWER_BOUND = """
fn lower_bound(wanted: i32, count: u32) -> i32 {
  var low = 0u; var high = count;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (keys[middle] < wanted) { low = middle + 1u; } else { high = middle; }
  }
  return i32(low);
}
"""


def lists_of(gpu: Gpu, ids: GpuBuffer, count: int) -> Lists:
    """How Gaussians find their entries in ``sorted_ids``; where this device did not make it, by a stable sort."""
    known: Lists | None = ids.notes.get("lists")
    if known is not None:
        return known
    total = ids.size
    keys, places, order = (gpu.allocate((n,), DType.I32) for n in (total, total, count))
    body = "  keys[i] = clamp(source[i], 0, i32(P.gaussians) - 1); places[i] = i32(i);"
    gpu.each("own_entries", body, {"source": ids}, {"keys": keys, "places": places}, total, {"gaussians": count})
    keys, places = sort_pairs(gpu, keys, places, max(1, (max(count, 2) - 1).bit_length()))
    emission, offsets = gpu.allocate((total,), DType.I32), gpu.allocate((count + 1,), DType.I32)
    gpu.each("invert", "  out[u32(places[i])] = i32(i);", {"places": places}, {"out": emission}, total)
    gpu.each("own_ranges", "  out[i] = lower_bound(i32(i), P.total);", {"keys": keys}, {"out": offsets}, count + 1,
             {"total": total}, _LOWER_BOUND)  # fmt: skip
    gpu.each("identity", "  out[i] = i32(i);", {}, {"out": order}, count)
    return Lists(order, offsets, emission)


def _room(gpu: Gpu, offsets: GpuBuffer, key: Hashable, exact: bool, limit: int) -> int:
    """For how many entries to make room: as many as there are, or a guess that is checked later."""
    guess = gpu.guesses.size(key)
    if guess is not None and not exact and not limit:
        gpu.guesses.pending.append(Guess(key, guess, _summary(gpu, offsets, guess)))
        return guess
    total = checked_total(gpu.download(_summary(gpu, offsets)))
    gpu.guesses.learn(key, total)
    if limit and total > limit:
        warnings.warn(
            f"splat_prepare: max_list_entries = {limit} cut {total - limit} of {total} tile entries, the farthest ones",
            LimitWarning,
            stacklevel=2,
        )
        return limit
    return total


def _summary(gpu: Gpu, offsets: GpuBuffer, room: int | None = None) -> GpuBuffer:
    """The number of entries, and whether the sums went beyond what can be numbered; with ``room``, the run is
    spoiled if there are more than that."""
    summary = gpu.allocate((2,), DType.I32)
    fill(gpu, summary, 0)
    writes, params = {"out": summary}, {}
    body = """  let end = offsets[i + 1u];
  let wrapped = end < offsets[i];
  if (wrapped) { out[1] = 1; }
  if (i + 1u == P.count) { out[0] = end; }"""
    if room is not None:
        body += "\n  if (wrapped || end > i32(P.room)) { spoiled[0] = 1; }"
        writes["spoiled"], params["room"] = gpu.spoiled(), room
    gpu.each("total", body, {"offsets": offsets}, writes, offsets.size - 1, params)
    return summary


def checked_total(found: np.ndarray) -> int:
    """How many entries a summary tells of."""
    total, wrapped = (int(v) for v in found)
    if wrapped or total < 0:
        raise InputError(
            "splat_prepare: more tile entries than can be numbered; the Gaussians are too large for this image: use a "
            "smaller image, larger tiles, or max_list_entries"
        )
    return total
