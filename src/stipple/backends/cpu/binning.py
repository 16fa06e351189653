"""Tile lists: the Gaussians of each tile, nearest first (splat_bin).

Every visible Gaussian's ellipse is described by a few numbers in one cache line (``Shape``). Then blocks of Gaussians
in depth order walk over the tiles that their ellipses touch, exactly, count each tile's entries and list the tiles;
then the entries are placed. Entries within a tile are in depth order.
"""

from __future__ import annotations

import math
import warnings
from collections import namedtuple
from collections.abc import Mapping

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    any_lane,
    broadcast,
    ceil,
    first_lanes,
    floor,
    fma,
    load_columns_lanes,
    load_lanes,
    load_scalar,
    log2,
    maximum,
    minimum,
    prefetch,
    sqrt,
    stack_floats,
    store,
    store_scalar,
    transpose,
    where,
)
from stipple.backends.cpu.sort import depth_order
from stipple.backends.cpu.threads import Threads
from stipple.errors import InputError, LimitWarning
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import BinOperands, BinResults

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
f4 = np.float32
ZERO, ONE, TWO, HALF, INFINITY = f4(0), f4(1), f4(2), f4(0.5), f4(np.inf)
EXTENT = f4(0.5 * nx.EXTENT_SIGMA**2)
LN_2 = f4(math.log(2))
SLACK = f4(1e-5)
"""Relative and absolute margin added to a Gaussian's extent, so that rounding never loses a pixel."""
_BLOCK = 4096
_SHAPE_BLOCK = 8192
_MAX_BLOCKS = 64
_LISTED = 16
"""Tiles listed per visible Gaussian, on average, in 64 bytes; blocks with more walk over their tiles a second time."""
_AHEAD = 24
"""How many Gaussians ahead shapes are prefetched."""

# At height dy, the ellipse about (x, y) extends between x - slope dy -+ sqrt(wide - narrowing dy^2); half_height is
# half its height, and its rightmost point is at dy = -tip. Its box is left, right, top, bottom, infinite if the
# footprint is not an ellipse; slack covers rounding in x. Columns and rows are those of the tiles within the radii.
Shape = namedtuple(
    "Shape",
    "x y left right top bottom slope wide narrowing half_height tip slack first_column last_column first_row last_row",
)
SHAPE = 16
"""Floats from one shape to the next: a cache line."""
_SHAPE_FLOATS = SHAPE * LANES

# The grid of tiles: how many, how large, and the last pixel centres of the image.
Grid = namedtuple("Grid", "columns rows size per_size last_x last_y cutoff log2_cutoff")
_GRID_TYPE = record_type(Grid, "i8", "i8", "f4", "f4", "f4", "f4", "f4", "f4")
_SPAN = ("i8", "i8")
Footprints = namedtuple("Footprints", "means2d conics opacities radii")
_FOOTPRINTS_TYPE = record_type(Footprints, "f4[:,::1]", "f4[:,::1]", "f4[::1]", "i4[:,::1]")
Sorted = namedtuple("Sorted", "order shapes")
_SORTED_TYPE = record_type(Sorted, "i4[::1]", "f4[::1]")
# Where entries go: each tile's next place in ids; while they are counted, the tiles of the first of them, as many as
# there is space for, and how many each Gaussian has.
Entries = namedtuple("Entries", "cursors ids placing tiles numbers")
_ENTRIES_TYPE = record_type(Entries, "i4[::1]", "i4[::1]", "b1", "i4[::1]", "i4[::1]")


