"""Tile lists: the Gaussians of each tile, nearest first, as in ``splat_bin``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from stipple.backends.reference.project import support, support_quadratics
from stipple.errors import LimitWarning
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import BinListedResults, BinOperands, BinResults

Array = np.ndarray
Attrs = Mapping[str, AttrValue]


def bin_tiles(x: BinOperands, attrs: Attrs) -> BinResults:
    """tile_ranges [T, 2] and sorted_ids [E]: for each tile its Gaussians by depth, ties by index."""
    listed = bin_tiles_listed(x, attrs)
    return BinResults(listed.tile_ranges, listed.sorted_ids)


def bin_tiles_listed(x: BinOperands, attrs: Attrs) -> BinListedResults:
    """The same, and where each Gaussian's entries are."""
    size = attrs["tile_size"]
    columns = -(-attrs["width"] // size)
    tiles = columns * -(-attrs["height"] // size)
    visible = np.flatnonzero((x.radii > 0).all(axis=1))
    order = visible[np.argsort(x.depths[visible], kind="stable")]
    with np.errstate(all="ignore"):  # footprints that are not finite are handled like those that are not ellipses
        reach = support(x.opacities, attrs["alpha_cutoff"])
        quadratics = support_quadratics(x.conics, reach, attrs["projection"])
    entries = [(tile, i) for i in order for tile in _touched_tiles(x, quadratics[i], i, attrs, columns)]
    order = np.concatenate([order, np.setdiff1d(np.arange(len(x.depths)), order)])
    per_gaussian = np.bincount([i for _, i in entries], minlength=len(order))[order]
    offsets = np.concatenate([[0], np.cumsum(per_gaussian)])
    limit = attrs["max_list_entries"]
    if limit and len(entries) > limit:
        warnings.warn(
            f"splat_bin: max_list_entries = {limit} cut {len(entries) - limit} of {len(entries)} tile "
            "entries, the farthest ones",
            LimitWarning,
            stacklevel=2,
        )
        entries = entries[:limit]
    emission = sorted(range(len(entries)), key=lambda e: entries[e][0])  # stable: keeps the depth order within a tile
    entries = [entries[e] for e in emission]
    counts = np.bincount([tile for tile, _ in entries], minlength=tiles) if entries else np.zeros(tiles, int)
    ends = np.cumsum(counts)
    ranges = np.column_stack([ends - counts, ends]).astype(np.int32)
    ids = [i for _, i in entries]
    return BinListedResults(ranges, *(np.array(a, np.int32) for a in (ids, order, offsets, emission)))


def _touched_tiles(x: BinOperands, quadratic: Array, i: int, attrs: Attrs, columns: int) -> Iterator[int]:
    """Tiles with at least one pixel centre inside a footprint's region."""
    size, width, height = attrs["tile_size"], attrs["width"], attrs["height"]
    mean, radius, tiles = x.means2d[i], x.radii[i], np.array([columns, -(-height // size)])
    if not np.isfinite(mean).all():
        return
    first = np.clip(np.floor((mean - radius) / size), 0, tiles).astype(int)
    last = np.clip(np.ceil((mean + radius) / size), 0, tiles).astype(int)
    for row in range(first[1], last[1]):
        for column in range(first[0], last[0]):
            x0, y0 = column * size + 0.5 - mean[0], row * size + 0.5 - mean[1]
            x1 = min((column + 1) * size, width) - 0.5 - mean[0]
            y1 = min((row + 1) * size, height) - 0.5 - mean[1]
            if _region_touches(quadratic, x0, x1, y0, y1):
                yield row * columns + column


def _region_touches(quadratic: Array, x0: float, x1: float, y0: float, y1: float) -> bool:
    """Whether a quadratic region intersects a rectangle. A region that is not an ellipse is assumed to."""
    a, b, c, p, r, k = quadratic
    det = a * c - b * b
    if not (a > 0 and det > 0):
        return True

    def value(x: float, y: float) -> float:
        return float(a * x * x + 2 * b * x * y + c * y * y + 2 * (p * x + r * y) - k)

    center_x, center_y = (b * r - c * p) / det, (b * p - a * r) / det
    if x0 <= center_x <= x1 and y0 <= center_y <= y1:
        return value(center_x, center_y) <= 0
    on_columns = (value(x, min(max(-(b * x + r) / c, y0), y1)) for x in (x0, x1))
    on_rows = (value(min(max(-(b * y + p) / a, x0), x1), y) for y in (y0, y1))
    return min(*on_columns, *on_rows) <= 0
