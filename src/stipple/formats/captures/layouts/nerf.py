"""Captures described by transforms.json: nerfstudio's, and Blender's synthetic scenes.

Both store camera-to-world matrices in OpenGL axes (+x right, +y up, +z backward); cameras here look along +z with
+y down, so the last two axes are negated. Formats: https://docs.nerf.studio/quickstart/data_conventions.html and
Mildenhall et al., "NeRF", 2020.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.formats.captures.folder import CaptureFolder
from stipple.formats.captures.layouts.base import CaptureLayout, CaptureOptions, capture_layout
from stipple.formats.captures.model import Capture, Lens, View, checked_capture
from stipple.formats.captures.pixels import IMAGE_SUFFIXES, stored_sizes
from stipple.formats.captures.points import read_points
from stipple.formats.reading import read_text
from stipple.scene.camera import Camera
from stipple.text import shown, visible

Array = np.ndarray
_RADIAL = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "RADIAL", "SIMPLE_RADIAL", "FULL_OPENCV", "PERSPECTIVE")
_FISHEYES = ("OPENCV_FISHEYE", "FISHEYE")
_SPLITS = ("train", "test", "val")
_MILLIMETRE = 1e-3
_UNITS = (1e-12, 1e12)


def load_nerfstudio(file: Path, allow_outside: bool = False) -> Capture:
    """Read a nerfstudio capture from its transforms.json."""
    meta, folder = _read_json(file), CaptureFolder(file.parent, allow_outside)
    lists = {s: _names(file, f"{s}_filenames", meta.get(f"{s}_filenames")) for s in _SPLITS}
    views, notes = [], []
    for i, frame in enumerate(_frames(file, meta)):
        view = _view(file, folder, i, frame, meta)
        name = str(Path(frame["file_path"]))
        split = next((s for s in _SPLITS if name in lists[s]), "")
        if any(lists.values()) and not split:
            continue
        views.append(replace(view, split="test" if split == "val" and not lists["test"] else split))
    views = [v for v in views if v.split != "val"]
    points = colors = None
    if meta.get("ply_file_path"):
        points, colors = read_points(folder.file(meta["ply_file_path"], f"{file}: ply_file_path"))
    if any(v.lens and v.lens.fisheye for v in views):
        notes.append("fisheye photos are undistorted to a pinhole camera; their outermost parts are not used")
    return checked_capture(file.parent, "nerfstudio", views, points, colors, notes)


def load_blender(root: Path, allow_outside: bool = False) -> Capture:
    """Read a Blender synthetic scene: transforms_train.json, and transforms_test.json (or val) as held-out views."""
    held_out = next((s for s in ("test", "val") if (root / f"transforms_{s}.json").is_file()), None)
    folder = CaptureFolder(root, allow_outside)
    views, notes = [], []
    for split in ("train", held_out):
        if split is None:
            notes.append("there is no transforms_test.json: no views are held out by the capture")
            continue
        file = root / f"transforms_{split}.json"
        meta = _read_json(file)
        frames = [_view(file, folder, i, frame, meta) for i, frame in enumerate(_frames(file, meta))]
        # without a test file the usual every-nth hold-out applies
        views += [replace(v, split="" if held_out is None else "train" if split == "train" else "test") for v in frames]
    if held_out == "test" and (root / "transforms_val.json").is_file():
        notes.append("transforms_val.json is not used")
    return checked_capture(root, "Blender", views, notes=notes)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(read_text(file))
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(meta, dict):
        raise FileFormatError(f"{file}: expected a JSON object")
    return meta


def _frames(file: Path, meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    frames = meta.get("frames")
    if not isinstance(frames, list) or not frames:
        raise FileFormatError(f"{file}: expected a list 'frames' with at least one frame")
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise FileFormatError(f"{file}: frame {i}: expected an object with a text 'file_path'")
    return frames


def _names(file: Path, key: str, listed: object) -> set[str]:
    """The photos of a split; none if it is not specified."""
    if listed is None:
        return set()
    if not isinstance(listed, list) or not all(isinstance(n, str) for n in listed):
        raise FileFormatError(f"{file}: {key}: expected a list of file names, got {shown(listed)}")
    return {str(Path(n)) for n in listed}


def _view(file: Path, folder: CaptureFolder, number: int, frame: Mapping[str, Any], meta: Mapping[str, Any]) -> View:
    where = f"{file}: frame {number} ({visible(frame['file_path'])})"
    image = _photo(folder.file(frame["file_path"], f"{file}: frame {number}"))
    merged = {**meta, **frame}
    try:
        camera = _camera(merged, image)
        lens = _lens(merged)
    except FileFormatError:
        raise
    except (InputError, TypeError, ValueError, ArithmeticError) as error:
        raise FileFormatError(f"{where}: {error}") from None
    mask, depth = frame.get("mask_path"), frame.get("depth_file_path")
    return View(
        folder.name(image),
        image,
        camera,
        lens,
        mask=folder.file(mask, f"{where}: mask_path") if mask else None,
        depth=folder.file(depth, f"{where}: depth_file_path") if depth else None,
        depth_scale=1 / _unit(where, merged.get("depth_unit_scale_factor", _MILLIMETRE)),
    )


def _unit(where: str, unit: object) -> float:
    """World units per unit of depth."""
    low, high = _UNITS
    if not isinstance(unit, (int, float)) or not low <= unit <= high:
        raise FileFormatError(
            f"{where}: depth_unit_scale_factor: expected a number from {low:g} to {high:g}, got {shown(unit)}"
        )
    return float(unit)


def _photo(path: Path) -> Path:
    """The photo of a file_path; Blender's have no suffix."""
    if path.suffix.lower() in IMAGE_SUFFIXES or path.is_file():
        return path
    found = (path.with_name(path.name + suffix) for suffix in (".png", *IMAGE_SUFFIXES))
    return next((p for p in found if p.is_file()), path.with_name(path.name + ".png"))


