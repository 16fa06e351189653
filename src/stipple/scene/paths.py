"""Camera paths for viewing a scene: a camera that frames it, an orbit around a point, a flight through cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline, interp1d
from scipy.spatial.transform import Rotation, Slerp

from stipple.scene.camera import USUAL_FOV, Camera
from stipple.scene.gaussians import Gaussians

Array = np.ndarray
UP = (0.0, -1.0, 0.0)
_FRAMED_SHARE = 0.95
_SPLINE_FROM = 4


def framing(scene: Gaussians) -> tuple[Array, float]:
    """Centre [3] and radius of the box that holds most of a scene."""
    low, high = scene.bounds(_FRAMED_SHARE)
    radius = 0.5 * float(np.linalg.norm(high - low))
    return (low + high) / 2, radius if radius > 0 else 1.0


def framing_camera(
    scene: Gaussians,
    size: tuple[int, int],
    fov: float = USUAL_FOV,
    *,
    position: ArrayLike | None = None,
    target: ArrayLike | None = None,
    up: ArrayLike = UP,
) -> Camera:
    """A camera of ``size`` (width, height) pixels and a vertical field of view in degrees, at ``position`` and looking
    at ``target``; by default at the scene's centre, from a distance along -z at which the scene fills the image."""
    width, height = size
    center, radius = framing(scene)
    aim = center if target is None else np.asarray(target, float)
    camera = Camera.from_fov(width, height, fov)
    if position is None:
        narrow = np.arctan(min(1.0, width / height) * np.tan(np.deg2rad(fov) / 2))
        position = aim - np.array([0, 0, radius / np.sin(narrow)])
    return camera.look_at(position, aim, up)


def orbit(camera: Camera, target: ArrayLike, up: ArrayLike, frames: int) -> list[Camera]:
    """The camera moved once around ``target`` about the axis ``up``, in ``frames`` frames, looking at it."""
    aim, axis = np.asarray(target, float), np.asarray(up, float)
    angles = 2 * np.pi * np.arange(1, frames) / frames
    arms = Rotation.from_rotvec(np.outer(angles, axis / np.linalg.norm(axis))).apply(camera.position - aim)
    return [camera, *(camera.look_at(aim + arm, aim, axis) for arm in arms)]


def flight(cameras: Sequence[Camera], frames: int) -> list[Camera]:
    """A path through all cameras in their order, in ``frames`` frames, with the first one's lens."""
    base = cameras[0]
    if len(cameras) == 1:
        return [base] * frames
    at, times = np.arange(len(cameras)), np.linspace(0, len(cameras) - 1, frames)
    positions = np.array([c.position for c in cameras])
    along = CubicSpline(at, positions) if len(cameras) >= _SPLINE_FROM else interp1d(at, positions, axis=0)
    rotations = Slerp(at, Rotation.from_matrix([c.viewmat[:3, :3] for c in cameras]))
    path = []
    for t in times:
        viewmat = np.eye(4)
        viewmat[:3, :3] = rotations(t).as_matrix()
        viewmat[:3, 3] = -viewmat[:3, :3] @ along(t)
        path.append(replace(base, viewmat=viewmat))
    return path
