"""Compositing the Gaussians of each tile: the second half of the pipeline, forward and back.

Everything is a loop over tiles and their Gaussians in depth order, one array of pixels at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stipple import numerics as nx
from stipple.backends.host.checks import check_sorted_ids, check_tile_ranges
from stipple.errors import LimitWarning
from stipple.ir.attributes import AttrValue

Array = np.ndarray


@dataclass
class Prepared:
    """Operands of splat_rasterize."""

    means2d: Array
    conics: Array
    colors: Array
    opacities: Array
    depths: Array
    background: Array
    tile_ranges: Array
    sorted_ids: Array

    def check(self) -> None:
        """Raise InputError if an index points outside; nothing is read out of bounds."""
        check_sorted_ids(self.sorted_ids, len(self.means2d))
        check_tile_ranges(self.tile_ranges, len(self.sorted_ids))


@dataclass
class Evaluated:
    """One Gaussian at the pixels of a tile."""

    counts: Array  # where it contributes if the pixel still takes any
    alpha: Array
    falloff: Array  # exp(-sigma)
    free: Array  # where alpha is not held at MAX_ALPHA
    sigma: Array
    dx: Array
    dy: Array
    ratio: Array  # the denominator of sigma; 1 in ewa


def _evaluate(p: Prepared, i: int, x: Array, y: Array, attrs: Mapping[str, AttrValue]) -> Evaluated:
    with np.errstate(all="ignore"):  # footprints that are not finite count nowhere
        dx, dy = x - p.means2d[i, 0], y - p.means2d[i, 1]
        conic = p.conics[i]
        power = 0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) + conic[1] * dx * dy
        ratio = np.ones_like(dx)
        if attrs["projection"] == "ray":
            p_, q, e, f, g = conic[3:]
            ratio = 1 + 2 * (p_ * dx + q * dy) + e * dx * dx + 2 * f * dx * dy + g * dy * dy
        opacity = p.opacities[i]
        sigma = np.where(ratio > 0, power / ratio, np.inf)
        falloff = np.exp(-sigma)
        raw = opacity * falloff
        alpha = np.minimum(raw, nx.MAX_ALPHA)
        finite = np.isfinite([*p.means2d[i], *conic, opacity]).all()
        definite = conic[0] > 0 and conic[0] * conic[2] - conic[1] ** 2 > 0
        inside = finite & definite & (sigma <= 0.5 * nx.EXTENT_SIGMA**2)
        counts = inside & (alpha >= attrs["alpha_cutoff"]) & (alpha > 0)
        return Evaluated(counts, alpha, falloff, raw < nx.MAX_ALPHA, sigma, dx, dy, ratio)


def _tiles(attrs: Mapping[str, AttrValue]) -> Iterator[tuple[int, slice, slice, Array, Array]]:
    """Each tile's number, its rows and columns, and its pixel centres."""
    size, width, height = attrs["tile_size"], attrs["width"], attrs["height"]
    tile = 0
    for top in range(0, height, size):
        for left in range(0, width, size):
            rows, columns = slice(top, min(top + size, height)), slice(left, min(left + size, width))
            y, x = np.mgrid[rows, columns] + 0.5
            yield tile, rows, columns, x, y
            tile += 1


def rasterize(p: Prepared, attrs: Mapping[str, AttrValue]) -> tuple[Array, Array, Array, Array]:
    """rgba [H, W, C + 1], depth, transmittance [H, W] and last_ids [H, W]."""
    p.check()
    height, width, channels = attrs["height"], attrs["width"], p.colors.shape[1]
    rgba = np.zeros((height, width, channels + 1))
    depth = np.zeros((height, width))
    transmittance = np.ones((height, width))
    last_ids = np.full((height, width), -1, dtype=np.int32)
    most = attrs["max_splat_steps"] or np.inf
    cut = 0
    for tile, rows, columns, x, y in _tiles(attrs):
        t, alive = np.ones_like(x), np.ones(x.shape, dtype=bool)
        steps = np.zeros(x.shape, dtype=int)
        color, z = rgba[rows, columns, :channels], depth[rows, columns]
        for entry in range(*p.tile_ranges[tile]):
            i = p.sorted_ids[entry]
            seen = _evaluate(p, i, x, y, attrs)
            after = t * (1 - seen.alpha)
            wanted = alive & seen.counts
            stops = wanted & (after <= attrs["transmittance_threshold"])
            over = wanted & ~stops & (steps >= most)
            cut += int(np.sum(over))
            alive &= ~(stops | over)
            takes = wanted & ~stops & ~over
            weight = np.where(takes, seen.alpha * t, 0.0)
            color += weight[:, :, None] * p.colors[i]
            z += weight * p.depths[i]
            t = np.where(takes, after, t)
            steps += takes
            last_ids[rows, columns][takes] = entry
            if not alive.any():
                break
        transmittance[rows, columns] = t
    rgba[:, :, :channels] += transmittance[:, :, None] * p.background
    rgba[:, :, channels] = 1 - transmittance
    if cut:
        warnings.warn(
            f"splat_rasterize: max_splat_steps = {most} cut {cut} of {height * width} pixels",
            LimitWarning,
            stacklevel=2,
        )
    return rgba, depth, transmittance, last_ids


