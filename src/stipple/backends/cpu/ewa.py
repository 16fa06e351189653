"""Footprints by the local affine approximation, for LANES Gaussians at once, forward and backward.

As in the reference (``backends/reference/ewa.py``): the covariance on the image is p p^T, p q^T, q q^T of the two rows
p, q of J R A diag(scales), with the camera's Jacobian J, its rotation R and the Gaussian's axes A.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.camera import jacobian, jacobian_backward
from stipple.backends.cpu.compile import inline, record_type
from stipple.backends.cpu.pose import (
    columns_times,
    combined,
    cross,
    dot,
    each_times,
    rotated,
    rotated_back,
    rows_times,
)
from stipple.backends.cpu.simd import absolute, broadcast, maximum, sqrt, where

f4 = np.float32
ZERO, ONE, TWO, HALF, INFINITY = f4(0), f4(1), f4(2), f4(0.5), f4(np.inf)
MIN_RATIO = f4(nx.MIN_COMPENSATION)

Ewa = namedtuple("Ewa", "eps2d antialiased")
EWA_TYPE = record_type(Ewa, "f4", "b1")


@inline
def gram(p, q):
    """Products of two vectors, xx, xy, yy, and xx * yy - xy * xy as the square of their cross product (Lagrange's
    identity): for a needle the difference would be nothing but rounding."""
    c = cross(p, q)
    return dot(p, p), dot(p, q), dot(q, q), dot(c, c)


@inline
def _image_rows(pose, camera, point, axes, scales):
    """Rows u, w of J R; a, b of J R A; p, q of J R A diag(scales)."""
    j = jacobian(camera, point)
    u, w = rotated_back(pose, j[0:3]), rotated_back(pose, j[3:6])
    a, b = columns_times(axes, u), columns_times(axes, w)
    return u, w, a, b, each_times(a, scales), each_times(b, scales)


@inline
def ewa_footprint(mode, pose, camera, point, axes, scales):
    """Conic, compensation, the covariance's diagonal, and which footprints exist."""
    _, _, _, _, p, q = _image_rows(pose, camera, point, axes, scales)
    xx, xy, yy, sharp = gram(p, q)
    blurred_x, blurred_y = xx + mode.eps2d, yy + mode.eps2d
    det = sharp + mode.eps2d * (xx + yy + mode.eps2d)
    compensation = broadcast(ONE)
    if mode.antialiased:
        compensation = sqrt(maximum(sharp / det, MIN_RATIO))
    a, b, c = blurred_y / det, -(xy / det), blurred_x / det
    exists = (det > ZERO) & (absolute(a + b + c) < INFINITY)
    return (a, b, c), compensation, (blurred_x, blurred_y), exists


@inline
def ewa_backward(mode, pose, camera, point, axes, scales, v_conic, v_compensation):
    """Gradients of points, axes and scales, of the pose's rotation, and of the camera."""
    u, w, a, b, p, q = _image_rows(pose, camera, point, axes, scales)
    xx, xy, yy, sharp = gram(p, q)
    per_det = ONE / (sharp + mode.eps2d * (xx + yy + mode.eps2d))
    ca, cb, cc = (yy + mode.eps2d) * per_det, -(xy * per_det), (xx + mode.eps2d) * per_det
    # v_cov = -C G C with C the inverse covariance
    ga, gb, gc = v_conic[0], HALF * v_conic[1], v_conic[2]
    t00, t01 = ca * ga + cb * gb, ca * gb + cb * gc
    t10, t11 = cb * ga + cc * gb, cb * gb + cc * gc
    v_xx, v_xy, v_yy = -(t00 * ca + t01 * cb), -(t00 * cb + t01 * cc), -(t10 * cb + t11 * cc)
    if mode.antialiased:
        ratio = sharp * per_det
        factor = sqrt(maximum(ratio, MIN_RATIO))
        v_ratio = where(ratio > MIN_RATIO, v_compensation / (TWO * factor), ZERO)
        v_xx += v_ratio * (yy * per_det - ratio * ca)
        v_xy += v_ratio * (-(xy * per_det) - ratio * cb)
        v_yy += v_ratio * (xx * per_det - ratio * cc)
    v_xx, v_xy, v_yy = TWO * v_xx, TWO * v_xy, TWO * v_yy
    v_p, v_q = combined(v_xx, p, v_xy, q), combined(v_xy, p, v_yy, q)
    v_scales = v_p[0] * a[0] + v_q[0] * b[0], v_p[1] * a[1] + v_q[1] * b[1], v_p[2] * a[2] + v_q[2] * b[2]
    v_a, v_b = each_times(v_p, scales), each_times(v_q, scales)
    v_axes = (*combined(u[0], v_a, w[0], v_b), *combined(u[1], v_a, w[1], v_b), *combined(u[2], v_a, w[2], v_b))
    v_u, v_w = rows_times(axes, v_a), rows_times(axes, v_b)
    j = jacobian(camera, point)
    v_rotation = (
        *combined(j[0], v_u, j[3], v_w), *combined(j[1], v_u, j[4], v_w), *combined(j[2], v_u, j[5], v_w),
    )  # fmt: skip
    v_point, v_camera = jacobian_backward(camera, point, (*rotated(pose, v_u), *rotated(pose, v_w)))
    return v_point, v_axes, v_scales, v_rotation, v_camera