# --- shapes -----------------------------------------------------------------------------------------------
@inline
def _stage(fields, shape):
    store(fields, 0 * LANES, shape.x)
    store(fields, 1 * LANES, shape.y)
    store(fields, 2 * LANES, shape.left)
    store(fields, 3 * LANES, shape.right)
    store(fields, 4 * LANES, shape.top)
    store(fields, 5 * LANES, shape.bottom)
    store(fields, 6 * LANES, shape.slope)
    store(fields, 7 * LANES, shape.wide)
    store(fields, 8 * LANES, shape.narrowing)
    store(fields, 9 * LANES, shape.half_height)
    store(fields, 10 * LANES, shape.tip)
    store(fields, 11 * LANES, shape.slack)
    store(fields, 12 * LANES, shape.first_column)
    store(fields, 13 * LANES, shape.last_column)
    store(fields, 14 * LANES, shape.first_row)
    store(fields, 15 * LANES, shape.last_row)


@inline
def _reached(grid, mean, radius, count):
    """The first and last of ``count`` tiles that a radius reaches, as floats."""
    first, last = floor((mean - radius) / grid.size), ceil((mean + radius) / grid.size) - ONE
    return minimum(maximum(first, ZERO), f4(count)), maximum(minimum(last, f4(count - 1)), -ONE)


@kernel((*_SPAN, _FOOTPRINTS_TYPE, _GRID_TYPE, "f4[::1]"))
def ewa_shapes(start, end, x, grid, shapes):
    """Shapes of Gaussians start to end with conics of three numbers, LANES at once; shapes of invisible ones are
    undefined."""
    fields = stack_floats(_SHAPE_FLOATS)
    for i in range(start, end, LANES):
        lanes = first_lanes(end - i)
        rx, ry = load_columns_lanes(x.radii, 2 * i, 2, lanes)
        if not any_lane((rx > ZERO) & (ry > ZERO)):
            continue
        u, v = load_columns_lanes(x.means2d, 2 * i, 2, lanes)
        a, b, c = load_columns_lanes(x.conics, 3 * i, 3, lanes)
        reach = broadcast(EXTENT)
        if grid.cutoff > ZERO:
            reach = minimum((log2(load_lanes(x.opacities, i, lanes)) - grid.log2_cutoff) * LN_2, EXTENT)
        k = TWO * reach * (ONE + SLACK) + SLACK
        # a c - b^2 with the rounding errors of the products: for a needle the difference is little more than rounding
        bb = b * b
        det = fma(a, c, -bb) + fma(-b, b, bb)
        ellipse = (a > ZERO) & (det > ZERO) & (absolute(a + c) < INFINITY)
        half_width, half_height = sqrt(c * (k / det)), sqrt(a * (k / det))
        slope = b / a
        tip = slope * half_height * sqrt(a / c)
        slack = f4(1e-4) + f4(5e-7) * (absolute(u) + half_width + absolute(slope) * (absolute(v) + half_height))
        half_height += f4(1e-4) + f4(5e-7) * absolute(v)
        first_column, last_column = _reached(grid, u, rx, grid.columns)
        first_row, last_row = _reached(grid, v, ry, grid.rows)
        inside = (k >= ZERO) & (u - half_width <= grid.last_x + slack) & (v - half_height <= grid.last_y)
        somewhere = (absolute(u) + absolute(v) < INFINITY) & (inside | ~ellipse)
        shape = Shape(
            u, v,
            where(ellipse, u - half_width - slack, -INFINITY), where(ellipse, u + half_width + slack, INFINITY),
            where(ellipse, v - half_height, -INFINITY), where(ellipse, v + half_height, INFINITY),
            where(ellipse, slope, ZERO), where(ellipse, k / a, INFINITY), where(ellipse, det / a / a, ZERO),
            where(ellipse, half_height, INFINITY), where(ellipse, tip, ZERO), where(ellipse, slack, ZERO),
            first_column, last_column, first_row, where(somewhere, last_row, -ONE),
        )  # fmt: skip
        _stage(fields, shape)
        for field in range(0, SHAPE, LANES):
            transpose(fields, field * LANES, LANES, shapes, i * SHAPE + field, SHAPE)


@inline
def _reached_by_one(grid, mean, radius, count):
    """The same for one Gaussian in float64."""
    first, last = np.floor((mean - radius) / grid.size), np.ceil((mean + radius) / grid.size) - 1.0
    return min(max(first, 0.0), float(count)), max(min(last, count - 1.0), -1.0)


