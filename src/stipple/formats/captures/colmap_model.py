"""COLMAP's sparse model files, binary and text (https://colmap.github.io/format.html).

The files ``rigs`` and ``frames``, which newer versions add, are not needed: ``images`` still holds every pose.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stipple.errors import FileFormatError
from stipple.formats.reading import read_bytes, read_lines

Array = np.ndarray
_MODELS: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
_PARAMS = dict(_MODELS.values())
_MAX_NAME = 4096
_OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<u8")])
_NO_POINT = 2**64 - 1  # point ids are unsigned; text files write this one as -1


@dataclass(frozen=True)
class ModelCamera:
    """A camera: COLMAP's model name, size in pixels, and the model's parameters."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ModelImage:
    """An image: world-to-camera pose, and the ids of the points it observes."""

    name: str
    camera: int
    qvec: tuple[float, ...]
    tvec: tuple[float, ...]
    observed: Array


@dataclass(frozen=True, eq=False)
class Model:
    """A whole sparse model."""

    cameras: dict[int, ModelCamera]
    images: list[ModelImage]
    ids: Array
    points: Array
    colors: Array


def model_suffix(folder: Path) -> str | None:
    """.bin or .txt where a folder holds a model, else None."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
            return suffix
    return None


def read_model(folder: Path) -> Model:
    """Read a model; points3D may be missing. Raises FileFormatError, naming the file and the place."""
    suffix = model_suffix(folder)
    if suffix is None:
        raise FileFormatError(f"{folder}: expected cameras and images as .bin or .txt")
    files = [folder / f"{name}{suffix}" for name in ("cameras", "images", "points3D")]
    binary = suffix == ".bin"
    cameras = (_cameras_bin if binary else _cameras_txt)(files[0])
    images = (_images_bin if binary else _images_txt)(files[1])
    for image in images:
        if image.camera not in cameras:
            raise FileFormatError(
                f"{files[1]}: image {image.name!r} refers to camera {image.camera}, which does not exist"
            )
    rows = (_points_bin if binary else _points_txt)(files[2]) if files[2].is_file() else []
    ids = np.array([r[0] for r in rows], np.uint64)
    points = np.array([r[1:4] for r in rows], np.float64).reshape(-1, 3)
    colors = np.array([r[4:7] for r in rows], np.uint8).reshape(-1, 3)
    return Model(cameras, images, ids, points, colors)


# --- binary -----------------------------------------------------------------------------------------------
class _Reader:
    """Reads numbers from a binary file, never past its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, read_bytes(path), 0

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.data):
            raise FileFormatError(f"{self.path}: truncated at byte {len(self.data)}")
        self.at += size
        return struct.unpack_from("<" + form, self.data, self.at - size)

    def skip(self, size: int) -> int:
        """Skip bytes; returns where they start."""
        if self.at + size > len(self.data):
            raise FileFormatError(f"{self.path}: truncated at byte {len(self.data)}")
        self.at += size
        return self.at - size

    def count(self, smallest: int) -> int:
        """Read a number of records, and check that the rest of the file can hold them."""
        (number,) = self.take("Q")
        left = len(self.data) - self.at
        if number * smallest > left:
            raise FileFormatError(f"{self.path}: truncated: {number} records are declared, {left} bytes are left")
        return int(number)

    def name(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + _MAX_NAME)
        if end < 0:
            raise FileFormatError(f"{self.path}: an image name at byte {self.at} does not end")
        text = self.data[self.at : end].decode("utf-8", "surrogateescape")
        self.at = end + 1
        return text


def _cameras_bin(path: Path) -> dict[int, ModelCamera]:
    file, cameras = _Reader(path), {}
    for _ in range(file.count(24 + 24)):
        number, model, width, height = file.take("iiQQ")
        if model not in _MODELS:
            raise FileFormatError(f"{path}: camera {number} has the unknown model number {model}")
        name, params = _MODELS[model]
        cameras[number] = ModelCamera(name, width, height, file.take(f"{params}d"))
    return cameras


