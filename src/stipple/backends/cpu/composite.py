"""Compositing: the Gaussians of each tile, front to back, into blocks of 16 x 16 pixels that stay in L1.

A tile is one block, or several where it is larger. A Gaussian meets the vectors that its bounding box reaches and
that have pixels which still take light; in ewa nothing branches on a pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.blocks import (
    COLUMNS,
    HEIGHT,
    PIXELS,
    ROWS,
    SIDE,
    TILES_TYPE,
    WIDTH,
    Planes,
    block_at,
    feature_planes,
    reached,
    row_features,
    row_pixels,
    segment,
)
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.footprint import (
    CHUNK,
    RECORD,
    RECORDS_TYPE,
    USUAL_VARIANTS,
    column,
    footprint,
    log2_alpha,
)
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    any_lane,
    broadcast,
    exp2,
    first_lanes,
    fma,
    fma_each,
    lane_columns,
    lane_rows,
    load,
    load_planes,
    load_scalar,
    minimum,
    prefetch,
    repeat_scalars,
    stack_floats,
    stack_integers,
    store,
    store_columns_lanes,
    store_lanes,
    store_planes,
    store_scalar,
    where,
)

Array = np.ndarray
f4 = np.float32

AHEAD = 12
"""How many entries ahead records are prefetched."""
CHECK = 16
"""Interval, in entries, at which the vectors with unfinished pixels are determined."""

MAX_ALPHA = f4(nx.MAX_ALPHA)
HALF, ONE = f4(0.5), f4(1)

# Planes of a block's state. Light is the transmittance, negative once a pixel has stopped; last and median are
# positions in the tile's list, -1 if there is none.
LIGHT, LAST, MEDIAN, COUNT, CUT = (k * PIXELS for k in range(5))


class Limits(NamedTuple):
    """Limits at which a pixel is finished."""

    threshold: np.float32
    """The transmittance that ends a pixel."""
    max_steps: np.float32
    """Maximum number of contributors per pixel; infinite if there is no limit."""


class Images(NamedTuple):
    """Results of ``forward``; transmittance and last_ids have no rows if nothing uses them."""

    image: Array
    alpha: Array
    transmittance: Array
    last_ids: Array
    median_ids: Array
    counts: Array


@inline
def chunk_count(variant, features):
    """Chunks of features."""
    return (features + CHUNK - 1) // CHUNK if len(variant.many) else 1


@inline
def fetch_ahead(variant, gaussians, ids, at, end):
    """Ask for the record of an entry to come, and its features if they are elsewhere."""
    coming = np.intp(load_scalar(ids, min(at + AHEAD, end - 1)))
    prefetch(gaussians.records, coming * RECORD)
    if len(variant.ray) or len(variant.many):
        prefetch(gaussians.features, coming * gaussians.stride)


# --- compositing ------------------------------------------------------------------------------------------
@inline
def clear(variant, planes, block, chunks):
    """No light is taken yet; pixels outside of the image have stopped."""
    none, zero = broadcast(-1), broadcast(0)
    for i in range(0, PIXELS, LANES):
        store(planes.state, LIGHT + i, ONE)
        store(planes.state, LAST + i, none)
        if len(variant.extra):
            store(planes.state, MEDIAN + i, none)
            store(planes.state, COUNT + i, zero)
            store(planes.state, CUT + i, zero)
        for k in range(chunks * len(variant.features)):
            store(planes.features, k * PIXELS + i, zero)
    if block.rows < SIDE or block.columns < SIDE:
        for row in range(SIDE):
            for x in range(SIDE):
                if row >= block.rows or x >= block.columns:
                    store_scalar(planes.state, LIGHT + segment(row, x // WIDTH) + x % WIDTH, -ONE)


@inline
def find_live(state, first, last):
    """First and last vector of each column that has pixels which still take light; whether there is any."""
    found = False
    for h in range(COLUMNS):
        low, high = ROWS, -1
        for p in range(ROWS):
            if any_lane(load(state, LIGHT + (h * ROWS + p) * LANES) > 0):
                low, high = min(low, p), p
        store_scalar(first, h, low)
        store_scalar(last, h, high)
        found |= high >= 0
    return found


@inline
def take_light(variant, planes, i, alpha, hit, entry, limits):
    """Let the pixels at i that a Gaussian hits take its alpha, or stop; their weights."""
    state = planes.state
    light = load(state, LIGHT + i)
    hit = hit & (light > 0)
    takes = hit & (fma(-alpha, light, light) > limits.threshold)
    if len(variant.extra):
        count = load(state, COUNT + i)
        cut = takes & (count >= limits.max_steps)
        takes = takes & ~cut
        store(state, CUT + i, where(cut, 1, load(state, CUT + i)))
        store(state, COUNT + i, where(takes, count + 1, count))
        store(state, MEDIAN + i, where(takes & (light > HALF), entry, load(state, MEDIAN + i)))
    # Whole vectors: a masked store would keep the next Gaussian's load waiting.
    taken = where(takes, alpha, 0)
    left = fma(-taken, light, light)
    store(state, LIGHT + i, where(hit & ~takes, -left, left))
    store(state, LAST + i, where(takes, entry, load(state, LAST + i)))
    return taken * light


@inline
def add_features(variant, planes, i, weight, features):
    """Add a Gaussian's features, or a chunk of them, to the pixels at i of their planes."""
    sums = load_planes(planes.features, i, PIXELS, variant.features)
    store_planes(planes.features, i, PIXELS, fma_each(weight, features, sums))


