"""The pose of a camera, and 3-vectors of LANES Gaussians at once."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from stipple.backends.cpu.compile import inline, record_type

Array = np.ndarray
f4 = np.float32

# World to camera: the rotation's rows, then the translation, in float32.
Pose = namedtuple("Pose", "r00 r01 r02 r10 r11 r12 r20 r21 r22 t0 t1 t2")
POSE_LENGTH = len(Pose._fields)
POSE_TYPE = record_type(Pose, *["f4"] * POSE_LENGTH)


def pose_record(viewmat: Array) -> Any:
    """The pose of a viewmat."""
    return Pose(*map(f4, viewmat[:3, :3].ravel()), *map(f4, viewmat[:3, 3]))


def pose_gradient(sums: Array) -> Array:
    """The gradient of a viewmat from the sums of a pose's gradient."""
    v_viewmat = np.zeros((4, 4), np.float32)
    v_viewmat[:3, :3], v_viewmat[:3, 3] = sums[:9].reshape(3, 3), sums[9:12]
    return v_viewmat


@inline
def to_camera(pose, mean):
    """World points in camera space."""
    x, y, z = rotated(pose, mean)
    return x + pose.t0, y + pose.t1, z + pose.t2


@inline
def rotated(pose, a):
    """R a"""
    return (
        a[0] * pose.r00 + a[1] * pose.r01 + a[2] * pose.r02,
        a[0] * pose.r10 + a[1] * pose.r11 + a[2] * pose.r12,
        a[0] * pose.r20 + a[1] * pose.r21 + a[2] * pose.r22,
    )


@inline
def rotated_back(pose, a):
    """R^T a"""
    return (
        a[0] * pose.r00 + a[1] * pose.r10 + a[2] * pose.r20,
        a[0] * pose.r01 + a[1] * pose.r11 + a[2] * pose.r21,
        a[0] * pose.r02 + a[1] * pose.r12 + a[2] * pose.r22,
    )


@inline
def to_camera_backward(mean, v):
    """Gradient of a pose from the gradient of points in camera space."""
    vx, vy, vz = v
    m0, m1, m2 = mean
    return vx * m0, vx * m1, vx * m2, vy * m0, vy * m1, vy * m2, vz * m0, vz * m1, vz * m2, vx, vy, vz


# --- vectors of three -------------------------------------------------------------------------------------
@inline
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@inline
def times(s, a):
    return s * a[0], s * a[1], s * a[2]


@inline
def combined(s, a, t, b):
    """s a + t b"""
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@inline
def each_times(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@inline
def rows_times(matrix, a):
    """A matrix (row by row) times a vector."""
    return dot(matrix[0:3], a), dot(matrix[3:6], a), dot(matrix[6:9], a)


@inline
def columns_times(matrix, a):
    """The transpose of a matrix (row by row) times a vector."""
    return dot(matrix[0::3], a), dot(matrix[1::3], a), dot(matrix[2::3], a)