@dataclass
class PreparedGradients:
    """Gradients of splat_rasterize's operands, and the summed magnitudes of the 2D means' gradient."""

    means2d: Array
    conics: Array
    colors: Array
    opacities: Array
    depths: Array
    background: Array
    means2d_abs: Array


def rasterize_backward(
    p: Prepared,
    transmittance: Array,
    last_ids: Array,
    v_rgba: Array,
    v_depth: Array,
    attrs: Mapping[str, AttrValue],
) -> PreparedGradients:
    """Back to front through each tile; ``transmittance`` is undone one Gaussian at a time."""
    p.check()
    made = PreparedGradients(
        np.zeros_like(p.means2d),
        np.zeros_like(p.conics),
        np.zeros_like(p.colors),
        np.zeros_like(p.opacities),
        np.zeros_like(p.depths),
        np.einsum("hwc,hw->c", v_rgba[:, :, :-1], transmittance),
        np.zeros_like(p.means2d),
    )
    for tile, rows, columns, x, y in _tiles(attrs):
        start, end = p.tile_ranges[tile]
        last = last_ids[rows, columns]
        v_color, v_alpha = v_rgba[rows, columns, :-1], v_rgba[rows, columns, -1]
        v_z, t = v_depth[rows, columns], transmittance[rows, columns].copy()
        # How the loss changes with the light that passes everything still in front, per unit of it: what the
        # background adds and what alpha loses; then each Gaussian behind.
        behind = t * (v_color @ p.background - v_alpha)
        for entry in range(min(end, int(last.max()) + 1) - 1, start - 1, -1):
            i = p.sorted_ids[entry]
            seen = _evaluate(p, i, x, y, attrs)
            takes = seen.counts & (entry <= last)
            if not takes.any():
                continue
            before = np.where(takes, t / (1 - seen.alpha), t)
            weight = np.where(takes, seen.alpha * before, 0.0)
            own = v_color @ p.colors[i] + v_z * p.depths[i]
            v_own_alpha = np.where(takes, before * own - behind / (1 - seen.alpha), 0.0)
            made.colors[i] += np.einsum("hw,hwc->c", weight, v_color)
            made.depths[i] += np.sum(weight * v_z)
            _footprint_backward(p, i, seen, np.where(seen.free, v_own_alpha, 0.0), made, attrs)
            behind = behind + weight * own
            t = before
    return made


def _footprint_backward(
    p: Prepared,
    i: int,
    seen: Evaluated,
    v_alpha: Array,
    made: PreparedGradients,
    attrs: Mapping[str, AttrValue],
) -> None:
    """From the gradient in a Gaussian's alpha per pixel to its opacity, conic and mean."""
    used = v_alpha != 0
    falloff, sigma, ratio = (np.where(used, a, 0.0) for a in (seen.falloff, seen.sigma, seen.ratio))
    made.opacities[i] += np.sum(v_alpha * falloff)
    v_sigma = -v_alpha * p.opacities[i] * falloff
    dx, dy, conic = seen.dx, seen.dy, p.conics[i]
    v_power = np.where(used, v_sigma / np.where(used, ratio, 1.0), 0.0)
    terms = [0.5 * v_power * dx * dx, v_power * dx * dy, 0.5 * v_power * dy * dy]
    v_dx = v_power * (conic[0] * dx + conic[1] * dy)
    v_dy = v_power * (conic[1] * dx + conic[2] * dy)
    if attrs["projection"] == "ray":
        v_ratio = -sigma * v_power
        p_, q, e, f, g = conic[3:]
        terms += [v_ratio * m for m in (2 * dx, 2 * dy, dx * dx, 2 * dx * dy, dy * dy)]
        v_dx = v_dx + 2 * v_ratio * (p_ + e * dx + f * dy)
        v_dy = v_dy + 2 * v_ratio * (q + f * dx + g * dy)
    made.conics[i] += [np.sum(term) for term in terms]
    made.means2d[i] -= [np.sum(v_dx), np.sum(v_dy)]
    made.means2d_abs[i] += [np.sum(np.abs(v_dx)), np.sum(np.abs(v_dy))]