def _images_bin(path: Path) -> list[ModelImage]:
    file, images = _Reader(path), []
    for _ in range(file.count(4 + 56 + 4 + 1 + 8)):
        values = file.take("i7di")
        name = file.name()
        count = file.count(_OBSERVATION.itemsize)
        start = file.skip(count * _OBSERVATION.itemsize)
        observed = np.frombuffer(file.data, _OBSERVATION, count, start)["point"]
        images.append(ModelImage(name, values[8], values[1:5], values[5:8], observed[observed != _NO_POINT]))
    return images


def _points_bin(path: Path) -> list[tuple[float, ...]]:
    file = _Reader(path)
    points: list[tuple[float, ...]] = []
    for _ in range(file.count(8 + 24 + 3 + 8 + 8)):
        number, x, y, z, r, g, b, _error, track = file.take("Q3d3BdQ")
        file.skip(8 * track)
        points.append((number, x, y, z, r, g, b))
    return points


# --- text -------------------------------------------------------------------------------------------------
def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments; empty lines are kept, because images use them."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.startswith("#"):
            yield number, line


def _bad(path: Path, number: int, expected: str) -> FileFormatError:
    return FileFormatError(f"{path}, line {number}: expected {expected}")


def _cameras_txt(path: Path) -> dict[int, ModelCamera]:
    cameras = {}
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        try:
            key, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            params = tuple(float(w) for w in words[4:])
        except (ValueError, IndexError):
            raise _bad(path, number, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS") from None
        if model not in _PARAMS:
            raise FileFormatError(f"{path}, line {number}: unknown camera model {model!r}")
        if len(params) != _PARAMS[model]:
            raise _bad(path, number, f"{_PARAMS[model]} parameters for {model}, got {len(params)}")
        cameras[key] = ModelCamera(model, width, height, params)
    return cameras


def _images_txt(path: Path) -> list[ModelImage]:
    images: list[ModelImage] = []
    pending: tuple[str, int, tuple[float, ...], tuple[float, ...]] | None = None
    for number, line in _lines(path):
        if pending is not None:
            images.append(ModelImage(*pending, _observed(path, number, line.split())))
            pending = None
        elif line.strip():
            words = line.split(maxsplit=9)
            try:
                numbers = tuple(float(w) for w in words[1:8])
                name = words[9].rstrip()  # it may contain spaces, even several in a row
                pending = (name, int(words[8]), numbers[:4], numbers[4:])
            except (ValueError, IndexError):
                name = ""
            if not name:
                raise _bad(path, number, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
    if pending is not None:
        images.append(ModelImage(*pending, np.zeros(0, np.int64)))
    return images


def _observed(path: Path, number: int, words: list[str]) -> Array:
    try:
        ids = np.array([_NO_POINT if w == "-1" else int(w) for w in words[2::3]], np.uint64)
    except (ValueError, OverflowError):
        ids = None
    if ids is None or len(words) % 3:
        raise _bad(path, number, "X Y POINT3D_ID for each observation (each image has two lines)")
    return np.asarray(ids[ids != _NO_POINT])


def _points_txt(path: Path) -> list[tuple[float, ...]]:
    points: list[tuple[float, ...]] = []
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        try:
            color = [int(w) for w in words[4:7]]
            points.append((int(words[0]), *(float(w) for w in words[1:4]), *color))
        except (ValueError, IndexError):
            raise _bad(path, number, "POINT3D_ID X Y Z R G B ERROR TRACK") from None
        if len(color) != 3 or not all(0 <= c <= 255 for c in color):
            raise _bad(path, number, "colours from 0 to 255")
        if not 0 <= points[-1][0] <= _NO_POINT:
            raise _bad(path, number, "an id from 0 to 2^64 - 1")
    return points