@inline
def composite(variant, gaussians, ids, block, limits, planes, chunks):
    """Composite a block's entries into its planes."""
    x0, y0 = f4(block.left) + HALF, f4(block.top) + HALF
    live_first, live_last = stack_integers(4), stack_integers(4)
    if not find_live(planes.state, live_first, live_last):
        return
    for at in range(block.start, block.end):
        fetch_ahead(variant, gaussians, ids, at, block.end)
        gaussian = np.intp(load_scalar(ids, at))
        g = footprint(gaussians.records, gaussian)
        source = gaussian * gaussians.stride + gaussians.offset
        features = repeat_scalars(gaussians.features, source, variant.features)
        entry = broadcast(f4(at - block.start))
        first_row, last_row = reached(g.row_low, g.row_high, y0, HEIGHT)
        first_column, last_column = reached(g.column_low, g.column_high, x0, WIDTH)
        for h in range(first_column, last_column + 1):
            along = column(variant, g, lane_columns(WIDTH) + (x0 + f4(h * WIDTH) - g.mean_x))
            first, last = max(first_row, load_scalar(live_first, h)), min(last_row, load_scalar(live_last, h))
            row = lane_rows(WIDTH) + f4(first * HEIGHT)
            for p in range(first, last + 1):
                i = (h * ROWS + p) * LANES
                x = log2_alpha(variant, g, along, row + (y0 - g.mean_y)).x
                row += HEIGHT
                hit = x >= g.threshold
                # bounding boxes are tight in ewa, and a branch costs more than it saves; in ray they may not be
                if not len(variant.ray) or any_lane(hit):
                    alpha = minimum(exp2(x), MAX_ALPHA)
                    weight = take_light(variant, planes, i, alpha, hit, entry, limits)
                    add_features(variant, planes, i, weight, features)
                    for k in range(CHUNK, chunks * CHUNK, CHUNK):
                        more = repeat_scalars(gaussians.features, source + k, variant.features)
                        add_features(variant, planes, k * PIXELS + i, weight, more)
        if (at - block.start) % CHECK == CHECK - 1 and not find_live(planes.state, live_first, live_last):
            break


# --- results ----------------------------------------------------------------------------------------------
@inline
def write_empty(variant, block, background, images):
    """A block that no Gaussian reaches."""
    image, width, count = images.image.reshape(-1), images.image.shape[1], images.image.shape[2]
    for y in range(block.top, block.top + block.rows):
        for x in range(0, block.columns, LANES):
            pixel, lanes = y * width + block.left + x, first_lanes(block.columns - x)
            store_lanes(images.alpha, pixel, broadcast(0), lanes)
            if len(images.transmittance):
                store_lanes(images.transmittance, pixel, broadcast(1), lanes)
            if len(images.last_ids):
                store_lanes(images.last_ids, pixel, broadcast(-1), lanes)
            if len(variant.extra):
                store_lanes(images.median_ids, pixel, broadcast(-1), lanes)
                store_lanes(images.counts, pixel, broadcast(0), lanes)
            if not len(variant.many):
                store_columns_lanes(image, pixel * count, repeat_scalars(background, 0, variant.features), lanes)
        if len(variant.many):
            for x in range(block.left, block.left + block.columns):
                for k in range(count):
                    images.image[y, x, k] = background[k]


