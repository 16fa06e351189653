"""The look-at camera of ``splat_camera``, forward and backward, in NumPy for every device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stipple.backends.host.geometry import normalise, normalise_backward
from stipple.backends.host.kernel import Compute, Dims
from stipple.errors import InputError
from stipple.ir.attributes import AttrValue
from stipple.ir.graph import Node
from stipple.ir.ops.splat import META_PARAM_NAMES, CameraBackwardOperands, CameraOperands

Array = np.ndarray


class _LookAt(NamedTuple):
    """Intermediate vectors of a look-at camera; the unnormalised ones are needed for gradients."""

    toward: Array
    forward: Array
    side: Array
    right: Array
    down: Array


def _look_at(meta: Array) -> _LookAt:
    position, target, up = meta[0:3], meta[3:6], meta[6:9]
    toward = target - position
    if not np.linalg.norm(toward) > 0:
        raise InputError("splat_camera: camera position and target are the same point")
    forward = normalise(toward)
    side = np.cross(forward, up)
    if not np.linalg.norm(side) > 1e-9 * np.linalg.norm(up) or not np.linalg.norm(up) > 0:
        raise InputError("splat_camera: up is zero or parallel to the view direction")
    right = normalise(side)
    return _LookAt(toward, forward, side, right, np.cross(forward, right))


def _check_meta(meta: Array, attrs: Mapping[str, AttrValue]) -> None:
    fov, near, far = meta[9:12]
    if not 0 < fov < 180:
        raise InputError(f"splat_camera: fov_y must be between 0 and 180 degrees, got {fov:g}")
    if not 0 < near < far:
        raise InputError(f"splat_camera: expected 0 < near < far, got near {near:g} and far {far:g}")
    for name, given in zip(META_PARAM_NAMES, meta[15:], strict=True):
        expected = float(attrs[name])
        if abs(given - expected) > 1e-6 * max(1.0, abs(expected)):  # meta is float32
            raise InputError(f"splat_camera: meta says {name} = {given:g}, the graph was built with {expected:g}")


def camera_from_meta(meta: Array, attrs: Mapping[str, AttrValue]) -> tuple[Array, Array, Array, Array]:
    """viewmat, intrinsics, background and (near, far) of a look-at meta."""
    _check_meta(meta, attrs)
    look = _look_at(meta)
    rotation = np.stack([look.right, look.down, look.forward])
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ meta[0:3]
    width, height = attrs["width"], attrs["height"]
    focal = 0.5 * height / np.tan(0.5 * np.deg2rad(meta[9]))
    intrinsics = np.array([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]])
    return viewmat, intrinsics, meta[12:15].copy(), meta[10:12].copy()


def camera_from_meta_backward(
    meta: Array, v_viewmat: Array, v_intrinsics: Array, v_background: Array, attrs: Mapping[str, AttrValue]
) -> Array:
    """Gradient of meta: position, target, up, fov_y, background."""
    look = _look_at(meta)
    position, up = meta[0:3], meta[6:9]
    rotation = np.stack([look.right, look.down, look.forward])
    v_rotation = v_viewmat[:3, :3] - np.outer(v_viewmat[:3, 3], position)
    v_position = -rotation.T @ v_viewmat[:3, 3]
    v_right, v_down, v_forward = v_rotation
    v_forward = v_forward + np.cross(look.right, v_down)
    v_right = v_right + np.cross(v_down, look.forward)
    v_side = normalise_backward(look.side, v_right)
    v_forward = v_forward + np.cross(up, v_side)
    v_up = np.cross(v_side, look.forward)
    v_toward = normalise_backward(look.toward, v_forward)
    half = 0.5 * np.deg2rad(meta[9])
    d_focal = -0.5 * attrs["height"] / np.sin(half) ** 2 * 0.5 * np.deg2rad(1.0)
    result = np.zeros_like(meta)
    result[0:3] = v_position - v_toward
    result[3:6] = v_toward
    result[6:9] = v_up
    result[9] = d_focal * (v_intrinsics[0, 0] + v_intrinsics[1, 1])
    result[12:15] = v_background
    return result


def _camera(node: Node, x: CameraOperands, dims: Dims) -> Sequence[Array]:
    return camera_from_meta(x.meta.astype(np.float64), node.attrs)


def _camera_backward(node: Node, x: CameraBackwardOperands, dims: Dims) -> Sequence[Array]:
    meta, v_viewmat, v_intrinsics, v_background = (a.astype(np.float64) for a in x)
    return [camera_from_meta_backward(meta, v_viewmat, v_intrinsics, v_background, node.attrs)]


KERNELS: dict[str, Compute] = {
    "splat_camera": _camera,
    "splat_camera_backward": _camera_backward,
}
