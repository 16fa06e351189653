"""Captures posed by COLMAP: a sparse model beside a folder of images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.formats.captures.colmap_model import Model, ModelCamera, ModelImage, model_suffix, read_model
from stipple.formats.captures.folder import CaptureFolder
from stipple.formats.captures.layouts.base import CaptureLayout, CaptureOptions, capture_layout
from stipple.formats.captures.model import Capture, Lens, View, checked_capture
from stipple.formats.captures.pixels import IMAGE_SUFFIXES
from stipple.scene.camera import Camera

_PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ".")
_FISHEYE = {"OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_ONE_FOCAL = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_REFUSED = {"FOV", "THIN_PRISM_FISHEYE"}


def find_model(root: Path) -> Path | None:
    """The folder of a capture's sparse model, if it has one."""
    places = [root / p for p in _PLACES]
    places += sorted((root / "sparse").glob("*")) if (root / "sparse").is_dir() else []
    return next((p for p in places if model_suffix(p)), None)


def load_colmap(root: Path, images: str | None = None, allow_outside: bool = False) -> Capture:
    """Read a COLMAP capture. ``images`` names the folder of photos inside it, ``images`` by default."""
    capture = CaptureFolder(root, allow_outside)
    folder = find_model(root)
    if folder is None:
        raise InputError(f"{root}: no COLMAP model: expected cameras and images as .bin or .txt in sparse/0")
    model = read_model(folder)
    photos, notes = _photo_folder(root, images)
    row = {int(n): i for i, n in enumerate(model.ids)}
    views = [
        _view(folder, capture.file(image.name, f"{folder}: an image", photos), model, image, row)
        for image in model.images
    ]
    others = [p.name for p in sorted(folder.parent.glob("*")) if p != folder and model_suffix(p)]
    if others and folder.name != ".":
        notes.append(f"the model in {folder.name} is used; there are others: {', '.join(others)}")
    used = {v.image for v in views}
    unused = [
        str(p.relative_to(photos)) for p in photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p not in used
    ]
    return checked_capture(root, "COLMAP", views, model.points, model.colors, notes, unused)


def _photo_folder(root: Path, images: str | None) -> tuple[Path, list[str]]:
    if images is not None:
        if not (root / images).is_dir():
            raise InputError(f"{root / images}: the folder of images does not exist")
        return root / images, []
    if (root / "images").is_dir():
        return root / "images", []
    smaller = [p for p in sorted(root.glob("images_*")) if p.is_dir() and re.fullmatch(r"images_\d+", p.name)]
    if smaller:
        return smaller[0], [f"there is no folder images; {smaller[0].name} is used"]
    raise InputError(f"{root}: no folder images; name the one that holds the photos with --images")


def _view(folder: Path, photo: Path, model: Model, image: ModelImage, row: dict[int, int]) -> View:
    try:
        camera, lens = _camera(model.cameras[image.camera], image)
    except InputError as error:
        raise FileFormatError(f"{folder}: image {image.name!r}: {error}") from None
    observed = [row[i] for i in image.observed.tolist() if i in row]
    return View(image.name, photo, camera, lens, points=np.unique(np.array(observed, np.int64)) if observed else None)


def _camera(camera: ModelCamera, image: ModelImage) -> tuple[Camera, Lens | None]:
    if camera.model in _REFUSED:
        raise InputError(
            f"camera model {camera.model} is not supported; undistort the photos with `colmap image_undistorter`"
        )
    focals = 1 if camera.model in _ONE_FOCAL else 2
    pinhole, distortion = camera.params[: focals + 2], camera.params[focals + 2 :]
    undistorted = Camera.from_colmap(camera.width, camera.height, pinhole, image.qvec, image.tvec)
    return undistorted, Lens.of(distortion, camera.model in _FISHEYE)


def _load(root: Path, options: CaptureOptions) -> Capture:
    return load_colmap(root, options.images, options.allow_outside)


capture_layout(CaptureLayout("a COLMAP model (sparse/0)", 30, lambda path: find_model(path) is not None, _load))
