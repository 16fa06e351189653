"""Footprints by exact evaluation along rays, for LANES Gaussians at once, forward and backward.

The formulas and names are those of the reference (``backends/reference/ray.py``, which explains them); what differs
between a pinhole and an orthographic camera is in the functions that are chosen by the camera's type.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from stipple.backends.cpu.camera import Ortho, Pinhole
from stipple.backends.cpu.compile import chosen_by_type, inline, record_type
from stipple.backends.cpu.pose import (
    columns_times,
    combined,
    cross,
    dot,
    each_times,
    plus,
    rotated,
    rotated_back,
    rows_times,
    times,
)
from stipple.backends.cpu.simd import absolute, all_finite, broadcast, maximum, sqrt, where

f4 = np.float32
ZERO, ONE, TWO, INFINITY = f4(0), f4(1), f4(2), f4(np.inf)

Ray = namedtuple("Ray", "")
RAY_TYPE = record_type(Ray)


# --- functions that depend on the camera model ------------------------------------------------------------
@inline
def _pinhole_ray(camera, m, point):
    """The lever, with which moments are formed, and the direction of the ray through the mean."""
    lever = times(-ONE, rows_times(m, point))
    return lever, times(-ONE / point[2], lever)


@inline
def _ortho_ray(camera, m, point):
    direction = m[2::3]
    return direction, direction


@inline
def _pinhole_denominator(camera, direction, cx, cy):
    """The five numbers of the denominator, without the factor ``norm``."""
    return dot(direction, cx), dot(direction, cy), dot(cx, cx), dot(cx, cy), dot(cy, cy)


@inline
def _ortho_denominator(camera, direction, cx, cy):
    zero = broadcast(ZERO)
    return zero, zero, zero, zero, zero


@inline
def _pinhole_denominator_backward(camera, direction, cx, cy, v):
    """Gradients of the direction and of its change per pixel, from the gradient of the five numbers."""
    vp, vq, ve, vf, vg = v
    return (
        combined(vp, cx, vq, cy),
        plus(times(vp, direction), combined(TWO * ve, cx, vf, cy)),
        plus(times(vq, direction), combined(vf, cx, TWO * vg, cy)),
    )


@inline
def _ortho_denominator_backward(camera, direction, cx, cy, v):
    zero = broadcast(ZERO)
    nothing = zero, zero, zero
    return nothing, nothing, nothing


@inline
def _pinhole_ray_backward(camera, m, point, lever, v_lever, v_direction):
    """Gradients of the point, and of the columns of the matrix m."""
    per_z = ONE / point[2]
    v_lever = combined(ONE, v_lever, -per_z, v_direction)
    vx, vy, vz = columns_times(m, v_lever)
    v_point = -vx, -vy, dot(lever, v_direction) * per_z * per_z - vz
    return v_point, times(-point[0], v_lever), times(-point[1], v_lever), times(-point[2], v_lever)


@inline
def _ortho_ray_backward(camera, m, point, lever, v_lever, v_direction):
    zero = broadcast(ZERO)
    nothing = zero, zero, zero
    return nothing, nothing, nothing, plus(v_lever, v_direction)


_ray = chosen_by_type({Pinhole: _pinhole_ray, Ortho: _ortho_ray})
_denominator = chosen_by_type({Pinhole: _pinhole_denominator, Ortho: _ortho_denominator})
_denominator_backward = chosen_by_type({Pinhole: _pinhole_denominator_backward, Ortho: _ortho_denominator_backward})
_ray_backward = chosen_by_type({Pinhole: _pinhole_ray_backward, Ortho: _ortho_ray_backward})


# --- footprints -------------------------------------------------------------------------------------------
@inline
def _camera_to_unit(pose, axes, scales):
    """M = diag(1/scales) A^T R^T, row by row."""
    x, y, z = rotated(pose, axes[0::3]), rotated(pose, axes[1::3]), rotated(pose, axes[2::3])
    return (*times(ONE / scales[0], x), *times(ONE / scales[1], y), *times(ONE / scales[2], z))


@inline
def _terms(pose, camera, point, axes, scales):
    """M, the lever and the direction, one over its square, and the change per pixel in x and in y."""
    m = _camera_to_unit(pose, axes, scales)
    lever, direction = _ray(camera, m, point)
    return (
        m,
        lever,
        direction,
        ONE / dot(direction, direction),
        times(ONE / camera.fx, m[0::3]),
        times(ONE / camera.fy, m[1::3]),
    )


@inline
def ray_footprint(mode, pose, camera, point, axes, scales):
    """Conic, compensation, nothing (extents are the conic's), and which footprints exist."""
    _, lever, direction, norm, cx, cy = _terms(pose, camera, point, axes, scales)
    mx, my = cross(lever, cx), cross(lever, cy)
    p, q, e, f, g = _denominator(camera, direction, cx, cy)
    a, b, c = norm * dot(mx, mx), norm * dot(mx, my), norm * dot(my, my)
    p, q, e, f, g = norm * p, norm * q, norm * e, norm * f, norm * g
    # a flat Gaussian has no unit frame, and one over an infinite scale would be finite
    exists = (scales[0] > ZERO) & (scales[1] > ZERO) & (scales[2] > ZERO) & all_finite(scales)
    exists = exists & (absolute(a + b + c + p + q + e + f + g) < INFINITY)
    return (a, b, c, p, q, e, f, g), broadcast(ONE), (), exists


@inline
def ray_extents(conic, k, u, v, size):
    """Extent per axis, measured from the mean, of the region in which sigma <= k / 2: the whole image if it is not an
    ellipse."""
    a, b, c = conic[0] - k * conic[5], conic[1] - k * conic[6], conic[2] - k * conic[7]
    p, r = -(k * conic[3]), -(k * conic[4])
    det = a * c - b * b
    x, y = (b * r - c * p) / det, (b * p - a * r) / det
    top = maximum(k - (p * x + r * y), ZERO) / det
    ellipse = (a > ZERO) & (det > ZERO)
    return (
        where(ellipse, absolute(x) + sqrt(c * top), absolute(u) + (size.width + ONE)),
        where(ellipse, absolute(y) + sqrt(a * top), absolute(v) + (size.height + ONE)),
    )


@inline
def ray_backward(mode, pose, camera, point, axes, scales, v_conic, v_compensation):
    """Gradients of points, axes and scales, of the pose's rotation, and of the camera."""
    m, lever, direction, norm, cx, cy = _terms(pose, camera, point, axes, scales)
    mx, my = cross(lever, cx), cross(lever, cy)
    p, q, e, f, g = _denominator(camera, direction, cx, cy)
    va, vb, vc, vp, vq, ve, vf, vg = v_conic
    v_norm = (
        va * dot(mx, mx) + vb * dot(mx, my) + vc * dot(my, my)
        + vp * p + vq * q + ve * e + vf * f + vg * g
    )  # fmt: skip
    v_mx, v_my = combined(TWO * norm * va, mx, norm * vb, my), combined(norm * vb, mx, TWO * norm * vc, my)
    v_lever = plus(cross(cx, v_mx), cross(cy, v_my))
    v_cx, v_cy = cross(v_mx, lever), cross(v_my, lever)
    v_direction = times(-(TWO * norm * norm * v_norm), direction)
    more_direction, more_cx, more_cy = _denominator_backward(
        camera, direction, cx, cy, (norm * vp, norm * vq, norm * ve, norm * vf, norm * vg)
    )
    v_direction, v_cx, v_cy = plus(v_direction, more_direction), plus(v_cx, more_cx), plus(v_cy, more_cy)
    v_point, g0, g1, g2 = _ray_backward(camera, m, point, lever, v_lever, v_direction)
    zero = broadcast(ZERO)
    v_camera = -(dot(cx, v_cx) / camera.fx), -(dot(cy, v_cy) / camera.fy), zero, zero
    # columns of the gradient of M = B R^T with B = diag(1/scales) A^T
    g0, g1 = plus(g0, times(ONE / camera.fx, v_cx)), plus(g1, times(ONE / camera.fy, v_cy))
    inverse = ONE / scales[0], ONE / scales[1], ONE / scales[2]
    b0, b1, b2 = each_times(axes[0:3], inverse), each_times(axes[3:6], inverse), each_times(axes[6:9], inverse)
    v_rotation = (
        dot(g0, b0), dot(g0, b1), dot(g0, b2), dot(g1, b0), dot(g1, b1), dot(g1, b2),
        dot(g2, b0), dot(g2, b1), dot(g2, b2),
    )  # fmt: skip
    # rows of the gradient of B, one for each axis of the Gaussian
    t0 = rotated_back(pose, (g0[0], g1[0], g2[0]))
    t1 = rotated_back(pose, (g0[1], g1[1], g2[1]))
    t2 = rotated_back(pose, (g0[2], g1[2], g2[2]))
    v_axes = (
        *each_times((t0[0], t1[0], t2[0]), inverse),
        *each_times((t0[1], t1[1], t2[1]), inverse),
        *each_times((t0[2], t1[2], t2[2]), inverse),
    )
    v_scales = (
        -((b0[0] * t0[0] + b1[0] * t0[1] + b2[0] * t0[2]) * inverse[0]),
        -((b0[1] * t1[0] + b1[1] * t1[1] + b2[1] * t1[2]) * inverse[1]),
        -((b0[2] * t2[0] + b1[2] * t2[1] + b2[2] * t2[2]) * inverse[2]),
    )
    return v_point, v_axes, v_scales, v_rotation, v_camera
