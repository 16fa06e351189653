"""RGB-D sequences with poses: the layouts of TUM, 7-Scenes and Open3D.

TUM (Sturm et al., 2012): rgb.txt, depth.txt and groundtruth.txt hold time stamps; depth counts 5000 to the metre.
7-Scenes (Shotton et al., 2013): frame-NNNNNN.color.png, .depth.png in millimetres, .pose.txt, camera to world.
Open3D:
folders color and depth, trajectory.log with a camera-to-world matrix per frame, millimetres. None of them stores
intrinsics reliably: those of the usual sensor are assumed and reported, unless a file or --intrinsics specifies them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.formats.captures.folder import CaptureFolder
from stipple.formats.captures.layouts.base import CaptureLayout, CaptureOptions, Intrinsics, capture_layout
from stipple.formats.captures.layouts.nerf import inverse_pose
from stipple.formats.captures.model import Capture, View, checked_capture
from stipple.formats.captures.pixels import IMAGE_SUFFIXES, stored_sizes
from stipple.formats.reading import read_lines, read_text
from stipple.scene.camera import Camera, rotation_of

Array = np.ndarray
_FREIBURG: dict[str, Intrinsics] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_PRIMESENSE: Intrinsics = (525.0, 525.0, 319.5, 239.5)
_SEVEN_SCENES: Intrinsics = (585.0, 585.0, 320.0, 240.0)
_SENSOR_SIZE = (640, 480)
_FILES = ("camera-intrinsics.txt", "intrinsics.txt", "camera.txt", "calibration.txt")
_MAX_GAP = 0.02


@dataclass(frozen=True)
class _Sensor:
    """What a layout assumes if nothing else is specified."""

    intrinsics: Intrinsics
    depth_scale: float


def is_rgbd(root: Path) -> bool:
    """Whether a folder has one of the three layouts."""
    return _is_tum(root) or bool(_seven_scenes_poses(root)) or (root / "trajectory.log").is_file()


def load_rgbd(
    root: Path, intrinsics: Intrinsics | None = None, depth_scale: float | None = None, allow_outside: bool = False
) -> Capture:
    """Read an RGB-D sequence. ``intrinsics`` are fx, fy, cx, cy in pixels of the colour images."""
    folder = CaptureFolder(root, allow_outside)
    if _is_tum(root):
        kind, rows = "TUM RGB-D", _tum(folder)
        known = next((v for k, v in _FREIBURG.items() if k in root.resolve().name), _PRIMESENSE)
        sensor = _Sensor(known, 5000.0)
    elif poses := _seven_scenes_poses(root):
        kind, rows, sensor = "7-Scenes RGB-D", _seven_scenes(poses), _Sensor(_SEVEN_SCENES, 1000.0)
    else:
        kind, rows, sensor = "Open3D RGB-D", _open3d(root), _Sensor(_PRIMESENSE, 1000.0)
    if not rows:
        raise FileFormatError(f"{root}: the {kind} sequence holds no frame with colour and pose")
    found, notes = _intrinsics(root, intrinsics, sensor)
    scale = sensor.depth_scale if depth_scale is None else depth_scale
    views = []
    for color, depth, pose in rows:
        try:
            camera = _camera(color, found, intrinsics is not None, inverse_pose(pose))
        except InputError as error:
            raise FileFormatError(f"{color}: {error}") from None
        views.append(View(folder.name(color), color, camera, depth=depth, depth_scale=scale))
    return checked_capture(root, kind, views, notes=notes)


def _camera(color: Path, values: Intrinsics, exact: bool, viewmat: Array) -> Camera:
    """Intrinsics of the sensor are for 640 x 480 pixels; specified ones are for the images' own size."""
    size = stored_sizes(color)[0]
    camera = Camera(*(size if exact else _SENSOR_SIZE), *values, viewmat)
    return camera.resized(*size)


def _intrinsics(root: Path, given: Intrinsics | None, sensor: _Sensor) -> tuple[Intrinsics, list[str]]:
    if given is not None:
        return given, []
    for name in _FILES:
        if (root / name).is_file():
            numbers = _numbers(root / name)
            if len(numbers) >= 9:
                return (numbers[0], numbers[4], numbers[2], numbers[5]), [f"intrinsics from {name}"]
            if len(numbers) >= 4:
                return (numbers[0], numbers[1], numbers[2], numbers[3]), [f"intrinsics from {name}"]
            raise FileFormatError(f"{root / name}: expected fx fy cx cy or a 3 x 3 matrix, got {len(numbers)} numbers")
    values = ",".join(f"{v:g}" for v in sensor.intrinsics)
    return sensor.intrinsics, [f"intrinsics {values} of the usual sensor are assumed; specify others with --intrinsics"]


def _numbers(path: Path) -> list[float]:
    try:
        numbers = [float(w) for w in re.split(r"[\s,]+", read_text(path).strip()) if w and not w.startswith("#")]
    except FileFormatError:
        raise
    except ValueError as error:
        raise FileFormatError(f"{path}: expected numbers: {str(error)[:200]}") from None
    if not np.isfinite(numbers).all():
        raise FileFormatError(f"{path}: expected finite numbers")
    return numbers


