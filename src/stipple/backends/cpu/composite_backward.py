"""Gradients of compositing: the tiles' lists front to back again, into sums for each entry.

Light is taken as in the forward. The contribution behind an entry is the image's total minus that of the entries
up to it. Sums over a tile's pixels are kept for each entry, and added up for each Gaussian in ``reduction.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stipple.backends.cpu.blocks import (
    COLUMNS,
    HEIGHT,
    PIXELS,
    ROWS,
    SIDE,
    TILES_TYPE,
    WIDTH,
    Block,
    Planes,
    block_at,
    feature_planes,
    reached,
    segment,
    store_feature_rows,
    store_rows,
)
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.composite import (
    CHECK,
    HALF,
    MAX_ALPHA,
    chunk_count,
    fetch_ahead,
)
from stipple.backends.cpu.footprint import (
    CHUNK,
    RECORDS_TYPE,
    USUAL_VARIANTS,
    column,
    footprint,
    log2_alpha,
)
from stipple.backends.cpu.moments import (
    EntrySums,
    add_column,
    add_row,
    first_feature,
    in_order,
    mean_gradient,
    no_moments,
    no_rows,
)
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    add_sums,
    any_lane,
    broadcast,
    dot,
    exp2,
    first_lanes,
    fma,
    fma_each,
    lane_columns,
    lane_maximum,
    lane_rows,
    load,
    load_columns_lanes,
    load_lanes,
    load_offsets,
    load_planes,
    load_scalar,
    maximum,
    minimum,
    reciprocal,
    repeat_scalars,
    stack_floats,
    stack_integers,
    store,
    store_scalar,
    store_sums,
    where,
    zeros,
)

Array = np.ndarray
f4 = np.float32

# Planes of a block's state: the transmittance, what lies behind (times the image's gradient), the position of the last
# contributor in the tile's list, and the weights of the Gaussian at hand (for features in chunks).
LIGHT, BEHIND, LAST, WEIGHT = (k * PIXELS for k in range(4))


class Gradients(NamedTuple):
    """What the forward has left, and the gradients of its results."""

    image: Array
    transmittance: Array
    last_ids: Array
    v_image: Array
    v_alpha: Array


class Slots(NamedTuple):
    """Where the entries' sums go."""

    sums: Array
    """Flat; those of a tile's entry k are ``stride`` elements from (offsets[tile] + k) * stride on."""
    offsets: Array
    walked: Array
    """[T]: how many entries of each tile have sums; no pixel walks those that follow."""
    stride: int


class Waiting(NamedTuple):
    """First and last vector of each column that has pixels with contributors to come."""

    first: Array
    last: Array


_GRADIENTS_TYPE = record_type(Gradients, "f4[:,:,::1]", "f4[:,::1]", "i4[:,::1]", "f4[:,:,::1]", "f4[:,::1]")
SLOTS_TYPE = record_type(Slots, "f4[::1]", "i8[::1]", "i8[::1]", "i8")


# --- blocks -----------------------------------------------------------------------------------------------
@inline
def clear(variant, planes, chunks):
    """All light, nothing behind, nothing walked."""
    none, zero, one = broadcast(-1), broadcast(0), broadcast(1)
    for i in range(0, PIXELS, LANES):
        store(planes.state, LIGHT + i, one)
        store(planes.state, BEHIND + i, zero)
        store(planes.state, LAST + i, none)
        for k in range(chunks * len(variant.features)):
            store(planes.features, k * PIXELS + i, zero)


@inline
def read_row(variant, block, row, x, given):
    """Of LANES pixels of a row: what lies behind, and the gradients of the features that are compiled in."""
    image, v_image = given.image.reshape(-1), given.v_image.reshape(-1)
    width, count = given.image.shape[1], given.image.shape[2]
    pixel, lanes = (block.top + row) * width + block.left + x, first_lanes(block.columns - x if row < block.rows else 0)
    behind = -(load_lanes(given.v_alpha, pixel, lanes) * load_lanes(given.transmittance, pixel, lanes))
    if len(variant.many):
        return behind, zeros(variant.features)
    v = load_columns_lanes(v_image, pixel * count, variant.features, lanes)
    return behind + dot(v, load_columns_lanes(image, pixel * count, variant.features, lanes)), v


@inline
def read_images(variant, planes, block, given):
    """Fill a block's gradients of the image, and what lies behind: the image's share and alpha's."""
    for row in range(0, block.rows, HEIGHT):
        for x in range(0, block.columns, LANES):
            behind, v = read_row(variant, block, row, x, given)
            behind_below, v_below = read_row(variant, block, row + HEIGHT - 1, x, given)
            store_rows(planes.state, BEHIND, row, x, behind, behind_below)
            if not len(variant.many):
                store_feature_rows(planes.features, row, x, v, v_below)


