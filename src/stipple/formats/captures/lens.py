"""Undoing lens distortion, by OpenCV: the ideal pinhole camera, and where its pixels come from."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from stipple.errors import InputError
from stipple.formats.captures.model import Lens
from stipple.scene.camera import Camera

Array = np.ndarray
_HALF = 0.5  # OpenCV's pixel centres lie at whole numbers, ours at halves


class Undistortion(NamedTuple):
    """A pinhole camera, and for each of its pixels the place [H, W] x and y in the photo; ``outside`` is True
    where the photo has no pixel (None: nowhere)."""

    camera: Camera
    x: Array
    y: Array
    outside: Array | None


def undistortion(camera: Camera, lens: Lens) -> Undistortion:
    """How to undo a lens: same size, the largest view without empty borders."""
    numbers = (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
    matrix, x, y, outside = _maps(numbers, lens)
    fx, fy, cx, cy = matrix
    return Undistortion(replace(camera, fx=fx, fy=fy, cx=cx, cy=cy), x, y, outside)


@lru_cache(maxsize=8)
def _maps(numbers: tuple[float, ...], lens: Lens) -> tuple[tuple[float, ...], Array, Array, Array | None]:
    width, height = int(numbers[0]), int(numbers[1])
    fx, fy, cx, cy = numbers[2:]
    k = np.array([[fx, 0, cx - _HALF], [0, fy, cy - _HALF], [0, 0, 1.0]])
    d = np.array(lens.coefficients, np.float64)
    size, eye = (width, height), np.eye(3)
    try:
        if lens.fisheye:
            four = np.zeros(4)
            four[: len(d)] = d
            new = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(k, four, size, eye, balance=0.0)
            x, y = cv2.fisheye.initUndistortRectifyMap(k, four, eye, new, size, cv2.CV_32FC1)
        else:
            five = np.zeros(max(len(d), 4))
            five[: len(d)] = d
            new, _ = cv2.getOptimalNewCameraMatrix(k, five, size, 0.0)
            x, y = cv2.initUndistortRectifyMap(k, five, eye, new, size, cv2.CV_32FC1)
    except cv2.error as error:
        raise InputError(f"{_cannot_undo(lens)}: {error.err}") from None
    pinhole = (float(new[0, 0]), float(new[1, 1]), float(new[0, 2]) + _HALF, float(new[1, 2]) + _HALF)
    if not np.isfinite(pinhole).all() or min(pinhole[:2]) <= 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"{_cannot_undo(lens)}: no pinhole camera fits")
    outside = (x < -_HALF) | (y < -_HALF) | (x > width - _HALF) | (y > height - _HALF)
    return pinhole, x, y, outside if outside.any() else None


def _cannot_undo(lens: Lens) -> str:
    return f"lens: distortion with coefficients {lens.coefficients} cannot be undone"


def remap(pixels: Array, maps: Undistortion, smooth: bool = True) -> Array:
    """A photo as the pinhole camera would have taken it; without ``smooth``, nearest pixels (depth, masks)."""
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.remap(pixels, maps.x, maps.y, how, borderMode=cv2.BORDER_REPLICATE))
