"""splat_rasterize and its gradients: a loop over tiles and their Gaussians in depth order, all pixels at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stipple import numerics as nx
from stipple.backends.host.checks import check_sorted_ids, check_tile_ranges
from stipple.errors import LimitWarning
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import (
    RasterizeBackwardOperands,
    RasterizeBackwardResults,
    RasterizeOperands,
    RasterizeResults,
)

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
_MEDIAN = 0.5


@dataclass
class _Tile:
    """A tile: its number, its rows and columns, and its pixel centres."""

    number: int
    area: tuple[slice, slice]
    x: Array
    y: Array


def _tiles(attrs: Attrs) -> Iterator[_Tile]:
    size, width, height = attrs["tile_size"], attrs["width"], attrs["height"]
    number = 0
    for top in range(0, height, size):
        for left in range(0, width, size):
            area = (slice(top, min(top + size, height)), slice(left, min(left + size, width)))
            y, x = np.mgrid[area] + 0.5
            yield _Tile(number, area, x, y)
            number += 1


@dataclass
class _Footprint:
    """One Gaussian at the pixels of a tile."""

    hits: Array  # where it contributes if the pixel is not finished
    alpha: Array
    falloff: Array  # exp(-sigma)
    free: Array  # where alpha is not clamped to MAX_ALPHA
    sigma: Array
    dx: Array
    dy: Array
    ratio: Array  # the denominator of sigma; 1 in ewa


def _footprint(g: RasterizeOperands | RasterizeBackwardOperands, i: int, tile: _Tile, attrs: Attrs) -> _Footprint:
    conic, opacity = g.conics[i], g.opacities[i]
    with np.errstate(all="ignore"):  # footprints that are not finite contribute nowhere
        dx, dy = tile.x - g.means2d[i, 0], tile.y - g.means2d[i, 1]
        power = 0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) + conic[1] * dx * dy
        ratio = np.ones_like(dx)
        if attrs["projection"] == "ray":
            p, q, e, f, h = conic[3:]
            ratio = 1 + 2 * (p * dx + q * dy) + e * dx * dx + 2 * f * dx * dy + h * dy * dy
        sigma = np.where(ratio > 0, power / ratio, np.inf)
        falloff = np.exp(-sigma)
        raw = opacity * falloff
        alpha = np.minimum(raw, nx.MAX_ALPHA)
        finite = np.isfinite([*g.means2d[i], *conic, opacity, *g.features[i]]).all()
        definite = conic[0] > 0 and conic[0] * conic[2] - conic[1] ** 2 > 0
        inside = finite & definite & (sigma <= 0.5 * nx.EXTENT_SIGMA**2)
        hits = inside & (alpha >= attrs["alpha_cutoff"]) & (alpha > 0)
        return _Footprint(hits, alpha, falloff, raw < nx.MAX_ALPHA, sigma, dx, dy, ratio)


def _check_lists(g: RasterizeOperands | RasterizeBackwardOperands) -> None:
    """Raise InputError if an index is out of range; nothing is read out of bounds."""
    check_sorted_ids(g.sorted_ids, len(g.means2d))
    check_tile_ranges(g.tile_ranges, len(g.sorted_ids))


# --- forward ----------------------------------------------------------------------------------------------
def rasterize(g: RasterizeOperands, attrs: Attrs) -> RasterizeResults:
    """Results of splat_rasterize."""
    _check_lists(g)
    size = (attrs["height"], attrs["width"])
    result = RasterizeResults(
        image=np.zeros((*size, g.features.shape[1])),
        alpha=np.zeros(size),
        transmittance=np.ones(size),
        last_ids=np.full(size, -1, np.int32),
        median_ids=np.full(size, -1, np.int32),
        counts=np.zeros(size, np.int32),
    )
    cut = sum(_composite(g, tile, result, attrs) for tile in _tiles(attrs))
    result.image[...] += result.transmittance[:, :, None] * g.background
    result.alpha[...] = 1 - result.transmittance
    if cut:
        warnings.warn(
            f"splat_rasterize: max_splat_steps = {attrs['max_splat_steps']} cut {cut} of {size[0] * size[1]} pixels",
            LimitWarning,
            stacklevel=2,
        )
    return result


def _composite(g: RasterizeOperands, tile: _Tile, result: RasterizeResults, attrs: Attrs) -> int:
    """One tile's pixels, without the background; returns how many ``max_splat_steps`` cut short."""
    image, t, last, median, counts = (
        a[tile.area] for a in (result.image, result.transmittance, result.last_ids, result.median_ids, result.counts)
    )
    alive = np.ones(t.shape, bool)
    max_steps, cut = attrs["max_splat_steps"] or np.inf, 0
    for entry in range(*g.tile_ranges[tile.number]):
        i = g.sorted_ids[entry]
        footprint = _footprint(g, i, tile, attrs)
        after = t * (1 - footprint.alpha)
        candidates = alive & footprint.hits
        stops = candidates & (after <= attrs["transmittance_threshold"])
        over = candidates & ~stops & (counts >= max_steps)
        cut += int(np.sum(over))
        alive &= ~(stops | over)
        takes = candidates & ~stops & ~over
        if takes.any():
            image += np.where(takes, footprint.alpha * t, 0.0)[:, :, None] * g.features[i]
        median[takes & (t > _MEDIAN)] = i  # the last contributor while more than half of the light is left
        t[takes] = after[takes]
        counts[takes] += 1
        last[takes] = entry
        if not alive.any():
            break
    return cut


