"""Tile lists by definition: which Gaussians a tile meets, and what a given list says of each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fuzz.splats import Layer, Sigma, Vector, reach_of, sigma_of
from fuzz.tensors import RefusedError, UndecidedError

Values = Mapping[str, Vector]
_TOUCH_MARGIN = 1e-3


def _rows(values: Values, name: str, count: int) -> list[Vector]:
    width = len(values[name]) // max(1, count)
    return [values[name][i * width : (i + 1) * width] for i in range(count)]


def refuse_bad_lists(values: Values) -> None:
    """An index outside is refused, not followed."""
    count, entries = len(values["opacities"]), len(values["sorted_ids"])
    if any(not 0 <= i < count for i in values["sorted_ids"]):
        raise RefusedError("sorted_ids: a Gaussian that is not there")
    ranges = _rows(values, "tile_ranges", len(values["tile_ranges"]) // 2)
    if any(not 0 <= start <= end <= entries for start, end in ranges):
        raise RefusedError("tile_ranges: not among the entries")


def layers_of_tiles(values: Values, attrs: Mapping[str, Any]) -> list[tuple[list[int], list[Layer]]]:
    """Of each tile the layers that its list names, and their positions in the list; without Gaussians of which a number
    is not finite, or that are no ellipse."""
    count = len(values["opacities"])
    means, conics, features = (_rows(values, n, count) for n in ("means2d", "conics", "features"))
    made = []
    for start, end in _rows(values, "tile_ranges", len(values["tile_ranges"]) // 2):
        positions, layers = [], []
        for position in range(int(start), int(end)):
            i = int(values["sorted_ids"][position])
            conic, opacity = conics[i], values["opacities"][i]
            if not all(math.isfinite(n) for n in (*means[i], *conic, opacity, *features[i])):
                continue
            if not (conic[0] > 0 and conic[0] * conic[2] - conic[1] ** 2 > 0 and opacity > 0):
                continue
            reach = reach_of(opacity, attrs["alpha_cutoff"])[0]
            positions.append(position)
            layers.append(Layer(i, (means[i][0], means[i][1]), sigma_of(conic), opacity, reach, features[i]))
        made.append((positions, layers))
    return made


# --- which tiles ------------------------------------------------------------------------------------------
def bin_tiles(values: Values, attrs: Mapping[str, Any]) -> tuple[list[tuple[int, int]], list[int]]:
    """tile_ranges and sorted_ids. Raises UndecidedError where a rounding error decides."""
    count, size = len(values["opacities"]), attrs["tile_size"]
    radii = _rows(values, "radii", count)
    visible = [i for i in range(count) if min(radii[i]) > 0]
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    entries = [
        (row * columns + column, i)
        for i in sorted(visible, key=lambda i: (values["depths"][i], i))
        for row in range(rows)
        for column in range(columns)
        if _touches(values, i, (column, row), attrs)
    ]
    entries = entries[: attrs["max_list_entries"] or len(entries)]
    ranges, ids = [], []
    for tile in range(columns * rows):
        own = [i for t, i in entries if t == tile]
        ranges.append((len(ids), len(ids) + len(own)))
        ids += own
    return ranges, ids


def _touches(values: Values, i: int, tile: tuple[int, int], attrs: Mapping[str, Any]) -> bool:
    """Whether sigma falls to a Gaussian's reach somewhere between the tile's first and last pixel centres. Not decided
    where that happens only in the part of a tile that sticks out of the image: an entry there draws nothing."""
    count, size = len(values["opacities"]), attrs["tile_size"]
    mean, radius = (_rows(values, n, count)[i] for n in ("means2d", "radii"))
    drawn, whole = [], []
    for t, m, r, length in zip(tile, mean, radius, (attrs["width"], attrs["height"]), strict=True):
        if (t + 1) * size <= m - r or t * size >= m + r:
            return False
        whole.append((t * size + 0.5 - m, (t + 1) * size - 0.5 - m))
        drawn.append((whole[-1][0], min((t + 1) * size, length) - 0.5 - m))
    reach, close = reach_of(values["opacities"][i], attrs["alpha_cutoff"])
    sigma = sigma_of(_rows(values, "conics", count)[i])
    lowest, beyond = _lowest(sigma, drawn), _lowest(sigma, whole)
    if close or any(abs(v - reach) < _TOUCH_MARGIN * (1 + abs(reach)) for v in (lowest, beyond)):
        raise UndecidedError(f"splat_bin: whether Gaussian {i} touches tile {tile}")
    if (lowest <= reach) != (beyond <= reach):
        raise UndecidedError(f"splat_bin: Gaussian {i} touches tile {tile} outside of the image")
    return lowest <= reach


def _lowest(sigma: Sigma, bounds: Sequence[tuple[float, float]]) -> float:
    """The least value on a rectangle, by halving steps of a search from its centre: sigma has one valley."""
    (x0, x1), (y0, y1) = bounds
    x, y = min(max(0.0, x0), x1), min(max(0.0, y0), y1)
    best, step = sigma(x, y), max(x1 - x0, y1 - y0, 1e-3)
    while step > 1e-7:
        around = [
            (min(max(x + step * math.cos(a), x0), x1), min(max(y + step * math.sin(a), y0), y1))
            for a in (math.tau * k / 16 for k in range(16))
        ]
        found, at = min((sigma(*p), p) for p in around)
        if found < best - 1e-12:
            best, (x, y) = found, at
        else:
            step /= 2
    return best
