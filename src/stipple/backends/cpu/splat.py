"""The splat ops on the CPU: structured operands in, kernels on all threads, structured results out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu import binning, harmonics, projection, rasterization, reduction
from stipple.backends.cpu.threads import Threads
from stipple.backends.host.camera_check import check_camera
from stipple.backends.host.checks import check_sorted_ids, check_tile_ranges
from stipple.errors import LimitWarning
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import CONIC_LENGTH, PASS_THROUGH

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


def prepare(x: Sequence[Array], attrs: Attrs, threads: Threads) -> list[Array]:
    """Results of splat_prepare."""
    means, quats, scales, opacities, colors, viewmat, intrinsics, clip = x[:_OPERANDS]
    camera = _camera_vector(viewmat, intrinsics, clip, attrs)
    ray, count, degree = attrs["projection"] == "ray", len(means), attrs["sh_degree"]
    means2d = np.empty((count, 2), np.float32)
    conics = np.empty((count, CONIC_LENGTH[attrs["projection"]]), np.float32)
    seen, depths = np.empty(count, np.float32), np.empty(count, np.float32)
    radii = np.empty((count, 2), np.int32)
    out_colors = np.empty((count, colors.shape[-1]), np.float32)
    eps2d, cutoff = np.float32(attrs["eps2d"]), np.float32(attrs["alpha_cutoff"])
    position = _position(camera)

    def run(start: int, end: int) -> None:
        projection.project(
            start,
            end,
            means,
            quats,
            scales,
            opacities,
            camera,
            ray,
            attrs["antialiased"],
            eps2d,
            cutoff,
            means2d,
            conics,
            seen,
            depths,
            radii,
        )
        if degree == PASS_THROUGH:
            harmonics.copy_colors(start, end, colors, radii, means2d, conics, seen, depths, out_colors)
        else:
            harmonics.evaluate(
                start, end, means, colors, position, degree, radii, means2d, conics, seen, depths, out_colors
            )

    threads.blocks(count, _BLOCK, run)
    order = binning.depth_order(radii, depths, threads)
    ranges, ids = binning.bin_into_tiles(order, means2d, conics, seen, radii, attrs, threads)
    return [means2d, conics, out_colors, seen, depths, radii, ranges, ids]


def prepare_backward(x: Sequence[Array], attrs: Attrs, threads: Threads) -> list[Array]:
    """Gradients of splat_prepare's first seven operands."""
    means, quats, scales, opacities, colors, viewmat, intrinsics, clip = x[:_OPERANDS]
    radii, v_means2d, v_conics, v_colors, v_opacities, v_depths = x[_OPERANDS:]
    camera = _camera_vector(viewmat, intrinsics, clip, attrs)
    ray, count, degree = attrs["projection"] == "ray", len(means), attrs["sh_degree"]
    made = [np.empty_like(a) for a in (means, quats, scales, opacities)]
    o_colors = np.empty_like(colors)
    eps2d, position = np.float32(attrs["eps2d"]), _position(camera)
    sums = np.zeros((max(1, -(-count // _BLOCK)), projection.CAMERA_GRADIENT))

    def run(start: int, end: int) -> None:
        v_cam = sums[start // _BLOCK]
        projection.project_backward(
            start,
            end,
            means,
            quats,
            scales,
            opacities,
            camera,
            ray,
            attrs["antialiased"],
            eps2d,
            radii,
            v_means2d,
            v_conics,
            v_opacities,
            v_depths,
            *made,
            v_cam,
        )
        if degree == PASS_THROUGH:
            seen = (radii[start:end] > 0).all(axis=1, keepdims=True)
            o_colors[start:end] = np.where(seen, v_colors[start:end], np.float32(0))
        else:
            harmonics.evaluate_backward(
                start, end, means, colors, position, degree, radii, v_colors, made[0], o_colors, v_cam
            )

    threads.blocks(count, _BLOCK, run)
    return [*made, o_colors, *_camera_gradient(sums.sum(axis=0), camera)]


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


def rasterize(x: Sequence[Array], attrs: Attrs, threads: Threads) -> list[Array]:
    """Results of splat_rasterize."""
    means2d, conics, colors, opacities, depths, background, ranges, ids = x
    check_prepared(means2d, ranges, ids)
    height, width, channels = attrs["height"], attrs["width"], colors.shape[1]
    ray, fixed = rasterization.variant(attrs["projection"], channels + 1)
    rgba = np.empty((height, width, channels + 1), np.float32)
    depth, transmittance = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    last_ids = np.empty((height, width), np.int32)
    cuts: list[int] = []

    def run(start: int, end: int) -> None:
        cuts.append(
            rasterization.forward(
                ray,
                fixed,
                start,
                end,
                ranges,
                ids,
                means2d,
                conics,
                opacities,
                colors,
                depths,
                background,
                attrs["tile_size"],
                _log_cutoff(attrs),
                np.float32(attrs["transmittance_threshold"]),
                np.float32(attrs["max_splat_steps"]),
                _planes(channels + 1),
                rgba,
                depth,
                transmittance,
                last_ids,
            )
        )

    threads.spread(len(ranges), run, per_thread=16)
    if sum(cuts):
        warnings.warn(
            f"splat_rasterize: max_splat_steps = {attrs['max_splat_steps']} cut {sum(cuts)} of {height * width} pixels",
            LimitWarning,
            stacklevel=2,
        )
    return [rgba, depth, transmittance, last_ids]


def rasterize_backward(
    x: Sequence[Array], attrs: Attrs, threads: Threads, used: Sequence[bool] = (True,)
) -> list[Array]:
    """Gradients of splat_rasterize's float operands, and the 2D means' absolute one (zeros if that is not used)."""
    means2d, conics, colors, opacities, depths, _, ranges, ids = x[:8]
    rgba, depth, transmittance, last_ids, v_rgba, v_depth = x[8:]
    check_prepared(means2d, ranges, ids)
    features = colors.shape[1] + 1
    ray, fixed = rasterization.variant(attrs["projection"], features)
    slots = threads.scratch("slots", (len(ids), rasterization.slot_length(attrs["projection"], features)))

    def run(start: int, end: int) -> None:
        rasterization.backward(
            ray,
            fixed,
            start,
            end,
            ranges,
            ids,
            means2d,
            conics,
            opacities,
            colors,
            depths,
            rgba,
            depth,
            transmittance,
            last_ids,
            v_rgba,
            v_depth,
            attrs["tile_size"],
            _log_cutoff(attrs),
            used[-1],
            _planes(features),
            slots,
        )

    threads.spread(len(ranges), run, per_thread=16)
    made = [np.empty_like(a) for a in (means2d, conics, colors, opacities, depths, means2d)]

    reduction.reduce_entries(ids, slots, conics, opacities, made, threads)
    return [*made[:5], _background_gradient(v_rgba, transmittance), made[5]]


def _background_gradient(v_rgba: Array, transmittance: Array) -> Array:
    """The image's gradient weighted by what light is left, summed row by row in float64."""
    rows = np.matmul(transmittance[:, None, :], v_rgba[:, :, :-1])
    return np.asarray(rows.sum(axis=(0, 1), dtype=np.float64), np.float32)


# --- fused ------------------------------------------------------------------------------------------------
def render(x: Sequence[Array], attrs: Attrs, threads: Threads) -> list[Array]:
    """Results of splat_render: prepare, then rasterize."""
    made = prepare(x, attrs, threads)
    return rasterize([*made[:5], x[_OPERANDS], *made[6:]], attrs, threads)[:2]


def render_backward(x: Sequence[Array], attrs: Attrs, threads: Threads, used: Sequence[bool] = (True,)) -> list[Array]:
    """Gradients of splat_render's operands, and of the 2D means."""
    made = prepare(x, attrs, threads)
    operands = [*made[:5], x[_OPERANDS], *made[6:]]
    v_rgba, v_depth = x[-2:]
    images = rasterize(operands, attrs, threads)
    v = rasterize_backward([*operands, *images, v_rgba, v_depth], attrs, threads, used)
    back = prepare_backward([*x[:_OPERANDS], made[5], *v[:5]], attrs, threads)
    return [*back, v[5], v[0], v[6]]
