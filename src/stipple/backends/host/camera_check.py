"""Checks of a camera, made by every host backend before its kernels read it."""

from __future__ import annotations

import numpy as np

from stipple.errors import InputError

Array = np.ndarray


_NO_DISTORTION = np.zeros(0)


def check_camera(viewmat: Array, intrinsics: Array, clip: Array, distortion: Array = _NO_DISTORTION) -> None:
    """Raise InputError unless these are a camera without skew, near and far distances, and finite coefficients."""
    message = camera_message(viewmat, intrinsics, clip, distortion)
    if message is not None:
        raise InputError(message)


def camera_message(viewmat: Array, intrinsics: Array, clip: Array, distortion: Array = _NO_DISTORTION) -> str | None:
    """What is wrong with a camera, if anything is."""
    if not np.allclose(viewmat[3], [0, 0, 0, 1]):
        return f"viewmat: the last row must be 0 0 0 1, got {viewmat[3]}"
    if not np.allclose(intrinsics[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [0, 0, 0, 0, 1]):
        return f"intrinsics: expected fx 0 cx / 0 fy cy / 0 0 1, got {intrinsics.tolist()}"
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0):
        focal = [float(intrinsics[0, 0]), float(intrinsics[1, 1])]
        return f"intrinsics: focal lengths must be positive, got {focal}"
    if not 0 < clip[0] < clip[1]:
        return f"clip: expected 0 < near < far, got {clip.tolist()}"
    if not np.isfinite(distortion).all():
        return f"distortion: coefficients must be finite, got {distortion.tolist()}"
    return None
