"""From sums per tile entry to gradients per Gaussian.

Every thread takes a range of Gaussians, walks over all entries in order and adds up its own: no atomics, and the
same order of additions for any number of threads.
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

f4 = np.float32
ZERO, HALF, TWO = f4(0), f4(0.5), f4(2)


@kernel(
    "void(i8,i8,i4[::1],f4[:,::1],f4[:,::1],f4[::1],f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f4[::1],f4[:,::1])"
)
def reduce_entries(  # type: ignore[no-untyped-def]
    start, end, ids, slots, conics, opacities, v_means2d, v_conics, v_colors, v_opacities, v_depths, v_abs
):
    """Gradients of Gaussians start to end from the sums of all their entries."""
    stride = slots.shape[1]
    sums = np.zeros((end - start, stride), np.float32)
    for e in range(len(ids)):
        g = np.intp(ids[e]) - start
        if 0 <= g < end - start:
            for k in range(stride):
                sums[g, k] += slots[e, k]
    channels = v_colors.shape[1]
    ray = conics.shape[1] == 8
    features, ratios = 8, 0
    if ray:
        fixed = channels + 1 == RGBD
        features, ratios = (8, 16) if fixed else (14, 8)
    for i in range(start, end):
        s = sums[i - start]
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
