"""The loop that CPU renderers commonly use, one pixel and one Gaussian at a time: the baseline of our benchmarks.

It is compiled by the same compiler with the same precision, over tile lists built from squares around the means, as
such renderers build them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

Array = np.ndarray


class Splats(NamedTuple):
    """Projected Gaussians: means2d [N, 2], conics [N, 3], colors [N, 3], opacities [N], depths [N]."""

    means2d: Array
    conics: Array
    colors: Array
    opacities: Array
    depths: Array


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def scalar_loop(ranges, ids, splats, size, image):  # type: ignore[no-untyped-def]
    """Composite pixel by pixel, Gaussian by Gaussian."""
    means2d, conics, colors, opacities, depths = splats
    height, width = image.shape[:2]
    across = (width + size - 1) // size
    for y in range(height):
        for x in range(width):
            tile = (y // size) * across + x // size
            light, r, g, b, d = np.float32(1), np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for e in range(ranges[tile, 0], ranges[tile, 1]):
                i = ids[e]
                dx = np.float32(x) + np.float32(0.5) - means2d[i, 0]
                dy = np.float32(y) + np.float32(0.5) - means2d[i, 1]
                power = np.float32(0.5) * (conics[i, 0] * dx * dx + conics[i, 2] * dy * dy) + conics[i, 1] * dx * dy
                alpha = min(np.float32(0.99), opacities[i] * math.exp(-power))
                if alpha < np.float32(1 / 255):
                    continue
                after = light * (np.float32(1) - alpha)
                if after <= np.float32(1e-4):
                    break
                weight = alpha * light
                r += weight * colors[i, 0]
                g += weight * colors[i, 1]
                b += weight * colors[i, 2]
                d += weight * depths[i]
                light = after
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = r, g, b
            image[y, x, 3], image[y, x, 4] = np.float32(1) - light, d


@njit(nogil=True, cache=True, error_model="numpy")
def box_lists(order, means2d, radii, tiling, count_only, ranges, ids):  # type: ignore[no-untyped-def]
    """Tile lists as such renderers build them: a square around the mean, with the larger radius."""
    width, height, size = tiling
    across, down = (width + size - 1) // size, (height + size - 1) // size
    total = 0
    for i in order:
        r = float(max(radii[i, 0], radii[i, 1]))
        x0, x1 = max(0, int((means2d[i, 0] - r) // size)), min(across, int((means2d[i, 0] + r) // size) + 1)
        y0, y1 = max(0, int((means2d[i, 1] - r) // size)), min(down, int((means2d[i, 1] + r) // size) + 1)
        for y in range(y0, y1):
            for x in range(x0, x1):
                if not count_only:
                    ids[ranges[y * across + x, 1]] = i
                ranges[y * across + x, 1] += 1
                total += 1
    return total


def boxed(order: Array, means2d: Array, radii: Array, tiling: tuple[int, int, int]) -> tuple[Array, Array]:
    """tile_ranges and sorted_ids from squares instead of ellipses; ``tiling`` is width, height, tile size."""
    width, height, size = tiling
    ranges = np.zeros((-(-width // size) * -(-height // size), 2), np.int32)
    total = box_lists(order, means2d, radii, tiling, True, ranges, np.empty(0, np.int32))
    ends = np.cumsum(ranges[:, 1])
    ranges[:, 0] = ranges[:, 1] = ends - ranges[:, 1]
    ids = np.empty(total, np.int32)
    box_lists(order, means2d, radii, tiling, False, ranges, ids)
    return ranges, ids