# --- backward ---------------------------------------------------------------------------------------------
def rasterize_backward(g: RasterizeBackwardOperands, attrs: Attrs) -> RasterizeBackwardResults:
    """Gradients of splat_rasterize, back to front through each tile; transmittance is undone one Gaussian at a time."""
    _check_lists(g)
    result = RasterizeBackwardResults(
        v_means2d=np.zeros_like(g.means2d),
        v_conics=np.zeros_like(g.conics),
        v_opacities=np.zeros_like(g.opacities),
        v_features=np.zeros_like(g.features),
        v_background=np.einsum("hwf,hw->f", g.v_image, g.transmittance),
        v_means2d_abs=np.zeros_like(g.means2d),
    )
    for tile in _tiles(attrs):
        _composite_backward(g, tile, result, attrs)
    return result


def _composite_backward(
    g: RasterizeBackwardOperands, tile: _Tile, result: RasterizeBackwardResults, attrs: Attrs
) -> None:
    start, end = g.tile_ranges[tile.number]
    last, v_image = g.last_ids[tile.area], g.v_image[tile.area]
    t = g.transmittance[tile.area].copy()
    # The derivative of the loss with respect to the light that reaches this depth, times that light: from the
    # background and alpha, then from each Gaussian behind.
    behind = t * (v_image @ g.background - g.v_alpha[tile.area])
    for entry in range(min(end, int(last.max()) + 1) - 1, start - 1, -1):
        i = g.sorted_ids[entry]
        footprint = _footprint(g, i, tile, attrs)
        takes = footprint.hits & (entry <= last)
        if not takes.any():
            continue
        before = np.where(takes, t / (1 - footprint.alpha), t)
        weight = np.where(takes, footprint.alpha * before, 0.0)
        own = v_image @ g.features[i]
        v_alpha = np.where(takes, before * own - behind / (1 - footprint.alpha), 0.0)
        result.v_features[i] += np.einsum("hw,hwf->f", weight, v_image)
        _footprint_backward(g, i, footprint, np.where(footprint.free, v_alpha, 0.0), result)
        behind = behind + weight * own
        t = before


def _footprint_backward(
    g: RasterizeBackwardOperands, i: int, footprint: _Footprint, v_alpha: Array, result: RasterizeBackwardResults
) -> None:
    """From the gradient of a Gaussian's alpha per pixel to those of its opacity, conic and mean."""
    used = v_alpha != 0
    falloff, sigma, ratio = (np.where(used, a, 0.0) for a in (footprint.falloff, footprint.sigma, footprint.ratio))
    result.v_opacities[i] += np.sum(v_alpha * falloff)
    v_sigma = -v_alpha * g.opacities[i] * falloff
    dx, dy, conic = footprint.dx, footprint.dy, g.conics[i]
    v_power = np.where(used, v_sigma / np.where(used, ratio, 1.0), 0.0)
    v_conic = [0.5 * v_power * dx * dx, v_power * dx * dy, 0.5 * v_power * dy * dy]
    v_dx = v_power * (conic[0] * dx + conic[1] * dy)
    v_dy = v_power * (conic[1] * dx + conic[2] * dy)
    if len(conic) > 3:  # projection="ray"
        v_ratio = -sigma * v_power
        p, q, e, f, h = conic[3:]
        v_conic += [v_ratio * m for m in (2 * dx, 2 * dy, dx * dx, 2 * dx * dy, dy * dy)]
        v_dx = v_dx + 2 * v_ratio * (p + e * dx + f * dy)
        v_dy = v_dy + 2 * v_ratio * (q + f * dx + h * dy)
    result.v_conics[i] += [np.sum(v) for v in v_conic]
    result.v_means2d[i] -= [np.sum(v_dx), np.sum(v_dy)]
    result.v_means2d_abs[i] += [np.sum(np.abs(v_dx)), np.sum(np.abs(v_dy))]
