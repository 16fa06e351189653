"""Reduction of the sums of each tile entry to the gradients of each Gaussian.

Every task handles a range of Gaussians and reads all entries in order: no atomics, and the same order of additions for
any number of threads. Entries that no pixel has processed have no sums, and are skipped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stipple.backends.cpu.compile import kernel, record_type
from stipple.backends.cpu.composite_backward import SLOTS_TYPE, Slots
from stipple.backends.cpu.footprint import LOG2E, USUAL_VARIANTS, Variant
from stipple.backends.cpu.moments import first_feature
from stipple.backends.cpu.simd import LANES, load, load_scalar, prefetch, store
from stipple.backends.cpu.threads import Threads

Array = np.ndarray
f4 = np.float32

ZERO, HALF, INFINITY = f4(0), f4(0.5), f4(np.inf)
BATCH = 512
"""Entries that are searched at a time."""
AHEAD = 8


class GaussianGradients(NamedTuple):
    """Results of ``finish``."""

    means2d: Array
    conics: Array
    opacities: Array
    features: Array
    means2d_abs: Array


_SPAN, _ROWS, _COLUMN = ("i8", "i8"), "f4[:,::1]", "f4[::1]"
_GRADIENTS_TYPE = record_type(GaussianGradients, _ROWS, _ROWS, _COLUMN, _ROWS, _ROWS)


@kernel((*_SPAN, "i4[:,::1]", "i4[::1]", SLOTS_TYPE, _ROWS))
def add_entries(start, end, ranges, ids, slots, sums):
    """Add the sums of all entries of Gaussians start to end, in order, to their rows of ``sums`` (whole vectors)."""
    width = sums.shape[1]
    totals = sums.reshape(-1)
    for i in range(start * width, end * width, LANES):
        store(totals, i, ZERO)
    mine = np.empty(BATCH + AHEAD, np.int64)
    for tile in range(len(ranges)):
        first, count = np.intp(ranges[tile, 0]), slots.walked[tile]
        for batch in range(0, count, BATCH):
            # found without a branch, for where the next one lies cannot be predicted
            found = 0
            for entry in range(batch, min(batch + BATCH, count)):
                mine[found] = entry
                gaussian = np.intp(load_scalar(ids, first + entry))
                found += (gaussian >= start) & (gaussian < end)
            mine[found : found + AHEAD] = mine[max(found - 1, 0)]
            for j in range(found):
                prefetch(totals, np.intp(load_scalar(ids, first + mine[j + AHEAD])) * width)
                gaussian = np.intp(load_scalar(ids, first + mine[j]))
                source = (slots.offsets[tile] + mine[j]) * slots.stride
                for k in range(0, width, LANES):
                    target = gaussian * width + k
                    store(totals, target, load(totals, target) + load(slots.sums, source + k))


@kernel(*((usual, *_SPAN, _ROWS, _ROWS, _COLUMN, _GRADIENTS_TYPE) for usual in USUAL_VARIANTS))
def finish(variant, start, end, sums, conics, opacities, made):
    """Gradients of Gaussians start to end from their sums."""
    features = first_feature(variant)
    for i in range(start, end):
        total, x, y, xx, xy, yy = sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3], sums[i, 4], sums[i, 5]
        a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
        made.opacities[i] = total / opacities[i] if opacities[i] > ZERO else ZERO
        made.conics[i, 0] = -HALF * xx
        made.conics[i, 1] = -xy
        made.conics[i, 2] = -HALF * yy
        v_x, v_y = a * x + b * y, b * x + c * y
        if len(variant.ray):
            # the exponent is in powers of two, and so are the denominator's sums
            scale = f4(-2) / LOG2E
            one, x, y = scale * sums[i, 6], scale * sums[i, 7], scale * sums[i, 8]
            xx, xy, yy = scale * sums[i, 9], scale * sums[i, 10], scale * sums[i, 11]
            p, q, e, f, g = conics[i, 3], conics[i, 4], conics[i, 5], conics[i, 6], conics[i, 7]
            v_x -= p * one + e * x + f * y
            v_y -= q * one + f * x + g * y
            made.conics[i, 3] = x
            made.conics[i, 4] = y
            made.conics[i, 5] = HALF * xx
            made.conics[i, 6] = xy
            made.conics[i, 7] = HALF * yy
        drawn = abs(v_x) + abs(v_y) < INFINITY  # 0 times what is not finite, where a footprint was skipped
        made.means2d[i, 0] = v_x if drawn else ZERO
        made.means2d[i, 1] = v_y if drawn else ZERO
        if len(variant.extra):
            made.means2d_abs[i, 0] = sums[i, features - 2]
            made.means2d_abs[i, 1] = sums[i, features - 1]
        for k in range(made.features.shape[1]):
            made.features[i, k] = sums[i, features + k]


def add_up(ranges: Array, ids: Array, slots: Slots, count: int, threads: Threads) -> Array:
    """Sums of each of ``count`` Gaussians; columns after those of the slots are undefined."""
    sums = threads.scratch("sums", (count, -(-slots.stride // LANES) * LANES))
    step = max(1, -(-count // threads.count))
    threads.blocks(count, step, lambda start, end: add_entries(start, end, ranges, ids, slots, sums))
    return sums


def gradients(
    kind: Variant, sums: Array, conics: Array, opacities: Array, made: GaussianGradients, threads: Threads
) -> None:
    """Fill the Gaussians' gradients from their sums."""
    threads.spread(len(sums), lambda start, end: finish(kind, start, end, sums, conics, opacities, made))