@inline
def read_many(planes, block, given):
    """The same of the image where features are in chunks."""
    for row in range(block.rows):
        for x in range(block.columns):
            i = segment(row, x // WIDTH) + x % WIDTH
            behind = load_scalar(planes.state, BEHIND + i)
            for k in range(given.image.shape[2]):
                v = given.v_image[block.top + row, block.left + x, k]
                behind += v * given.image[block.top + row, block.left + x, k]
                store_scalar(planes.features, k * PIXELS + i, v)
            store_scalar(planes.state, BEHIND + i, behind)


@inline
def read_last_row(block, row, x, last_ids):
    """Of LANES pixels of a row: the last contributor's position in the tile's list, -1 if there is none."""
    pixel, lanes = (block.top + row) * last_ids.shape[1] + block.left + x, first_lanes(block.columns - x)
    if row >= block.rows:
        return broadcast(-1)
    return where(lanes, maximum(load_offsets(last_ids, pixel, block.start, lanes), -1), -1)


@inline
def read_last(state, block, last_ids):
    """Fill in the last contributors; the block with those of its entries that any of its pixels walks."""
    last = broadcast(-1)
    for row in range(0, block.rows, HEIGHT):
        for x in range(0, block.columns, LANES):
            upper = read_last_row(block, row, x, last_ids)
            lower = read_last_row(block, row + HEIGHT - 1, x, last_ids)
            store_rows(state, LAST, row, x, upper, lower)
            last = maximum(last, maximum(upper, lower))
    end = min(block.start + np.intp(lane_maximum(last)) + 1, block.end)
    return Block(block.left, block.top, block.columns, block.rows, block.start, end)


# --- vectors that still have contributors -----------------------------------------------------------------
@inline
def last_of_vectors(state, last):
    """The last contributor of any pixel of each vector."""
    for i in range(COLUMNS * ROWS):
        store_scalar(last, i, lane_maximum(load(state, LAST + i * LANES)))


@inline
def find_waiting(last, entry, first_rows, last_rows):
    """First and last vector of each column that has pixels whose contributors are not all before an entry."""
    for h in range(COLUMNS):
        low, high = ROWS, -1
        for p in range(ROWS):
            if load_scalar(last, h * ROWS + p) >= entry:
                low, high = min(low, p), p
        store_scalar(first_rows, h, low)
        store_scalar(last_rows, h, high)


# --- entries ----------------------------------------------------------------------------------------------
@inline
def along_more_features(variant, gaussians, source, planes, i, chunks):
    """The image's gradient times a Gaussian's features at pixels, after the first chunk."""
    total = broadcast(0)
    for k in range(CHUNK, chunks * CHUNK, CHUNK):
        values = repeat_scalars(gaussians.features, source + k, variant.features)
        total += dot(values, load_planes(planes.features, k * PIXELS + i, PIXELS, variant.features))
    return total


@inline
def entry_sums(variant, gaussians, gaussian, entry, block, planes, waiting, chunks):
    """Walk the pixels that an entry reaches."""
    state = planes.state
    g = footprint(gaussians.records, gaussian)
    source = gaussian * gaussians.stride + gaussians.offset
    features = repeat_scalars(gaussians.features, source, variant.features)
    x0, y0 = f4(block.left) + HALF, f4(block.top) + HALF
    first_row, last_row = reached(g.row_low, g.row_high, y0, HEIGHT)
    first_column, last_column = reached(g.column_low, g.column_high, x0, WIDTH)
    zero = broadcast(0)
    total, magnitude_x, magnitude_y = zero, zero, zero
    numerator, denominator, v_features = no_moments(), no_moments(), zeros(variant.features)
    for h in range(first_column, last_column + 1):
        along = column(variant, g, lane_columns(WIDTH) + (x0 + f4(h * WIDTH) - g.mean_x))
        first, last = max(first_row, load_scalar(waiting.first, h)), min(last_row, load_scalar(waiting.last, h))
        row = lane_rows(WIDTH) + f4(first * HEIGHT)
        above, below = no_rows(), no_rows()
        for p in range(first, last + 1):
            i = (h * ROWS + p) * LANES
            dy = row + (y0 - g.mean_y)
            exponent = log2_alpha(variant, g, along, dy)
            row += HEIGHT
            hit = (exponent.x >= g.threshold) & (load(state, LAST + i) >= entry)
            if len(variant.many):
                store(state, WEIGHT + i, zero)
            if any_lane(hit):
                raw, light = exp2(exponent.x), load(state, LIGHT + i)
                alpha = where(hit, minimum(raw, MAX_ALPHA), 0)
                weight = alpha * light
                store(state, LIGHT + i, fma(-alpha, light, light))
                v_image = load_planes(planes.features, i, PIXELS, variant.features)
                value = dot(features, v_image)
                v_features = fma_each(weight, v_image, v_features)
                if len(variant.many):
                    store(state, WEIGHT + i, weight)
                    value += along_more_features(variant, gaussians, source, planes, i, chunks)
                behind = load(state, BEHIND + i) - weight * value
                store(state, BEHIND + i, behind)
                v_alpha = light * value - behind * reciprocal(1 - alpha)
                v = where(hit & (raw < MAX_ALPHA), alpha * v_alpha, 0)  # in the alpha's logarithm
                v_ratio = v
                if len(variant.ray):
                    total += v
                    v = where(hit, v * exponent.inverse, 0)
                    v_ratio = where(hit, v * exponent.power, 0)
                    below = add_row(below, v_ratio, dy)
                above = add_row(above, v, dy)
                if len(variant.extra):
                    v_x, v_y = mean_gradient(variant, g, along, dy, v, v_ratio)
                    magnitude_x, magnitude_y = magnitude_x + absolute(v_x), magnitude_y + absolute(v_y)
        numerator = add_column(numerator, above, along.dx)
        denominator = add_column(denominator, below, along.dx)
    if not len(variant.ray):
        total = numerator.one
    return EntrySums(total, numerator, denominator, magnitude_x, magnitude_y, v_features)


@inline
def chunk_sums(variant, g, block, planes, waiting, k):
    """The gradients of a chunk of an entry's features, from the weights that its pixels have left."""
    y0, x0 = f4(block.top) + HALF, f4(block.left) + HALF
    first_row, last_row = reached(g.row_low, g.row_high, y0, HEIGHT)
    first_column, last_column = reached(g.column_low, g.column_high, x0, WIDTH)
    sums = zeros(variant.features)
    for h in range(first_column, last_column + 1):
        first, last = max(first_row, load_scalar(waiting.first, h)), min(last_row, load_scalar(waiting.last, h))
        for p in range(first, last + 1):
            i = (h * ROWS + p) * LANES
            v_image = load_planes(planes.features, k * PIXELS + i, PIXELS, variant.features)
            sums = fma_each(load(planes.state, WEIGHT + i), v_image, sums)
    return sums


@inline
def keep(sums, at, fresh, values):
    """Store sums, or add them to those of the tile's earlier blocks."""
    if fresh:
        store_sums(sums, at, values)
    else:
        add_sums(sums, at, values)


@inline
def walk(variant, gaussians, tiles, tile, block, planes, slots, chunks):
    """Leave the sums of a block's entries."""
    known = slots.walked[tile]
    last, waiting = stack_floats(64), Waiting(stack_integers(4), stack_integers(4))
    last_of_vectors(planes.state, last)
    for at in range(block.start, block.end):
        if (at - block.start) % CHECK == 0:
            find_waiting(last, f4(at - block.start), waiting.first, waiting.last)
        fetch_ahead(variant, gaussians, tiles.ids, at, block.end)
        gaussian = np.intp(load_scalar(tiles.ids, at))
        entry = at - block.start
        place = (slots.offsets[tile] + entry) * slots.stride
        sums = entry_sums(variant, gaussians, gaussian, broadcast(f4(entry)), block, planes, waiting, chunks)
        keep(slots.sums, place, entry >= known, in_order(variant, sums))
        for k in range(CHUNK, chunks * CHUNK, CHUNK):
            more = chunk_sums(variant, footprint(gaussians.records, gaussian), block, planes, waiting, k)
            keep(slots.sums, place + first_feature(variant) + k, entry >= known, more)
    slots.walked[tile] = max(known, block.end - block.start)


_TYPES = ("i8", "i8", RECORDS_TYPE, TILES_TYPE, _GRADIENTS_TYPE, SLOTS_TYPE)


@kernel(*((usual, *_TYPES) for usual in USUAL_VARIANTS))
def backward(variant, first_tile, last_tile, gaussians, tiles, given, slots):
    """Leave the sums of the entries of tiles first to last."""
    chunks = chunk_count(variant, given.image.shape[2])
    planes = Planes(stack_floats(1024), feature_planes(variant, chunks * CHUNK))
    blocks = (tiles.size + SIDE - 1) // SIDE
    for tile in range(first_tile, last_tile):
        slots.walked[tile] = 0
        for down in range(blocks):
            for across in range(blocks):
                block = block_at(tiles, tile, down, across)
                if block.rows > 0 and block.columns > 0 and block.start < block.end:
                    clear(variant, planes, chunks)
                    block = read_last(planes.state, block, given.last_ids)
                    if block.start < block.end:
                        read_images(variant, planes, block, given)
                        if len(variant.many):
                            read_many(planes, block, given)
                        walk(variant, gaussians, tiles, tile, block, planes, slots, chunks)
