"""Projection of Gaussians to footprints on the image, LANES at once, and its gradients (splat_project)."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.camera import (
    MAX_CAMERA_GRADIENT,
    PINHOLE_TYPE,
    camera_record,
    covers,
    pixel,
    pixel_backward,
)
from stipple.backends.cpu.compile import chosen_by_type, inline, kernel, record_type
from stipple.backends.cpu.ewa import EWA_TYPE, Ewa, ewa_backward, ewa_footprint
from stipple.backends.cpu.pose import (
    POSE_LENGTH,
    POSE_TYPE,
    plus,
    pose_gradient,
    pose_record,
    rotated_back,
    to_camera,
    to_camera_backward,
)
from stipple.backends.cpu.quaternion import normalized, normalized_backward, rotation, rotation_backward
from stipple.backends.cpu.ray import Ray, ray_backward, ray_extents, ray_footprint
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    accumulate,
    any_lane,
    broadcast,
    ceil,
    first_lanes,
    lane_sum_double,
    load,
    load_columns_lanes,
    load_lanes,
    log2,
    masked,
    minimum,
    sqrt,
    stack_floats,
    store,
    store_columns_lanes,
    store_lanes,
    where,
)
from stipple.backends.cpu.threads import Threads
from stipple.backends.host.camera_check import check_camera
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import (
    ProjectBackwardOperands,
    ProjectBackwardResults,
    ProjectOperands,
    ProjectResults,
)

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
f4 = np.float32
ZERO, ONE, TWO, INFINITY = f4(0), f4(1), f4(2), f4(np.inf)
EXTENT = f4(0.5 * nx.EXTENT_SIGMA**2)
MAX_RADIUS = f4(nx.MAX_RADIUS)
LN_2 = f4(math.log(2))
_BLOCK = 8192
_CHUNK = 64 * LANES
"""Gaussians whose parts of the camera's gradient are summed in float32 before they are added in float64."""
_SUMS = POSE_LENGTH + MAX_CAMERA_GRADIENT
_SUM_FLOATS = _SUMS * LANES

# Arguments of kernels: operands, the image and the limits of visibility, results.
Gaussians = namedtuple("Gaussians", "means quats scales opacities")
Frame = namedtuple("Frame", "width height near far cutoff log2_cutoff")
Footprints = namedtuple("Footprints", "means2d conics depths radii compensation")
Visible = namedtuple("Visible", "means quats scales radii")
OutputGradients = namedtuple("OutputGradients", "means2d conics depths compensation")
InputGradients = namedtuple("InputGradients", "means quats scales sums camera_used")

_SPAN, _ROWS, _COLUMN = ("i8", "i8"), "f4[:,::1]", "f4[::1]"
_GAUSSIANS_TYPE = record_type(Gaussians, _ROWS, _ROWS, _ROWS, _COLUMN)
_FRAME_TYPE = record_type(Frame, *["f4"] * len(Frame._fields))
_FOOTPRINTS_TYPE = record_type(Footprints, _ROWS, _ROWS, _COLUMN, "i4[:,::1]", _COLUMN)
_VISIBLE_TYPE = record_type(Visible, _ROWS, _ROWS, _ROWS, "i4[:,::1]")
_OUTPUT_GRADIENTS_TYPE = record_type(OutputGradients, _ROWS, _ROWS, _COLUMN, _COLUMN)
_INPUT_GRADIENTS_TYPE = record_type(InputGradients, _ROWS, _ROWS, _ROWS, "f8[::1]", "b1")


# --- functions that depend on the projection --------------------------------------------------------------
@inline
def _ewa_extents(mode, conic, spread, k, u, v, frame):
    return sqrt(k * spread[0]), sqrt(k * spread[1])


@inline
def _ray_extents(mode, conic, spread, k, u, v, frame):
    return ray_extents(conic, k, u, v, frame)


footprint = chosen_by_type({Ewa: ewa_footprint, Ray: ray_footprint})
extents = chosen_by_type({Ewa: _ewa_extents, Ray: _ray_extents})
footprint_backward = chosen_by_type({Ewa: ewa_backward, Ray: ray_backward})


# --- forward ----------------------------------------------------------------------------------------------
@inline
def _reach(frame, opacity):
    """The largest sigma at which a Gaussian of this opacity still contributes."""
    reach = broadcast(EXTENT)
    if frame.cutoff > ZERO:
        reach = minimum((log2(opacity) - frame.log2_cutoff) * LN_2, EXTENT)
    return reach