def _camera(values: Mapping[str, Any], image: Path) -> Camera:
    model = values.get("camera_model", "OPENCV")
    if model not in (*_PINHOLES, *_FISHEYES):
        raise InputError(
            f"camera_model {shown(model)} is not supported; expected one of {', '.join(_PINHOLES + _FISHEYES)}"
        )
    if "w" in values and "h" in values:
        width, height = int(values["w"]), int(values["h"])
    else:
        width, height = stored_sizes(image)[0]
    fx = _focal(values, "x", width)
    fy = _focal(values, "y", height)
    if fx is None and fy is None:
        raise InputError("no focal length: expected fl_x, or camera_angle_x in radians")
    fx, fy = fx if fx is not None else fy, fy if fy is not None else fx
    assert fx is not None
    assert fy is not None
    cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    return Camera(width, height, fx, fy, cx, cy, _viewmat(values.get("transform_matrix")))


def _focal(values: Mapping[str, Any], axis: str, size: int) -> float | None:
    if f"fl_{axis}" in values:
        return float(values[f"fl_{axis}"])
    angle = values.get(f"camera_angle_{axis}")
    if angle is None:
        return None
    if not 0 < float(angle) < np.pi:
        raise InputError(f"camera_angle_{axis}: expected radians between 0 and pi, got {shown(angle)}")
    return 0.5 * size / float(np.tan(0.5 * float(angle)))


def _viewmat(matrix: Any) -> Array:
    """World to camera in our axes, from camera to world in OpenGL's."""
    array = np.asarray(matrix, np.float64)
    if array.shape not in ((4, 4), (3, 4)) or not np.isfinite(array).all():
        raise InputError("transform_matrix: expected 4 x 4 finite numbers")
    pose = np.eye(4)
    pose[:3] = array[:3]
    pose[:3, 1:3] *= -1
    return inverse_pose(pose)


def inverse_pose(pose: Array) -> Array:
    """World to camera from camera to world, with the rotation orthonormalised; InputError if it is not a rotation."""
    rotation = pose[:3, :3]
    # rotations have entries from -1 to 1
    u, s, vt = np.linalg.svd(rotation if np.abs(rotation).max() < 2 else np.zeros((3, 3)))
    if not np.allclose(s, 1, atol=0.05) or np.linalg.det(rotation) < 0:
        raise InputError("the pose's upper left 3 x 3 is not a rotation (it scales, shears or mirrors)")
    rotation = (u @ vt).T
    viewmat = np.eye(4)
    with np.errstate(over="ignore", invalid="ignore"):
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ pose[:3, 3]
    return viewmat


def _lens(values: Mapping[str, Any]) -> Lens | None:
    fisheye = values.get("camera_model") in _FISHEYES
    return Lens.of([float(values.get(k, 0.0)) for k in (_FISHEYE if fisheye else _RADIAL)], fisheye)


# --- recognition ------------------------------------------------------------------------------------------
def _file_of(path: Path) -> Path:
    return path / "transforms.json" if path.is_dir() else path


def _is_nerfstudio(path: Path) -> bool:
    return path.suffix.lower() == ".json" if path.is_file() else _file_of(path).is_file()


def _is_blender(path: Path) -> bool:
    return (path / "transforms_train.json").is_file()


def _load_nerfstudio(path: Path, options: CaptureOptions) -> Capture:
    return load_nerfstudio(_file_of(path), options.allow_outside)


def _load_blender(path: Path, options: CaptureOptions) -> Capture:
    return load_blender(path, options.allow_outside)


capture_layout(CaptureLayout("transforms.json (nerfstudio)", 10, _is_nerfstudio, _load_nerfstudio))
capture_layout(CaptureLayout("transforms_train.json (Blender)", 20, _is_blender, _load_blender))
