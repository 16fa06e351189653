"""From sums per tile entry to gradients per Gaussian.

Every task takes a few columns of the sums (and, with many threads, a range of Gaussians) and walks over all
entries in order: no atomics, and the same order of additions for any number of threads.
"""

from __future__ import annotations

import numpy as np

from stipple.backends.cpu.compile import kernel
from stipple.backends.cpu.rasterization import (
    LOG2E,
    RGBD,
    SUM_ABS_X,
    SUM_ABS_Y,
    SUM_V,
    SUM_X,
    SUM_XX,
    SUM_XY,
    SUM_Y,
    SUM_YY,
)
from stipple.backends.cpu.threads import Threads

Array = np.ndarray
f4 = np.float32
ZERO, HALF, TWO = f4(0), f4(0.5), f4(2)


COLUMNS = 4
"""Sums are added up in groups of this many columns; a task takes one or more groups."""


@kernel("void(i8,i8,i8,i8,i4[::1],f4[:,::1],f4[:,::1])")
def add_entries(first, last, start, end, ids, slots, sums):
    """Add columns first to last of all entries to the sums of Gaussians start to end, in order."""
    stride = slots.shape[1]
    source, target = slots.reshape(-1), sums.reshape(-1)
    everything = start == 0 and end == len(sums)
    for e in range(len(ids)):
        g = np.intp(ids[e])
        if everything or start <= g < end:
            for column in range(first, last, COLUMNS):
                i, o = e * stride + column, g * stride + column
                target[o] += source[i]
                target[o + 1] += source[i + 1]
                target[o + 2] += source[i + 2]
                target[o + 3] += source[i + 3]


@kernel("void(i8,i8,f4[:,::1],f4[:,::1],f4[::1],f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f4[::1],f4[:,::1])")
def finish(start, end, sums, conics, opacities, v_means2d, v_conics, v_colors, v_opacities, v_depths, v_abs):
    """Gradients of Gaussians start to end from their summed entries."""
    channels = v_colors.shape[1]
    ray = conics.shape[1] == 8
    features, ratios = 8, 0
    if ray:
        fixed = channels + 1 == RGBD
        features, ratios = (8, 16) if fixed else (14, 8)
    for i in range(start, end):
        s = sums[i]
        a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
        v_opacities[i] = s[SUM_V] / opacities[i] if opacities[i] > ZERO else ZERO
        v_conics[i, 0] = -HALF * s[SUM_XX]
        v_conics[i, 1] = -s[SUM_XY]
        v_conics[i, 2] = -HALF * s[SUM_YY]
        vx, vy = a * s[SUM_X] + b * s[SUM_Y], b * s[SUM_X] + c * s[SUM_Y]
        if ray:
            # the denominator's sums carry a factor -log2(e): see the rasterizer
            d1, dx, dy, dxx, dxy, dyy = (
                s[ratios],
                s[ratios + 1],
                s[ratios + 2],
                s[ratios + 3],
                s[ratios + 4],
                s[ratios + 5],
            )
            scale = TWO / LOG2E
            vx += scale * (conics[i, 3] * d1 + conics[i, 5] * dx + conics[i, 6] * dy)
            vy += scale * (conics[i, 4] * d1 + conics[i, 6] * dx + conics[i, 7] * dy)
            v_conics[i, 3] = -scale * dx
            v_conics[i, 4] = -scale * dy
            v_conics[i, 5] = -HALF * scale * dxx
            v_conics[i, 6] = -scale * dxy
            v_conics[i, 7] = -HALF * scale * dyy
        v_means2d[i, 0] = vx
        v_means2d[i, 1] = vy
        v_abs[i, 0] = s[SUM_ABS_X]
        v_abs[i, 1] = s[SUM_ABS_Y]
        for k in range(channels):
            v_colors[i, k] = s[features + k]
        v_depths[i] = s[features + channels]


def reduce_entries(
    ids: Array, slots: Array, conics: Array, opacities: Array, made: list[Array], threads: Threads
) -> None:
    """Fill gradients of means2d, conics, colors, opacities, depths and the magnitudes of means2d's."""
    count, stride = len(conics), slots.shape[1]
    sums = np.zeros((count, stride), np.float32)
    groups = min(stride // COLUMNS, threads.count)
    cuts = [stride // COLUMNS * i // groups * COLUMNS for i in range(groups + 1)]
    ranges = -(-threads.count // groups)
    step = -(-max(count, 1) // ranges)

    def add(start: int, end: int) -> None:
        for task in range(start, end):
            part, group = divmod(task, groups)
            where = (part * step, min((part + 1) * step, count))
            add_entries(cuts[group], cuts[group + 1], *where, ids, slots, sums)

    threads.blocks(groups * ranges, 1, add)
    threads.spread(count, lambda s, e: finish(s, e, sums, conics, opacities, *made))
