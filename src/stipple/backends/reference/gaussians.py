"""Gaussians in world space and in camera space: the part that all projections share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stipple.backends.host import geometry
from stipple.backends.reference.camera import Camera, CameraGradient

Array = np.ndarray


@dataclass
class Gaussians:
    """Means [n, 3] in the world, quaternions [n, 4], scales [n, 3] and opacities [n]."""

    means: Array
    quats: Array
    scales: Array
    opacities: Array

    def subset(self, ids: Array) -> Gaussians:
        return Gaussians(self.means[ids], self.quats[ids], self.scales[ids], self.opacities[ids])


@dataclass
class Posed:
    """Gaussians in front of a camera: means [n, 3] in camera space, axes [n, 3, 3] in the world (in columns),
    scales."""

    points: Array
    axes: Array
    scales: Array


@dataclass
class PosedGradient:
    """Gradients of the fields of ``Posed``."""

    points: Array
    axes: Array
    scales: Array


def pose(g: Gaussians, camera: Camera) -> Posed:
    """Gaussians in front of a camera."""
    axes = geometry.rotation_matrices(geometry.normalise(g.quats))
    return Posed(camera.to_camera(g.means), axes, g.scales)


def pose_backward(g: Gaussians, camera: Camera, v: PosedGradient, into: CameraGradient) -> tuple[Array, Array]:
    """Gradients of means and quaternions; those of the camera's pose are added to ``into``."""
    into.rotation += v.points.T @ g.means
    into.translation += v.points.sum(axis=0)
    v_unit = geometry.rotation_matrices_backward(geometry.normalise(g.quats), v.axes)
    return v.points @ camera.rotation, geometry.normalise_backward(g.quats, v_unit)
