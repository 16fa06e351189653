"""Depth sort and tile binning.

Visible Gaussians are sorted by depth (stable radix sort of the float's bits), then every Gaussian's tiles are
found exactly, and a stable counting sort by tile gives each tile its Gaussians in depth order.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel
from stipple.backends.cpu.threads import Threads
from stipple.errors import InputError, LimitWarning
from stipple.ir.attributes import AttrValue

Array = np.ndarray
EXTENT = 0.5 * nx.EXTENT_SIGMA**2
_RADIX_BITS = 11
_PASSES = 3  # 3 x 11 bits cover the 31 that a positive float's order lies in
_SORT_BLOCK = 16384
_BIN_BLOCK = 4096


@kernel("i8(i4[:,::1],f4[::1],u4[::1],i4[::1])")
def compact(radii, depths, keys, ids):
    """Depth bits and indices of the visible Gaussians; returns how many there are."""
    bits = depths.view(np.uint32)
    n = 0
    for i in range(len(depths)):
        keys[n] = bits[i]
        ids[n] = i
        n += 1 if radii[i, 0] > 0 else 0
    return n


@kernel("void(i8,i8,u4[::1],u4,i8[::1])")
def radix_count(start, end, keys, shift, counts):
    """How often each digit occurs in a block."""
    counts[:] = 0
    for i in range(start, end):
        counts[np.intp((keys[i] >> shift) & np.uint32(2047))] += 1


@kernel("void(i8,i8,u4[::1],i4[::1],u4,i8[::1],u4[::1],i4[::1])")
def radix_move(start, end, keys, ids, shift, offsets, out_keys, out_ids):
    """Move a block's items to the places that ``offsets`` counts up, in order."""
    for i in range(start, end):
        key = keys[i]
        digit = np.intp((key >> shift) & np.uint32(2047))
        at = offsets[digit]
        offsets[digit] = at + 1
        out_keys[at] = key
        out_ids[at] = ids[i]


