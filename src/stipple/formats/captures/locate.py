"""Finding out what kind of capture a folder holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stipple.errors import InputError
from stipple.formats.captures.colmap import find_model, load_colmap
from stipple.formats.captures.frames import settle
from stipple.formats.captures.model import Capture
from stipple.formats.captures.nerf import load_blender, load_nerfstudio
from stipple.formats.captures.pixels import IMAGE_SUFFIXES
from stipple.formats.captures.rgbd import Intrinsics, is_rgbd, load_rgbd

_MOST_LOOKED_AT = 100_000  # files, to say what a folder holds that is no capture


@dataclass(frozen=True)
class CaptureOptions:
    """What a user may have to say about a capture: the folder of images (COLMAP) or masks, and for RGB-D the
    intrinsics fx, fy, cx, cy and how many integers of depth make a world unit. ``allow_outside`` also reads files that
    the capture names but that lie outside of its folder."""

    images: str | None = None
    masks: str | None = None
    intrinsics: Intrinsics | None = None
    depth_scale: float | None = None
    allow_outside: bool = False


def open_capture(path: str | os.PathLike[str], options: CaptureOptions | None = None) -> Capture:
    """Read a capture of any kind: poses, cameras, points; photos are looked up and their headers checked.

    ``path`` is a folder, or a transforms.json. Raises InputError if it is no capture, FileFormatError, naming the
    file, if something in it is wrong.
    """
    root, chosen = Path(path), options or CaptureOptions()
    capture = _load(root, chosen)
    if chosen.masks is not None:
        capture = capture.with_masks(chosen.masks)
    return settle(capture)


def _load(root: Path, options: CaptureOptions) -> Capture:
    outside = options.allow_outside
    if root.is_file():
        if root.suffix.lower() == ".json":
            return load_nerfstudio(root, outside)
        raise InputError(f"{root}: not a capture; expected a folder, or a transforms.json")
    if not root.is_dir():
        raise InputError(f"{root}: " + ("not a folder" if root.exists() else "there is no such folder"))
    if (root / "transforms.json").is_file():
        return load_nerfstudio(root / "transforms.json", outside)
    if (root / "transforms_train.json").is_file():
        return load_blender(root, outside)
    if find_model(root) is not None:
        return load_colmap(root, options.images, outside)
    if is_rgbd(root):
        return load_rgbd(root, options.intrinsics, options.depth_scale, outside)
    raise InputError(f"{root}: {_what_is_missing(root)}")


def _what_is_missing(root: Path) -> str:
    photos = [p for p in islice(root.rglob("*"), _MOST_LOOKED_AT) if p.suffix.lower() in IMAGE_SUFFIXES]
    expected = (
        "expected a COLMAP model (sparse/0), transforms.json (nerfstudio), transforms_train.json (Blender), or RGB-D "
        "frames (TUM, 7-Scenes, Open3D)"
    )
    if photos:
        where = photos[0].parent
        return f"{len(photos)} photos but no camera poses: {expected}; to find poses: stipple poses {where} -o capture/"
    return f"not a capture: {expected}"
