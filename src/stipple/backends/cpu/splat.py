"""Rasterization on the CPU: structured operands in, kernels on all threads, structured results out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from stipple.backends.cpu import rasterization, reduction
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


def _log_cutoff(attrs: Attrs) -> Any:
    cutoff = attrs["alpha_cutoff"]
    return np.float32(math.log2(cutoff) if cutoff > 0 else -1e9)


def _planes(features: int) -> Array:
    """Room for a block's feature planes, where their number is not compiled in."""
    return np.empty(0 if features == rasterization.RGBD else features * rasterization.PIXELS, np.float32)


def check_prepared(means2d: Array, ranges: Array, ids: Array) -> None:
    """Raise InputError if an index points outside; kernels read without checks."""
    check_sorted_ids(ids, len(means2d))
    check_tile_ranges(ranges, len(ids))


def rasterize(x: RasterizeOperands, attrs: Attrs, threads: Threads) -> RasterizeResults:
    check_prepared(x.means2d, x.tile_ranges, x.sorted_ids)
    height, width, channels = attrs["height"], attrs["width"], x.features.shape[1] - 1
    colors, depths = np.ascontiguousarray(x.features[:, :-1]), np.ascontiguousarray(x.features[:, -1])
    ray, fixed = rasterization.variant(attrs["projection"], channels + 1)
    rgba = np.empty((height, width, channels + 1), np.float32)
    depth, transmittance = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    last_ids = np.empty((height, width), np.int32)
    cuts: list[int] = []

    def run(start: int, end: int) -> None:
        cuts.append(
            rasterization.forward(
                ray, fixed, start, end, x.tile_ranges, x.sorted_ids, x.means2d, x.conics, x.opacities, colors, depths,
                x.background[:-1], attrs["tile_size"], _log_cutoff(attrs), np.float32(attrs["transmittance_threshold"]),
                np.float32(attrs["max_splat_steps"]), _planes(channels + 1), rgba, depth, transmittance, last_ids,
            )
        )  # fmt: skip

    threads.spread(len(x.tile_ranges), run, per_thread=16)
    if sum(cuts):
        warnings.warn(
            f"splat_rasterize: max_splat_steps = {attrs['max_splat_steps']} cut {sum(cuts)} of {height * width} pixels",
            LimitWarning,
            stacklevel=2,
        )
    image = np.concatenate([rgba[..., :-1], (depth + transmittance * x.background[-1])[..., None]], axis=2)
    ids = np.zeros_like(last_ids)
    return RasterizeResults(image, 1 - transmittance, transmittance, last_ids, ids, ids.copy())


def rasterize_backward(
    x: RasterizeBackwardOperands, attrs: Attrs, threads: Threads, used: RasterizeBackwardResults
) -> RasterizeBackwardResults:
    check_prepared(x.means2d, x.tile_ranges, x.sorted_ids)
    colors, depths = np.ascontiguousarray(x.features[:, :-1]), np.ascontiguousarray(x.features[:, -1])
    features = colors.shape[1] + 1
    ray, fixed = rasterization.variant(attrs["projection"], features)
    slots = threads.scratch("slots", (len(x.sorted_ids), rasterization.slot_length(attrs["projection"], features)))
    image = np.ascontiguousarray(np.concatenate([x.image[..., :-1], (1 - x.transmittance)[..., None]], axis=2))
    # the background of the depth plane adds to what its gradient sees
    depth = np.ascontiguousarray(x.image[..., -1])
    v_rgba = np.ascontiguousarray(np.concatenate([x.v_image[..., :-1], x.v_alpha[..., None]], axis=2))
    v_depth = np.ascontiguousarray(x.v_image[..., -1])

    def run(start: int, end: int) -> None:
        rasterization.backward(
            ray, fixed, start, end, x.tile_ranges, x.sorted_ids, x.means2d, x.conics, x.opacities, colors, depths,
            image, depth, x.transmittance, x.last_ids, v_rgba, v_depth, attrs["tile_size"], _log_cutoff(attrs),
            used.v_means2d_abs, _planes(features), slots,
        )  # fmt: skip

    threads.spread(len(x.tile_ranges), run, per_thread=16)
    made = [np.empty_like(a) for a in (x.means2d, x.conics, colors, x.opacities, depths, x.means2d)]
    reduction.reduce_entries(x.sorted_ids, slots, x.conics, x.opacities, made, threads)
    v_background = np.einsum("hwf,hw->f", x.v_image, x.transmittance).astype(np.float32)
    v_features = np.column_stack([made[2], made[4]])
    return RasterizeBackwardResults(made[0], made[1], made[3], v_features, v_background, made[5])