@kernel()
def ray_shapes(start, end, x, grid, shapes):
    """The same with conics of eight numbers, in float64, because they involve differences of large numbers."""
    for i in range(start, end):
        u, v = float(x.means2d[i, 0]), float(x.means2d[i, 1])
        if not (x.radii[i, 0] > 0 and x.radii[i, 1] > 0):
            continue
        first_column, last_column = _reached_by_one(grid, u, float(x.radii[i, 0]), grid.columns)
        first_row, last_row = _reached_by_one(grid, v, float(x.radii[i, 1]), grid.rows)
        if not math.isfinite(u + v):
            first_row, last_row = 0.0, -1.0
        reach = float(EXTENT)
        if grid.cutoff > ZERO:
            reach = min(reach, math.log(float(x.opacities[i]) / float(grid.cutoff)))
        k = 2.0 * reach * (1.0 + float(SLACK)) + float(SLACK)
        a = float(x.conics[i, 0]) - k * float(x.conics[i, 5])
        b = float(x.conics[i, 1]) - k * float(x.conics[i, 6])
        c = float(x.conics[i, 2]) - k * float(x.conics[i, 7])
        p, r = -k * float(x.conics[i, 3]), -k * float(x.conics[i, 4])
        det = a * c - b * b
        half_width, half_height, slope, wide, narrowing, tip, slack = math.inf, math.inf, 0.0, math.inf, 0.0, 0.0, 0.0
        if a > 0.0 and det > 0.0:
            cx, cy = (b * r - c * p) / det, (b * p - a * r) / det
            top = k - (p * cx + r * cy)
            if not top >= 0.0:
                last_row = -1.0
            u, v = u + cx, v + cy
            half_width, half_height = math.sqrt(c * top / det), math.sqrt(a * top / det)
            slope, wide, narrowing = b / a, top / a, det / a / a
            tip = slope * half_height * math.sqrt(a / c)
            slack = 1e-4 + 5e-7 * (abs(u) + half_width + abs(slope) * (abs(v) + half_height))
            half_height += 1e-4 + 5e-7 * abs(v)
            if u - half_width > grid.last_x + slack or v - half_height > grid.last_y:
                last_row = -1.0
        fields = (
            u, v, u - half_width - slack, u + half_width + slack, v - half_height, v + half_height,
            slope, wide, narrowing, half_height, tip, slack, first_column, last_column, first_row, last_row,
        )  # fmt: skip
        for field in range(len(fields)):
            store_scalar(shapes, i * SHAPE + field, f4(fields[field]))


# --- tiles ------------------------------------------------------------------------------------------------
@inline
def _tiles(grid, low, high):
    """The first and last tile that have pixel centres between two places, as floats."""
    return np.ceil((low + HALF) * grid.per_size - ONE), np.floor((high - HALF) * grid.per_size)


@inline
def _within(tiles, first, last):
    """A range of tiles clipped to ``first`` and ``last``; NaN is unbounded. 0 and -1 if the range is empty."""
    low, high = tiles
    low, high = low if low > first else first, high if high < last else last
    return (np.intp(low), np.intp(high)) if low <= high else (np.intp(0), np.intp(-1))


@inline
def _slab(grid, shape, row):
    """The smallest and largest x at which an ellipse meets the pixel centres of a row of tiles."""
    top = f4(row) * grid.size + HALF - shape.y
    low = max(top, -shape.half_height)
    high = max(low, min(min(top + grid.size - ONE, grid.last_y - shape.y), shape.half_height))
    y = min(max(-shape.tip, low), high)
    right = math.sqrt(max(shape.wide - shape.narrowing * y * y, ZERO)) - shape.slope * y
    y = min(max(shape.tip, low), high)
    left = math.sqrt(max(shape.wide - shape.narrowing * y * y, ZERO)) + shape.slope * y
    return shape.x - left - shape.slack, shape.x + right + shape.slack


