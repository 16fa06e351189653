"""Lens distortion, by OpenCV: undistorting photos, and projecting points through a camera with distortion."""

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
_HALF = 0.5  # OpenCV's pixel centres are at whole numbers, ours at half integers


class Undistortion(NamedTuple):
    """A pinhole camera, and for each of its pixels the position x and y [H, W] in the photo; ``outside`` is True
    where the photo has no pixel (None: nowhere)."""

    camera: Camera
    x: Array
    y: Array
    outside: Array | None


def undistortion(camera: Camera, lens: Lens) -> Undistortion:
    """Maps that undo a lens: same size, the largest view without empty borders."""
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


def pixels_of(camera: Camera, points: Array) -> Array:
    """The pixels [M, 2] to which a camera projects points [M, 3] in camera axes, all in front of it, through its
    lens."""
    matrix, zero = camera.intrinsics, np.zeros(3)
    if not len(points) or not camera.distortion:
        flat = points[:, :2] if camera.model == "ortho" else points[:, :2] / points[:, 2:]
        return np.asarray(flat * [camera.fx, camera.fy] + [camera.cx, camera.cy])
    local = np.ascontiguousarray(points, np.float64).reshape(-1, 1, 3)
    if camera.model == "fisheye":
        pixels, _ = cv2.fisheye.projectPoints(local, zero, zero, matrix, np.array(camera.distortion))
    else:
        pixels, _ = cv2.projectPoints(local, zero, zero, matrix, _in_opencvs_order(camera))
    return np.asarray(pixels.reshape(-1, 2))


def slopes_of(camera: Camera, pixels: Array) -> Array:
    """x / z and y / z [M, 2] of a camera's rays at pixels [M, 2], through its lens."""
    if not len(pixels) or not camera.distortion:
        return np.asarray((pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy])
    places = np.ascontiguousarray(pixels, np.float64).reshape(-1, 1, 2)
    if camera.model == "fisheye":
        slopes = cv2.fisheye.undistortPoints(places, camera.intrinsics, np.array(camera.distortion))
    else:
        slopes = cv2.undistortPoints(places, camera.intrinsics, _in_opencvs_order(camera))
    return np.asarray(slopes.reshape(-1, 2))


def _in_opencvs_order(camera: Camera) -> Array:
    k1, k2, k3, k4, k5, k6, p1, p2 = camera.distortion
    return np.array([k1, k2, p1, p2, k3, k4, k5, k6])