@inline
def write_images(variant, planes, block, background, images):
    """A block's image over the background, its alpha and its transmittance."""
    image, width, count = images.image.reshape(-1), images.image.shape[1], images.image.shape[2]
    for row in range(block.rows):
        for x in range(0, block.columns, LANES):
            pixel, lanes = (block.top + row) * width + block.left + x, first_lanes(block.columns - x)
            rest = absolute(row_pixels(planes.state, LIGHT, row, x))
            if len(images.transmittance):
                store_lanes(images.transmittance, pixel, rest, lanes)
            store_lanes(images.alpha, pixel, 1 - rest, lanes)
            if not len(variant.many):
                behind = repeat_scalars(background, 0, variant.features)
                sums = row_features(variant, planes.features, row, x)
                store_columns_lanes(image, pixel * count, fma_each(rest, behind, sums), lanes)


@inline
def write_many(planes, block, background, image):
    """A block's image over the background, where features are in chunks."""
    for row in range(block.rows):
        for x in range(block.columns):
            i = segment(row, x // WIDTH) + x % WIDTH
            rest = abs(load_scalar(planes.state, LIGHT + i))
            for k in range(image.shape[2]):
                value = load_scalar(planes.features, k * PIXELS + i) + rest * background[k]
                image[block.top + row, block.left + x, k] = value


@inline
def write_last(state, block, row, last_ids):
    """A row's last contributors: positions in the list of all tiles' entries."""
    y, start = block.top + row, np.int32(block.start)
    for x in range(0, block.columns, LANES):
        pixel, lanes = y * last_ids.shape[1] + block.left + x, first_lanes(block.columns - x)
        store_lanes(last_ids, pixel, row_pixels(state, LAST, row, x), lanes)
    for x in range(block.left, block.left + block.columns):  # in integers: sums may be beyond 2^24
        last = last_ids[y, x]
        last_ids[y, x] = last + start if last >= 0 else last


@inline
def write_ids(variant, state, block, ids, images):
    """What a block's image goes with; the number of pixels that a limit has cut."""
    cut = 0
    for row in range(block.rows):
        y = block.top + row
        if len(images.last_ids):
            write_last(state, block, row, images.last_ids)
        for x in range(block.columns if len(variant.extra) else 0):
            i = segment(row, x // WIDTH) + x % WIDTH
            median = np.int32(load_scalar(state, MEDIAN + i))
            images.median_ids[y, block.left + x] = ids[block.start + median] if median >= 0 else np.int32(-1)
            images.counts[y, block.left + x] = np.int32(load_scalar(state, COUNT + i))
            cut += load_scalar(state, CUT + i) > 0
    return cut


_IMAGES_TYPE = record_type(Images, "f4[:,:,::1]", "f4[:,::1]", "f4[:,::1]", *["i4[:,::1]"] * 3)
_TYPES = ("i8", "i8", RECORDS_TYPE, TILES_TYPE, "f4[::1]", record_type(Limits, "f4", "f4"), _IMAGES_TYPE)


@kernel(*((usual, *_TYPES) for usual in USUAL_VARIANTS))
def forward(variant, first_tile, last_tile, gaussians, tiles, background, limits, images):
    """Composite tiles first to last; returns the number of pixels that the limit of steps has cut."""
    chunks = chunk_count(variant, images.image.shape[2])
    planes = Planes(stack_floats(1280), feature_planes(variant, chunks * CHUNK))
    blocks = (tiles.size + SIDE - 1) // SIDE
    cut = 0
    for tile in range(first_tile, last_tile):
        for down in range(blocks):
            for across in range(blocks):
                block = block_at(tiles, tile, down, across)
                if block.rows <= 0 or block.columns <= 0:
                    continue
                if block.start == block.end:
                    write_empty(variant, block, background, images)
                    continue
                clear(variant, planes, block, chunks)
                composite(variant, gaussians, tiles.ids, block, limits, planes, chunks)
                write_images(variant, planes, block, background, images)
                if len(variant.many):
                    write_many(planes, block, background, images.image)
                cut += write_ids(variant, planes.state, block, tiles.ids, images)
    return cut