@inline
def clear_rows(array, first, count):
    """Zeros in ``count`` rows of an array [n, k]."""
    end = (first + count) * array.shape[1]
    for i in range(first * array.shape[1], end, LANES):
        store_lanes(array, i, ZERO, first_lanes(end - i))


@kernel((*_SPAN, _GAUSSIANS_TYPE, POSE_TYPE, PINHOLE_TYPE, EWA_TYPE, _FRAME_TYPE, _FOOTPRINTS_TYPE))
def project_block(start, end, x, pose, camera, mode, frame, out):
    """Footprints of Gaussians start to end; culled ones get radii 0 and zeros."""
    for i in range(start, end, LANES):
        lanes = first_lanes(end - i)
        point = to_camera(pose, load_columns_lanes(x.means, 3 * i, 3, lanes))
        z = point[2]
        opacity = load_lanes(x.opacities, i, lanes)
        ok = lanes & (z >= frame.near) & (z <= frame.far) & (opacity > ZERO) & (opacity < INFINITY)
        ok = ok & covers(camera, point)
        if not any_lane(ok):
            count = min(LANES, end - i)
            clear_rows(out.means2d, i, count)
            clear_rows(out.conics, i, count)
            clear_rows(out.radii, i, count)
            store_lanes(out.depths, i, ZERO, lanes)
            store_lanes(out.compensation, i, ZERO, lanes)
            continue
        unit, _, largest = normalized(load_columns_lanes(x.quats, 4 * i, 4, lanes))
        axes = rotation(unit[0], unit[1], unit[2], unit[3])
        scales = load_columns_lanes(x.scales, 3 * i, 3, lanes)
        u, v = pixel(camera, point)
        conic, compensation, spread, exists = footprint(mode, pose, camera, point, axes, scales)
        opacity = opacity * compensation
        reach = _reach(frame, opacity)
        rx, ry = extents(mode, conic, spread, TWO * reach, u, v, frame)
        rx, ry = minimum(ceil(rx), MAX_RADIUS), minimum(ceil(ry), MAX_RADIUS)
        ok = ok & (largest > ZERO) & exists & (reach >= ZERO) & (absolute(u + v + opacity) < INFINITY)
        ok = ok & (rx > ZERO) & (ry > ZERO)
        ok = ok & (u + rx > ZERO) & (u - rx < frame.width) & (v + ry > ZERO) & (v - ry < frame.height)
        store_columns_lanes(out.means2d, 2 * i, masked((u, v), ok), lanes)
        store_columns_lanes(out.conics, out.conics.shape[1] * i, masked(conic, ok), lanes)
        store_columns_lanes(out.radii, 2 * i, masked((rx, ry), ok), lanes)
        store_lanes(out.depths, i, where(ok, z, ZERO), lanes)
        store_lanes(out.compensation, i, where(ok, compensation, ZERO), lanes)


def project(x: ProjectOperands, attrs: Attrs, threads: Threads, out: ProjectResults) -> None:
    """Results of splat_project."""
    check_camera(x.viewmat, x.intrinsics, x.clip, x.distortion)
    cutoff = attrs["alpha_cutoff"]
    size = attrs["width"], attrs["height"]
    limits = (*x.clip, cutoff, math.log2(cutoff) if cutoff > 0 else 0)
    arguments = (
        Gaussians(x.means, x.quats, x.scales, x.opacities),
        pose_record(x.viewmat),
        camera_record(attrs["camera_model"], x.intrinsics, x.distortion, size),
        _mode(attrs),
        Frame(*map(f4, size), *map(f4, limits)),
        Footprints(*out),
    )
    threads.blocks(len(x.means), _BLOCK, lambda start, end: project_block(start, end, *arguments))


def _mode(attrs: Attrs) -> Any:
    return Ray() if attrs["projection"] == "ray" else Ewa(f4(attrs["eps2d"]), bool(attrs["antialiased"]))