@inline
def _load_shape(shapes, i):
    at = i * SHAPE
    return Shape(
        load_scalar(shapes, at), load_scalar(shapes, at + 1), load_scalar(shapes, at + 2),
        load_scalar(shapes, at + 3), load_scalar(shapes, at + 4), load_scalar(shapes, at + 5),
        load_scalar(shapes, at + 6), load_scalar(shapes, at + 7), load_scalar(shapes, at + 8),
        load_scalar(shapes, at + 9), load_scalar(shapes, at + 10), load_scalar(shapes, at + 11),
        load_scalar(shapes, at + 12), load_scalar(shapes, at + 13), load_scalar(shapes, at + 14),
        load_scalar(shapes, at + 15),
    )  # fmt: skip


@kernel((*_SPAN, _SORTED_TYPE, _GRID_TYPE, "i8", _ENTRIES_TYPE))
def walk_tiles(start, end, x, grid, limit, entries):
    """Increment the cursor of every tile that Gaussians of ranks start to end touch, and if ``entries.placing``, first
    store the Gaussian there; returns the number of entries, at most ``limit``."""
    n = 0
    for rank in range(start, end):
        prefetch(x.shapes, np.intp(load_scalar(x.order, min(rank + _AHEAD, end - 1))) * SHAPE)
        i = load_scalar(x.order, rank)
        shape, before = _load_shape(x.shapes, np.intp(i)), n
        rows, columns = _tiles(grid, shape.top, shape.bottom), _tiles(grid, shape.left, shape.right)
        straight = rows[0] == rows[1] or columns[0] == columns[1]  # such an ellipse touches every tile of its box
        first_row, last_row = _within(rows, shape.first_row, shape.last_row)
        for row in range(first_row, last_row + 1):
            if not straight:
                left, right = _slab(grid, shape, row)
                columns = _tiles(grid, left, right)
            from_column, to_column = _within(columns, shape.first_column, shape.last_column)
            for column in range(from_column, to_column + 1):
                if n == limit:
                    return n
                tile = row * grid.columns + column
                cursor = load_scalar(entries.cursors, tile)
                if entries.placing:
                    store_scalar(entries.ids, np.intp(cursor), i)
                elif n < len(entries.tiles):
                    store_scalar(entries.tiles, n, np.int32(tile))
                store_scalar(entries.cursors, tile, np.int32(cursor + 1))
                n += 1
        if len(entries.numbers):
            store_scalar(entries.numbers, rank, np.int32(n - before))
    return n


@kernel((*_SPAN, "i4[::1]", "i8", _ENTRIES_TYPE))
def place_listed(start, end, order, limit, entries):
    """Place the entries of Gaussians of ranks start to end, at most ``limit``, whose tiles are all listed."""
    n = 0
    for rank in range(start, end):
        i = load_scalar(order, rank)
        last = min(n + np.intp(load_scalar(entries.numbers, rank)), limit)
        while n < last:
            tile = np.intp(load_scalar(entries.tiles, n))
            cursor = load_scalar(entries.cursors, tile)
            store_scalar(entries.ids, np.intp(cursor), i)
            store_scalar(entries.cursors, tile, np.int32(cursor + 1))
            n += 1


