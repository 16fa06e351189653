"""Footprints by exact evaluation along rays, forward and backward.

In a Gaussian's unit frame, where it is a sphere, half the squared distance between its mean and a pixel's ray is
the exponent sigma, as in 3DGUT (Wu et al., "3DGUT: Enabling Distorted Cameras and Secondary Rays in Gaussian
Splatting", 2025). With a ray affine in the pixel it is a ratio of two quadratics around the projected mean: the
eight numbers of a conic. For a pixel's offset (dx, dy) from that mean,

* a pinhole's rays leave one origin o in the direction d + dx cx + dy cy, and the squared distance is
  |dx (o x cx) + dy (o x cy)|^2 / |d + dx cx + dy cy|^2;
* an orthographic camera's rays are parallel to d and shift by dx cx + dy cy, and it is
  |dx (d x cx) + dy (d x cy)|^2 / |d|^2: the denominator is constant, and the last five numbers are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stipple.backends.reference.camera import Camera, CameraGradient
from stipple.backends.reference.gaussians import Posed, PosedGradient

Array = np.ndarray


@dataclass
class RayFootprints:
    """Conics [n, 8], and what the backward pass needs. All but ``to_unit`` is in the Gaussians' unit frames."""

    conics: Array
    to_unit: Array  # world axes to unit frame: B = diag(1/s) axes^T
    camera_to_unit: Array  # M = B R^T
    column_x: Array  # change of the ray's direction per pixel in x (ortho: of its origin)
    column_y: Array
    direction: Array  # of the ray through the projected mean
    norm: Array  # 1 / |direction|^2
    lever: Array  # first factor of the moments: the camera's centre (ortho: the direction)
    moment_x: Array  # lever x column_x
    moment_y: Array


def footprints(posed: Posed, camera: Camera) -> RayFootprints:
    """Footprints of Gaussians in front of a camera."""
    to_unit = np.swapaxes(posed.axes, 1, 2) / posed.scales[:, :, None]
    m = to_unit @ camera.rotation.T
    column_x, column_y = m[:, :, 0] / camera.focal[0], m[:, :, 1] / camera.focal[1]
    if camera.model == "ortho":
        direction = lever = m[:, :, 2]
    else:
        lever = -np.einsum("nij,nj->ni", m, posed.points)
        direction = -lever / posed.points[:, 2:]
    norm = 1 / _dot(direction, direction)
    moment_x, moment_y = np.cross(lever, column_x), np.cross(lever, column_y)
    numerator = [_dot(moment_x, moment_x), _dot(moment_x, moment_y), _dot(moment_y, moment_y)]
    if camera.model == "ortho":
        denominator = [np.zeros_like(norm)] * 5
    else:
        denominator = [
            _dot(direction, column_x),
            _dot(direction, column_y),
            _dot(column_x, column_x),
            _dot(column_x, column_y),
            _dot(column_y, column_y),
        ]
    conics = norm[:, None] * np.column_stack([*numerator, *denominator])
    return RayFootprints(conics, to_unit, m, column_x, column_y, direction, norm, lever, moment_x, moment_y)


def footprints_backward(
    posed: Posed, camera: Camera, t: RayFootprints, v_conics: Array, into: CameraGradient
) -> PosedGradient:
    """Gradients of Gaussians in front of a camera."""
    va, vb, vc, vp, vq, ve, vf, vg = (v_conics[:, i : i + 1] for i in range(8))
    s = t.norm[:, None]
    v_norm = np.sum(v_conics * t.conics, axis=1, keepdims=True) / s
    v_direction = -2 * s**2 * v_norm * t.direction
    v_moment_x = s * (2 * va * t.moment_x + vb * t.moment_y)
    v_moment_y = s * (vb * t.moment_x + 2 * vc * t.moment_y)
    v_lever = np.cross(t.column_x, v_moment_x) + np.cross(t.column_y, v_moment_y)
    v_column_x, v_column_y = np.cross(v_moment_x, t.lever), np.cross(v_moment_y, t.lever)
    if camera.model == "ortho":
        v_points = np.zeros_like(posed.points)
        v_matrix = np.zeros_like(t.camera_to_unit)
        v_matrix[:, :, 2] = v_direction + v_lever
    else:
        v_direction = v_direction + s * (vp * t.column_x + vq * t.column_y)
        v_column_x = v_column_x + s * (vp * t.direction + 2 * ve * t.column_x + vf * t.column_y)
        v_column_y = v_column_y + s * (vq * t.direction + vf * t.column_x + 2 * vg * t.column_y)
        z = posed.points[:, 2:]
        v_lever = v_lever - v_direction / z
        v_matrix = -v_lever[:, :, None] * posed.points[:, None, :]
        v_points = -np.einsum("nij,ni->nj", t.camera_to_unit, v_lever)
        v_points[:, 2] += _dot(t.lever, v_direction) / z[:, 0] ** 2
    v_matrix[:, :, 0] += v_column_x / camera.focal[0]
    v_matrix[:, :, 1] += v_column_y / camera.focal[1]
    into.focal -= np.array([np.sum(t.column_x * v_column_x), np.sum(t.column_y * v_column_y)]) / camera.focal
    into.rotation += np.einsum("nij,nik->jk", v_matrix, t.to_unit)
    v_to_unit = v_matrix @ camera.rotation
    v_axes = np.swapaxes(v_to_unit / posed.scales[:, :, None], 1, 2)
    return PosedGradient(v_points, v_axes, -np.sum(t.to_unit * v_to_unit, axis=2) / posed.scales)


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.sum(a * b, axis=-1))
