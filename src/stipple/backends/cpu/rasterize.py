"""splat_rasterize and its gradient on the CPU: named operands in, kernels on all threads, named results out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np

from stipple.backends.cpu import composite, composite_backward, footprint, moments, reduction
from stipple.backends.cpu.blocks import Tiles
from stipple.backends.cpu.footprint import CHUNK, RECORD, Gaussians, Records, Variant
from stipple.backends.cpu.simd import LANES
from stipple.backends.cpu.threads import Threads
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
f4 = np.float32
_BLOCK = 8192
_ROWS = 64


def _tiles(x: RasterizeOperands | RasterizeBackwardOperands, attrs: Attrs) -> Tiles:
    """The tiles' lists, checked: kernels read without checks."""
    check_sorted_ids(x.sorted_ids, len(x.means2d))
    check_tile_ranges(x.tile_ranges, len(x.sorted_ids))
    return Tiles(x.tile_ranges, x.sorted_ids, attrs["tile_size"], attrs["width"], attrs["height"])


def _in_chunks(features: Array, threads: Threads) -> Array:
    """Features in whole chunks, zeros after the last."""
    count, width = features.shape
    if width % CHUNK == 0:
        return features
    padded = threads.scratch("features", (count, -(-width // CHUNK) * CHUNK))
    padded[:, :width] = features
    padded[:, width:] = 0
    return padded


def _records(
    kind: Variant, x: RasterizeOperands | RasterizeBackwardOperands, attrs: Attrs, threads: Threads
) -> Records:
    """Records of all Gaussians, and where the kernels find their features."""
    count, cutoff = len(x.means2d), attrs["alpha_cutoff"]
    log_cutoff = f4(math.log2(cutoff) if cutoff > 0 else -1e9)
    records = threads.scratch("records", ((-(-count // LANES) * LANES) * RECORD,))
    gaussians = Gaussians(x.means2d, x.conics, x.opacities, x.features)
    threads.blocks(
        count, _BLOCK, lambda start, end: footprint.describe(kind, start, end, gaussians, log_cutoff, records)
    )
    if kind.many:
        features = _in_chunks(x.features, threads)
        return Records(records, features.reshape(-1), features.shape[1], 0)
    if kind.ray:
        return Records(records, x.features.reshape(-1), len(kind.features), 0)
    return Records(records, records, RECORD, footprint.RECORD_FEATURES)


def rasterize(x: RasterizeOperands, attrs: Attrs, threads: Threads, out: RasterizeResults) -> None:
    """Results of splat_rasterize, without transmittance and indices where ``out`` has none."""
    tiles = _tiles(x, attrs)
    steps = attrs["max_splat_steps"]
    more = out.median_ids is not None or out.counts is not None or steps > 0
    kind = footprint.variant(attrs["projection"] == "ray", x.features.shape[1], more)
    records = _records(kind, x, attrs, threads)
    limits = composite.Limits(f4(attrs["transmittance_threshold"]), f4(steps if steps > 0 else math.inf))
    spare = np.empty(out.alpha.shape if more else (0, 0), np.int32)
    images = composite.Images(
        image=out.image,
        alpha=out.alpha,
        transmittance=out.alpha[:0] if out.transmittance is None else out.transmittance,
        last_ids=spare[:0] if out.last_ids is None else out.last_ids,
        median_ids=spare if out.median_ids is None else out.median_ids,
        counts=spare if out.counts is None else out.counts,
    )
    cuts: list[int] = []

    def run(start: int, end: int) -> None:
        cuts.append(composite.forward(kind, start, end, records, tiles, x.background, limits, images))

    threads.spread(len(x.tile_ranges), run, per_thread=16)
    if sum(cuts):
        warnings.warn(
            f"splat_rasterize: max_splat_steps = {steps} cut {sum(cuts)} of {out.alpha.size} pixels",
            LimitWarning,
            stacklevel=2,
        )


def rasterize_backward(
    x: RasterizeBackwardOperands, attrs: Attrs, threads: Threads, out: RasterizeBackwardResults
) -> None:
    """Results of splat_rasterize_backward, without the background's gradient and magnitudes where ``out`` has none."""
    tiles = _tiles(x, attrs)
    has_magnitudes = out.v_means2d_abs is not None
    kind = footprint.variant(attrs["projection"] == "ray", x.features.shape[1], has_magnitudes)
    records = _records(kind, x, attrs, threads)
    slots = _slots(kind, x, threads)
    given = composite_backward.Gradients(x.image, x.transmittance, x.last_ids, x.v_image, x.v_alpha)
    threads.spread(
        len(x.tile_ranges),
        lambda start, end: composite_backward.backward(kind, start, end, records, tiles, given, slots),
        per_thread=16,
    )
    result = reduction.GaussianGradients(
        means2d=out.v_means2d,
        conics=out.v_conics,
        opacities=out.v_opacities,
        features=out.v_features,
        means2d_abs=out.v_means2d_abs if has_magnitudes else out.v_means2d[:0],
    )
    sums = reduction.add_up(x.tile_ranges, x.sorted_ids, slots, len(x.means2d), threads)
    reduction.gradients(kind, sums, x.conics, x.opacities, result, threads)
    if out.v_background is not None:
        out.v_background[:] = _background_gradient(x, threads)


def _slots(kind: Variant, x: RasterizeBackwardOperands, threads: Threads) -> composite_backward.Slots:
    """Space for the sums of all tiles' entries, read in whole vectors."""
    lengths = (x.tile_ranges[:, 1] - x.tile_ranges[:, 0]).astype(np.int64)
    offsets = np.cumsum(lengths) - lengths
    stride = moments.sum_count(kind, x.features.shape[1])
    sums = threads.scratch("slots", (int(lengths.sum()) * stride + LANES,))
    return composite_backward.Slots(sums, offsets, np.zeros(len(lengths), np.int64), stride)


def _background_gradient(x: RasterizeBackwardOperands, threads: Threads) -> Array:
    """The image's gradient weighted by what light is left, summed row by row in float64."""
    rows = np.empty((len(x.v_image), 1, x.v_image.shape[2]), np.float32)

    def run(start: int, end: int) -> None:
        np.matmul(x.transmittance[start:end, None, :], x.v_image[start:end], out=rows[start:end])

    threads.blocks(len(rows), _ROWS, run)
    return np.asarray(rows.sum(axis=(0, 1), dtype=np.float64))