_Row = tuple[Path, Path | None, Array]


# --- TUM --------------------------------------------------------------------------------------------------
def _is_tum(root: Path) -> bool:
    return (root / "rgb.txt").is_file() and (root / "groundtruth.txt").is_file()


def _stamped(path: Path, columns: int) -> list[tuple[float, list[str]]]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.split(maxsplit=1) if columns == 2 else line.split()  # names may hold spaces
        if not words or line.startswith("#"):
            continue
        try:
            stamp = float(words[0])
        except ValueError:
            stamp = float("nan")
        if len(words) != columns or not np.isfinite(stamp):
            raise FileFormatError(f"{path}, line {number}: expected a time stamp and {columns - 1} values")
        rows.append((stamp, [w.strip() for w in words[1:]]))
    return sorted(rows, key=lambda r: r[0])


def _nearest(rows: Sequence[tuple[float, list[str]]], stamps: Array, stamp: float) -> list[str] | None:
    if not rows:
        return None
    with np.errstate(over="ignore"):
        i = int(np.argmin(np.abs(stamps - stamp)))
    return rows[i][1] if abs(stamps[i] - stamp) <= _MAX_GAP else None


def _tum(folder: CaptureFolder) -> list[_Row]:
    root = folder.root
    poses = _stamped(root / "groundtruth.txt", 8)
    depths = _stamped(root / "depth.txt", 2) if (root / "depth.txt").is_file() else []
    pose_stamps, depth_stamps = np.array([p[0] for p in poses]), np.array([d[0] for d in depths])
    rows: list[_Row] = []
    for stamp, (name,) in _stamped(root / "rgb.txt", 2):
        found, depth = _nearest(poses, pose_stamps, stamp), _nearest(depths, depth_stamps, stamp)
        if found is None:
            continue
        try:
            x, y, z, qx, qy, qz, qw = (float(v) for v in found)
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation_of([qw, qx, qy, qz]), (x, y, z)
        except (ValueError, InputError) as error:
            raise FileFormatError(f"{root / 'groundtruth.txt'}: pose at {stamp}: {error}") from None
        photo = folder.file(name, f"{root / 'rgb.txt'}: {stamp}")
        map_ = folder.file(depth[0], f"{root / 'depth.txt'}: near {stamp}") if depth else None
        rows.append((photo, map_, _finite(root / "groundtruth.txt", pose)))
    return rows


# --- 7-Scenes ---------------------------------------------------------------------------------------------
def _seven_scenes_poses(root: Path) -> list[Path]:
    return sorted([*root.glob("frame-*.pose.txt"), *root.glob("seq-*/frame-*.pose.txt")])


def _seven_scenes(poses: Sequence[Path]) -> list[_Row]:
    rows: list[_Row] = []
    for path in poses:
        stem = path.with_name(path.name.removesuffix(".pose.txt"))
        color = next((p for s in IMAGE_SUFFIXES if (p := stem.with_name(f"{stem.name}.color{s}")).is_file()), None)
        if color is None:
            raise FileFormatError(f"{stem}.color.png: the image is missing")
        depth = stem.with_name(f"{stem.name}.depth.png")
        numbers = _numbers(path)
        if len(numbers) != 16:
            raise FileFormatError(f"{path}: expected a 4 x 4 pose, got {len(numbers)} numbers")
        rows.append((color, depth if depth.is_file() else None, np.reshape(numbers, (4, 4))))
    return rows


# --- Open3D -----------------------------------------------------------------------------------------------
def _open3d(root: Path) -> list[_Row]:
    path = root / "trajectory.log"
    numbers = _numbers(path)
    if not numbers or len(numbers) % 19:
        raise FileFormatError(f"{path}: expected three numbers and a 4 x 4 pose for each frame")
    poses = np.reshape(numbers, (-1, 19))[:, 3:].reshape(-1, 4, 4)
    images = [_sorted_images(root / name) for name in ("color", "depth")]
    if len(images[0]) != len(poses):
        raise FileFormatError(f"{root}: {len(images[0])} images in color, but {len(poses)} poses in trajectory.log")
    if images[1] and len(images[1]) != len(poses):
        raise FileFormatError(f"{root}: {len(images[1])} images in depth, but {len(poses)} poses in trajectory.log")
    depths: list[Path | None] = [*images[1]] or [None] * len(poses)
    return list(zip(images[0], depths, poses, strict=True))


def _sorted_images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def _finite(path: Path, pose: Array) -> Array:
    if not np.isfinite(pose).all():
        raise FileFormatError(f"{path}: expected finite numbers")
    return pose


def _load(root: Path, options: CaptureOptions) -> Capture:
    return load_rgbd(root, options.intrinsics, options.depth_scale, options.allow_outside)


capture_layout(CaptureLayout("RGB-D frames (TUM, 7-Scenes, Open3D)", 40, is_rgbd, _load))
