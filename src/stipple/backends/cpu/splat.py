"""The splat ops on the CPU: structured operands in, kernels on all threads, structured results out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu import binning, harmonics, projection, rasterization, reduction
from stipple.backends.cpu.threads import Threads
from stipple.backends.host.camera_check import check_camera
from stipple.backends.host.checks import check_sorted_ids, check_tile_ranges
from stipple.errors import LimitWarning
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import (
    CONIC_LENGTH,
    BinOperands,
    BinResults,
    ProjectBackwardOperands,
    ProjectBackwardResults,
    ProjectOperands,
    ProjectResults,
    RasterizeBackwardOperands,
    RasterizeBackwardResults,
    RasterizeOperands,
    RasterizeResults,
    ShBackwardOperands,
    ShBackwardResults,
    ShOperands,
    ShResults,
)

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
_BLOCK = 8192
_OPERANDS = 8


def _camera_vector(viewmat: Array, intrinsics: Array, clip: Array, attrs: Attrs) -> Array:
    """The camera as the projection kernels take it."""
    check_camera(viewmat, intrinsics, clip)
    focal, center = intrinsics[[0, 1], [0, 1]].astype(np.float64), intrinsics[:2, 2].astype(np.float64)
    size = np.array([attrs["width"], attrs["height"]], np.float64)
    margin = nx.JACOBIAN_MARGIN * 0.5 * size / focal
    low, high = -center / focal - margin, (size - center) / focal + margin
    parts = [viewmat[:3, :3].ravel(), viewmat[:3, 3], focal, center, clip, size, low, high]
    return np.concatenate(parts).astype(np.float32)


def _position(camera: Array) -> Array:
    """The camera's centre in the world."""
    rotation = camera[:9].reshape(3, 3).astype(np.float64)
    return np.asarray(-rotation.T @ camera[9:12], np.float32)


def project(x: ProjectOperands, attrs: Attrs, threads: Threads) -> ProjectResults:
    camera = _camera_vector(x.viewmat, x.intrinsics, x.clip, attrs)
    count = len(x.means)
    r = ProjectResults(
        means2d=np.empty((count, 2), np.float32),
        conics=np.empty((count, CONIC_LENGTH[attrs["projection"]]), np.float32),
        depths=np.empty(count, np.float32),
        radii=np.empty((count, 2), np.int32),
        compensation=np.empty(count, np.float32),
    )
    eps2d, cutoff = np.float32(attrs["eps2d"]), np.float32(attrs["alpha_cutoff"])
    ray = attrs["projection"] == "ray"

    def run(start: int, end: int) -> None:
        projection.project(
            start, end, x.means, x.quats, x.scales, x.opacities, camera, ray, attrs["antialiased"], eps2d, cutoff,
            r.means2d, r.conics, r.compensation, r.depths, r.radii,
        )  # fmt: skip

    threads.blocks(count, _BLOCK, run)
    visible = r.radii[:, 0] > 0
    np.divide(r.compensation, x.opacities, out=r.compensation, where=visible)
    return r


def project_backward(x: ProjectBackwardOperands, attrs: Attrs, threads: Threads) -> ProjectBackwardResults:
    camera = _camera_vector(x.viewmat, x.intrinsics, x.clip, attrs)
    count, ray, eps2d = len(x.means), attrs["projection"] == "ray", np.float32(attrs["eps2d"])
    made = [np.empty_like(a) for a in (x.means, x.quats, x.scales, x.opacities)]
    sums = np.zeros((max(1, -(-count // _BLOCK)), projection.CAMERA_GRADIENT))
    v_opacities = np.divide(x.v_compensation, x.opacities)

    def run(start: int, end: int) -> None:
        projection.project_backward(
            start, end, x.means, x.quats, x.scales, x.opacities, camera, ray, attrs["antialiased"], eps2d, x.radii,
            x.v_means2d, x.v_conics, v_opacities, x.v_depths, *made, sums[start // _BLOCK],
        )  # fmt: skip

    threads.blocks(count, _BLOCK, run)
    return ProjectBackwardResults._make(
        [*made[:3], *_camera_gradient(sums.sum(axis=0), camera), np.zeros_like(x.distortion)]
    )


def sh(x: ShOperands, attrs: Attrs, threads: Threads) -> ShResults:
    count, position = len(x.means), _position(_view_vector(x.viewmat))
    out = np.empty((count, x.sh.shape[2]), np.float32)
    radii = x.radii.copy()
    spare = (
        np.empty((count, 2), np.float32),
        np.empty((count, 3), np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
    )
    threads.blocks(
        count,
        _BLOCK,
        lambda s, e: harmonics.evaluate(s, e, x.means, x.sh, position, attrs["sh_degree"], radii, *spare, out),
    )
    out[(radii[:, 0] == 0) & (x.radii[:, 0] > 0)] = np.nan
    return ShResults(out)


def sh_backward(x: ShBackwardOperands, attrs: Attrs, threads: Threads) -> ShBackwardResults:
    camera = _view_vector(x.viewmat)
    count, position = len(x.means), _position(camera)
    radii = x.radii.copy()
    radii[~np.isfinite(x.sh).all(axis=(1, 2))] = 0
    v_means, v_sh = np.zeros_like(x.means), np.empty_like(x.sh)
    sums = np.zeros((max(1, -(-count // _BLOCK)), projection.CAMERA_GRADIENT))
    threads.blocks(
        count,
        _BLOCK,
        lambda s, e: harmonics.evaluate_backward(
            s, e, x.means, x.sh, position, attrs["sh_degree"], radii, x.v_colors, v_means, v_sh, sums[s // _BLOCK]
        ),
    )
    return ShBackwardResults(v_means, v_sh, _camera_gradient(sums.sum(axis=0), camera)[0])


def _view_vector(viewmat: Array) -> Array:
    return np.concatenate([viewmat[:3, :3].ravel(), viewmat[:3, 3]]).astype(np.float32)


def bin_tiles(x: BinOperands, attrs: Attrs, threads: Threads) -> BinResults:
    order = binning.depth_order(x.radii, x.depths, threads)
    return BinResults(*binning.bin_into_tiles(order, x.means2d, x.conics, x.opacities, x.radii, attrs, threads))


def _camera_gradient(total: Array, camera: Array) -> tuple[Array, Array]:
    """Gradients of viewmat and intrinsics from the kernels' sums."""
    rotation, translation = camera[:9].reshape(3, 3).astype(np.float64), camera[9:12].astype(np.float64)
    v_position = total[16:19]
    v_viewmat, v_intrinsics = np.zeros((4, 4), np.float32), np.zeros((3, 3), np.float32)
    v_viewmat[:3, :3] = total[:9].reshape(3, 3) - np.outer(translation, v_position)
    v_viewmat[:3, 3] = total[9:12] - rotation @ v_position
    v_intrinsics[0, 0], v_intrinsics[1, 1] = total[12:14]
    v_intrinsics[:2, 2] = total[14:16]
    return v_viewmat, v_intrinsics


# --- rasterize --------------------------------------------------------------------------------------------
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