def _count_block(keys: Array, shift: np.uint32, counts: Array, start: int, end: int) -> None:
    radix_count(start, end, keys, shift, counts[start // _SORT_BLOCK])


def _move_block(
    keys: Array,
    ids: Array,
    shift: np.uint32,
    starts: Array,
    out_keys: Array,
    out_ids: Array,
    start: int,
    end: int,
) -> None:
    radix_move(start, end, keys, ids, shift, starts[start // _SORT_BLOCK], out_keys, out_ids)


def depth_order(radii: Array, depths: Array, threads: Threads) -> Array:
    """Indices of the visible Gaussians by depth, ties by index."""
    keys, ids = np.empty(len(depths) + 1, np.uint32), np.empty(len(depths) + 1, np.int32)
    count = compact(radii, depths, keys, ids)
    keys, ids = keys[:count], ids[:count]
    other_keys, other_ids = np.empty_like(keys), np.empty_like(ids)
    blocks = -(-count // _SORT_BLOCK)
    counts = np.empty((blocks, 1 << _RADIX_BITS), np.int64)
    for step in range(_PASSES):
        shift = np.uint32(step * _RADIX_BITS)
        threads.blocks(
            count,
            _SORT_BLOCK,
            partial(_count_block, keys, shift, counts),
        )
        # Where each block's items with each digit begin: digits in order, and within one the blocks in order.
        ends = np.cumsum(counts.T.ravel())
        starts = np.ascontiguousarray((ends - counts.T.ravel()).reshape(counts.shape[::-1]).T)
        threads.blocks(
            count,
            _SORT_BLOCK,
            partial(_move_block, keys, ids, shift, starts, other_keys, other_ids),
        )
        keys, ids, other_keys, other_ids = other_keys, other_ids, keys, ids
    return ids


# --- tiles ------------------------------------------------------------------------------------------------
@inline
def ellipse(a, b, c, p, r, k):
    """What the rows below need of a x^2 + 2b xy + c y^2 + 2p x + 2r y <= k, with a > 0 and a c > b^2.

    Centre, half height, height at which it is widest, and about the centre the middle's slope in y and the
    two numbers of its half width: x = -slope y +- sqrt(wide - narrowing y^2). Half height is negative if empty.
    """
    det = a * c - b * b
    inverse, per_a = 1.0 / det, 1.0 / a
    cx, cy = (b * r - c * p) * inverse, (b * p - a * r) * inverse
    top = k - (p * cx + r * cy)
    if not top >= 0.0:
        return cx, cy, -1.0, 0.0, 0.0, 0.0, 0.0
    half_y = math.sqrt(a * top * inverse)
    return cx, cy, half_y, b * half_y / math.sqrt(a * c), b * per_a, top * per_a, det * per_a * per_a


@inline
def slab_ends(shape, y0, y1):
    """Smallest and largest x at which an ellipse meets y0 <= y <= y1; (1, 0) where it does not."""
    cx, cy, half_y, tip, slope, wide, narrowing = shape
    low, high = max(y0 - cy, -half_y), min(y1 - cy, half_y)
    if low > high:
        return 1.0, 0.0
    y = min(max(-tip, low), high)
    right = -slope * y + math.sqrt(max(wide - narrowing * y * y, 0.0))
    y = min(max(tip, low), high)
    left = -slope * y - math.sqrt(max(wide - narrowing * y * y, 0.0))
    return cx + left, cx + right


@kernel("i8(i8,i8,i4[::1],f4[:,::1],f4[:,::1],f4[::1],i4[:,::1],b1,f4,i8,i8,i8,i4[::1],i4[::1])")
def find_tiles(
    start, end, order, means2d, conics, opacities, radii, ray, alpha_cutoff, width, height, size, tiles, ranks,
):  # fmt: skip
    """Tiles of the Gaussians at ranks start to end, one entry each, by rank; returns the number of entries.

    With empty ``tiles``, only an upper bound is counted, from the bounding boxes.
    """
    columns, rows = (width + size - 1) // size, (height + size - 1) // size
    n = 0
    only_bound = len(tiles) == 0
    for rank in range(start, end):
        i = order[rank]
        u, v = float(means2d[i, 0]), float(means2d[i, 1])
        rx, ry = float(radii[i, 0]), float(radii[i, 1])
        c0 = max(0, int(math.floor(max((u - rx) / size, -1.0))))
        c1 = min(columns, int(math.floor(min((u + rx) / size, float(columns)))) + 1)
        r0 = max(0, int(math.floor(max((v - ry) / size, -1.0))))
        r1 = min(rows, int(math.floor(min((v + ry) / size, float(rows)))) + 1)
        if only_bound:
            n += max(0, c1 - c0) * max(0, r1 - r0)
            continue
        a, b, c = float(conics[i, 0]), float(conics[i, 1]), float(conics[i, 2])
        reach = EXTENT
        if alpha_cutoff > 0:
            reach = min(reach, math.log(float(opacities[i]) / float(alpha_cutoff)))
        k = 2.0 * reach * (1.0 + 1e-5) + 1e-5  # never lose a pixel to rounding
        p, r = 0.0, 0.0
        if ray:
            a -= k * float(conics[i, 5])
            b -= k * float(conics[i, 6])
            c -= k * float(conics[i, 7])
            p, r = -k * float(conics[i, 3]), -k * float(conics[i, 4])
        bounded = a > 0.0 and a * c - b * b > 0.0
        shape = ellipse(a, b, c, p, r, k) if bounded else (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        for row in range(r0, r1):
            first, last = c0, c1 - 1
            if bounded:
                y0 = row * size + 0.5 - v
                y1 = min((row + 1) * size, height) - 0.5 - v
                left, right = slab_ends(shape, y0, y1)
                if left > right:
                    continue
                # a tile's pixel centres span [column * size + 0.5, (column + 1) * size - 0.5]
                first = max(first, int(math.ceil((u + left + 0.5 - size) / size - 1e-9)))
                last = min(last, int(math.floor((u + right - 0.5) / size + 1e-9)))
            for column in range(first, last + 1):
                tiles[n] = row * columns + column
                ranks[n] = i
                n += 1
    return n


@kernel("void(i4[::1],i8,i8[::1])")
def count_tiles(tiles, count, counts):
    """How often each tile occurs among a block's entries."""
    counts[:] = 0
    for e in range(count):
        counts[tiles[e]] += 1


@kernel("void(i4[::1],i4[::1],i8,i8[::1],i4[::1])")
def place_entries(tiles, ids, count, offsets, out):
    """Move a block's entries to the places that ``offsets`` counts up, in order."""
    for e in range(count):
        tile = tiles[e]
        at = offsets[tile]
        offsets[tile] = at + 1
        out[at] = ids[e]


def bin_into_tiles(
    order: Array,
    means2d: Array,
    conics: Array,
    opacities: Array,
    radii: Array,
    attrs: Mapping[str, AttrValue],
    threads: Threads,
) -> tuple[Array, Array]:
    """tile_ranges [T, 2] and sorted_ids [E] of footprints given in depth order."""
    width, height, size = attrs["width"], attrs["height"], attrs["tile_size"]
    tile_count = -(-width // size) * -(-height // size)
    ray, cutoff = attrs["projection"] == "ray", np.float32(attrs["alpha_cutoff"])
    blocks = -(-len(order) // _BIN_BLOCK)
    found: list[tuple[Array, Array, int]] = [(_NOTHING, _NOTHING, 0)] * blocks
    counts = np.zeros((blocks, tile_count), np.int64)

    def find(start: int, end: int) -> None:
        block = start // _BIN_BLOCK
        where = (start, end, order, means2d, conics, opacities, radii, ray, cutoff, width, height, size)
        bound = find_tiles(*where, _NOTHING, _NOTHING)
        tiles, ids = np.empty(max(bound, 1), np.int32), np.empty(max(bound, 1), np.int32)
        used = find_tiles(*where, tiles, ids)
        count_tiles(tiles, used, counts[block])
        found[block] = (tiles, ids, used)

    threads.blocks(len(order), _BIN_BLOCK, find)
    _limit(found, counts, attrs["max_list_entries"])
    totals = counts.sum(axis=0)
    ends = np.cumsum(totals)
    if ends[-1] > np.iinfo(np.int32).max:
        raise InputError(
            f"splat_prepare: {ends[-1]:,} tile entries are more than can be numbered; the Gaussians are too large for "
            "this image: use a smaller image, larger tiles, or max_list_entries"
        )
    ranges = np.column_stack([ends - totals, ends]).astype(np.int32)
    starts = (ends - totals) + np.cumsum(counts, axis=0) - counts
    ids_sorted = np.empty(int(ends[-1]), np.int32)

    def place(start: int, end: int) -> None:
        block = start // _BIN_BLOCK
        tiles, ids, used = found[block]
        place_entries(tiles, ids, used, starts[block], ids_sorted)

    threads.blocks(len(order), _BIN_BLOCK, place)
    return ranges, ids_sorted


_NOTHING = np.empty(0, np.int32)


def _limit(found: list[tuple[Array, Array, int]], counts: Array, limit: int) -> None:
    """Keep only the first ``limit`` entries, nearest Gaussians first, and say so."""
    total = sum(used for _, _, used in found)
    if not limit or total <= limit:
        return
    warnings.warn(
        f"splat_prepare: max_list_entries = {limit} cut {total - limit} of {total} tile entries, the farthest ones",
        LimitWarning,
        stacklevel=2,
    )
    left = limit
    for block, (tiles, ids, used) in enumerate(found):
        kept = min(used, left)
        left -= kept
        if kept < used:
            found[block] = (tiles, ids, kept)
            count_tiles(tiles, kept, counts[block])
