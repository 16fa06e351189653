"""Blocks of 16 x 16 pixels: their position in the image, and the layout of their pixels in vectors.

Vectors hold 8 x 2 pixels (8 x 1 or 4 x 1 on machines with narrower vectors) because footprints are round. A block is
stored as columns of vectors, one column after the other; rows of the image are assembled from halves of vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from stipple.backends.cpu.compile import inline, record_type
from stipple.backends.cpu.simd import (
    LANES,
    join_halves,
    join_halves_each,
    load,
    load_planes,
    stack_floats,
    store,
    store_planes,
)

Array = np.ndarray
f4 = np.float32

SIDE = 16
"""Rows and columns of a block."""
PIXELS = SIDE * SIDE
WIDTH = min(8, LANES)
HEIGHT = LANES // WIDTH
"""Pixels of a vector."""
COLUMNS, ROWS = SIDE // WIDTH, SIDE // HEIGHT
"""Vectors of a block."""


class Tiles(NamedTuple):
    """The tiles' lists, and their place in the image."""

    ranges: Array
    ids: Array
    size: int
    width: int
    height: int


TILES_TYPE = record_type(Tiles, "i4[:,::1]", "i4[::1]", "i8", "i8", "i8")


class Block(NamedTuple):
    """Pixels of a block that lie in the image and the tile, and the tile's entries."""

    left: int
    top: int
    columns: int
    rows: int
    start: int
    end: int


class Planes(NamedTuple):
    """A block's pixels, one plane for each number."""

    state: Array
    features: Array


# --- places -----------------------------------------------------------------------------------------------
@inline
def block_at(tiles, tile, down, across):
    """Block (down, across) of a tile; without rows or columns if it is outside of the image."""
    tile_row, tile_column = divmod(tile, (tiles.width + tiles.size - 1) // tiles.size)
    top, left = tile_row * tiles.size + down * SIDE, tile_column * tiles.size + across * SIDE
    bottom = min(top + SIDE, (tile_row + 1) * tiles.size, tiles.height)
    right = min(left + SIDE, (tile_column + 1) * tiles.size, tiles.width)
    start, end = np.intp(tiles.ranges[tile, 0]), np.intp(tiles.ranges[tile, 1])
    return Block(left, top, right - left, bottom - top, start, end)


@inline
def segment(row, h):
    """First element in a plane of the WIDTH pixels of a row in column h of vectors."""
    return (h * ROWS + row // HEIGHT) * LANES + row % HEIGHT * WIDTH


@inline
def reached(low, high, origin, step):
    """First and last vector, of ``step`` pixels each from ``origin`` on, that [low, high] reaches.

    The last is less than the first if there is none.
    """
    # conversions truncate: pixels from the end are rounded down, so the first is rounded up
    first = SIDE - np.intp(f4(SIDE) - min(max(low - origin, f4(0)), f4(SIDE)))
    count = np.intp(min(max(high - origin + f4(1), f4(0)), f4(SIDE)))
    return first // step, (count + step - 1) // step - 1


def feature_planes(variant, count):
    """A plane for each feature: on the stack where their number is compiled in."""
    raise NotImplementedError("compiled code only")


@overload(feature_planes, inline="always")
def _feature_planes(variant, count):
    if len(variant.types[1]):
        return lambda variant, count: np.empty(count * PIXELS, np.float32)
    return lambda variant, count: stack_floats(1024)


# --- rows of pixels ---------------------------------------------------------------------------------------
@inline
def row_pixels(state, plane, row, x):
    """LANES pixels of a row of a plane, from column x (a multiple of LANES) on."""
    i = plane + (x // WIDTH * ROWS + row // HEIGHT) * LANES
    if HEIGHT == 1:
        return load(state, i)
    # two columns of vectors side by side, each with this row in one half
    left, right = load(state, i), load(state, i + ROWS * LANES)
    if row % 2:
        return join_halves(left, right, 1)
    return join_halves(left, right, 0)


@inline
def row_features(variant, features, row, x):
    """Like ``row_pixels``, for the features that are compiled in."""
    i = (x // WIDTH * ROWS + row // HEIGHT) * LANES
    left = load_planes(features, i, PIXELS, variant.features)
    if HEIGHT == 1:
        return left
    right = load_planes(features, i + ROWS * LANES, PIXELS, variant.features)
    if row % 2:
        return join_halves_each(left, right, 1)
    return join_halves_each(left, right, 0)


@inline
def store_rows(state, plane, row, x, upper, lower):
    """LANES pixels of a row from column x on (multiples of HEIGHT and LANES), and those below where a vector has two
    rows."""
    i = plane + (x // WIDTH * ROWS + row // HEIGHT) * LANES
    if HEIGHT == 1:
        store(state, i, upper)
    else:
        store(state, i, join_halves(upper, lower, 0))
        store(state, i + ROWS * LANES, join_halves(upper, lower, 1))


@inline
def store_feature_rows(features, row, x, upper, lower):
    """Like ``store_rows``, for tuples and the planes of the features that are compiled in."""
    i = (x // WIDTH * ROWS + row // HEIGHT) * LANES
    if HEIGHT == 1:
        store_planes(features, i, PIXELS, upper)
    else:
        store_planes(features, i, PIXELS, join_halves_each(upper, lower, 0))
        store_planes(features, i + ROWS * LANES, PIXELS, join_halves_each(upper, lower, 1))