# --- the op -----------------------------------------------------------------------------------------------
def bin_tiles(x: BinOperands, attrs: Attrs, threads: Threads, out: BinResults) -> BinResults:
    """Results of splat_bin: ``out`` with a new array of sorted_ids, whose length is only known here."""
    grid = _grid(attrs)
    order = depth_order(x.radii, x.depths, threads)
    sorted_shapes = Sorted(order, _shapes(x, attrs["projection"], grid, threads))
    block = max(_BLOCK, -(-len(order) // _MAX_BLOCKS))
    counts = np.zeros((-(-len(order) // block), grid.columns * grid.rows), np.int32)
    lengths = np.zeros(len(counts), np.int64)
    tiles = threads.scratch("tiles", (len(counts), _LISTED * block)).view(np.int32)
    numbers = threads.scratch("numbers", (len(order),)).view(np.int32)

    def count(start: int, end: int) -> None:
        entries = Entries(counts[start // block], _NOTHING, False, tiles[start // block], numbers)
        lengths[start // block] = walk_tiles(start, end, sorted_shapes, grid, _NO_LIMIT, entries)

    threads.blocks(len(order), block, count)
    listed = lengths <= tiles.shape[1]
    if _limited(lengths, attrs["max_list_entries"]):
        counts[:] = 0

        def count_again(start: int, end: int) -> None:
            entries = Entries(counts[start // block], _NOTHING, False, _NOTHING, _NOTHING)
            walk_tiles(start, end, sorted_shapes, grid, lengths[start // block], entries)

        threads.blocks(len(order), block, count_again)
    totals = counts.sum(axis=0, dtype=np.int64)
    ends = np.cumsum(totals)
    ids = np.empty(_checked(int(ends[-1])), np.int32)
    cursors = (ends - totals).astype(np.int32) + np.cumsum(counts, axis=0, dtype=np.int32) - counts

    def place(start: int, end: int) -> None:
        number = start // block
        if listed[number]:
            entries = Entries(cursors[number], ids, True, tiles[number], numbers)
            place_listed(start, end, order, lengths[number], entries)
        else:
            entries = Entries(cursors[number], ids, True, _NOTHING, _NOTHING)
            walk_tiles(start, end, sorted_shapes, grid, lengths[number], entries)

    threads.blocks(len(order), block, place)
    out.tile_ranges[:, 0], out.tile_ranges[:, 1] = ends - totals, ends
    return out._replace(sorted_ids=ids)


_NOTHING = np.empty(0, np.int32)
_NO_LIMIT = np.iinfo(np.int64).max


def _grid(attrs: Attrs) -> Grid:
    size, cutoff = attrs["tile_size"], attrs["alpha_cutoff"]
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    last = f4(attrs["width"]) - HALF, f4(attrs["height"]) - HALF
    return Grid(columns, rows, f4(size), f4(1 / size), *last, f4(cutoff), f4(math.log2(cutoff) if cutoff > 0 else 0))


def _shapes(x: BinOperands, projection: str, grid: Grid, threads: Threads) -> Array:
    """The shapes of visible Gaussians, in memory that the next call may reuse."""
    count = len(x.radii)
    buffer = threads.scratch("shapes", ((count + LANES + 1) * SHAPE,))
    begin = -buffer.ctypes.data % (4 * SHAPE) // 4
    shapes = buffer[begin : begin + (count + LANES) * SHAPE]
    footprints = Footprints(x.means2d, x.conics, x.opacities, x.radii)
    describe = ray_shapes if projection == "ray" else ewa_shapes
    threads.blocks(count, _SHAPE_BLOCK, lambda start, end: describe(start, end, footprints, grid, shapes))
    return shapes


def _limited(lengths: Array, limit: int) -> bool:
    """Keep only the first ``limit`` entries, those of the nearest Gaussians, with a warning; returns whether any were
    cut."""
    total = int(lengths.sum())
    if not limit or total <= limit:
        return False
    warnings.warn(
        f"splat_bin: max_list_entries = {limit} cut {total - limit} of {total} tile entries, the farthest ones",
        LimitWarning,
        stacklevel=3,
    )
    before = np.cumsum(lengths) - lengths
    lengths[:] = np.clip(limit - before, 0, lengths)
    return True


def _checked(entries: int) -> int:
    if entries > np.iinfo(np.int32).max:
        raise InputError(
            f"splat_bin: {entries:,} tile entries are more than can be numbered; the Gaussians are too large for this "
            "image: use a smaller image, larger tiles, or max_list_entries"
        )
    return entries