# --- backward ---------------------------------------------------------------------------------------------
@inline
def _backward_vector(i, lanes, x, pose, camera, mode, v, out):
    """Gradients of LANES Gaussians, of the pose and of the camera; and which Gaussians are visible."""
    rx, ry = load_columns_lanes(x.radii, 2 * i, 2, lanes)
    visible = (rx > ZERO) & (ry > ZERO)
    mean = load_columns_lanes(x.means, 3 * i, 3, lanes)
    point = to_camera(pose, mean)
    unit, per_length, _ = normalized(load_columns_lanes(x.quats, 4 * i, 4, lanes))
    axes = rotation(unit[0], unit[1], unit[2], unit[3])
    scales = load_columns_lanes(x.scales, 3 * i, 3, lanes)
    v_conic = load_conics(mode, v.conics, i, lanes)
    v_shape, v_axes, v_scales, v_rotation, v_camera_shape = footprint_backward(
        mode, pose, camera, point, axes, scales, v_conic, load_lanes(v.compensation, i, lanes)
    )
    v_u, v_v = load_columns_lanes(v.means2d, 2 * i, 2, lanes)
    v_mean2d, v_camera_mean = pixel_backward(camera, point, v_u, v_v)
    vx, vy, vz = plus(v_shape, v_mean2d)
    v_point = vx, vy, vz + load_lanes(v.depths, i, lanes)
    v_quat = normalized_backward(unit, per_length, rotation_backward(unit, v_axes))
    store_columns_lanes(out.means, 3 * i, masked(rotated_back(pose, v_point), visible), lanes)
    store_columns_lanes(out.quats, 4 * i, masked(v_quat, visible), lanes)
    store_columns_lanes(out.scales, 3 * i, masked(v_scales, visible), lanes)
    return visible, to_camera_backward(mean, v_point), v_rotation, v_camera_mean, v_camera_shape


@inline
def _ewa_conics(mode, array, i, lanes):
    return load_columns_lanes(array, 3 * i, 3, lanes)


@inline
def _ray_conics(mode, array, i, lanes):
    return load_columns_lanes(array, 8 * i, 8, lanes)


load_conics = chosen_by_type({Ewa: _ewa_conics, Ray: _ray_conics})


@kernel((*_SPAN, _VISIBLE_TYPE, POSE_TYPE, PINHOLE_TYPE, EWA_TYPE, _OUTPUT_GRADIENTS_TYPE, _INPUT_GRADIENTS_TYPE))
def project_backward_block(start, end, x, pose, camera, mode, v, out):
    """Gradients of Gaussians start to end; the camera's is added to ``out.sums``, in a fixed order."""
    sums = stack_floats(_SUM_FLOATS)
    for chunk in range(start, end, _CHUNK):
        for k in range(_SUMS):
            store(sums, k * LANES, ZERO)
        for i in range(chunk, min(chunk + _CHUNK, end), LANES):
            lanes = first_lanes(end - i)
            rx = load_columns_lanes(x.radii, 2 * i, 2, lanes)[0]
            if not any_lane(rx > ZERO):
                count = min(LANES, end - i)
                clear_rows(out.means, i, count)
                clear_rows(out.quats, i, count)
                clear_rows(out.scales, i, count)
                continue
            visible, v_pose, v_rotation, v_mean, v_shape = _backward_vector(i, lanes, x, pose, camera, mode, v, out)
            if out.camera_used:
                accumulate(sums, 0, v_pose, visible)
                accumulate(sums, 0, v_rotation, visible)
                accumulate(sums, POSE_LENGTH * LANES, v_mean, visible)
                accumulate(sums, POSE_LENGTH * LANES, v_shape, visible)
        if out.camera_used:
            for k in range(_SUMS):
                out.sums[k] += lane_sum_double(load(sums, k * LANES))


def project_backward(x: ProjectBackwardOperands, attrs: Attrs, threads: Threads, out: ProjectBackwardResults) -> None:
    """Gradients of splat_project, without those of the camera where ``out`` has none."""
    check_camera(x.viewmat, x.intrinsics, x.clip, x.distortion)
    count = len(x.means)
    camera_used = any(a is not None for a in (out.v_viewmat, out.v_intrinsics, out.v_distortion))
    sums = np.zeros((max(1, -(-count // _BLOCK)), _SUMS))
    arguments = (
        Visible(x.means, x.quats, x.scales, x.radii),
        pose_record(x.viewmat),
        camera_record(attrs["camera_model"], x.intrinsics, x.distortion, (attrs["width"], attrs["height"])),
        _mode(attrs),
        OutputGradients(x.v_means2d, x.v_conics, x.v_depths, x.v_compensation),
    )

    def run(start: int, end: int) -> None:
        mine = InputGradients(out.v_means, out.v_quats, out.v_scales, sums[start // _BLOCK], camera_used)
        project_backward_block(start, end, *arguments, mine)

    threads.blocks(count, _BLOCK, run)
    total = sums.sum(axis=0)
    v_camera = total[POSE_LENGTH:]
    if out.v_viewmat is not None:
        out.v_viewmat[:] = pose_gradient(total)
    if out.v_intrinsics is not None:
        out.v_intrinsics[:] = 0
        out.v_intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]] = v_camera[:4]
    if out.v_distortion is not None:
        out.v_distortion[:] = v_camera[4 : 4 + len(x.distortion)]
