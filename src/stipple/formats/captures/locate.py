"""Opening a capture: recognising its layout, checking its photos."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from stipple.errors import InputError
from stipple.formats.captures.frames import settle
from stipple.formats.captures.layouts import LAYOUTS, CaptureOptions
from stipple.formats.captures.model import Capture
from stipple.formats.captures.pixels import IMAGE_SUFFIXES

_MAX_FILES = 100_000  # examined at most, to describe a folder that is not a capture


def open_capture(path: str | os.PathLike[str], options: CaptureOptions | None = None) -> Capture:
    """Read a capture of any kind: poses, cameras, points; photos are looked up and their headers checked.

    ``path`` is a folder, or a transforms.json. Raises InputError if it is not a capture, FileFormatError, naming the
    file, if something in it is wrong.
    """
    root, chosen = Path(path), options or CaptureOptions()
    capture = _load(root, chosen)
    if chosen.masks is not None:
        capture = capture.with_masks(chosen.masks)
    return settle(capture if chosen.undistort else capture.with_lenses())


def _load(root: Path, options: CaptureOptions) -> Capture:
    if not root.is_file() and not root.is_dir():
        raise InputError(f"{root}: " + ("not a folder" if root.exists() else "there is no such folder"))
    for layout in LAYOUTS:
        if layout.matches(root):
            return layout.load(root, options)
    if root.is_file():
        raise InputError(f"{root}: not a capture; expected a folder, or a transforms.json")
    raise InputError(f"{root}: {_what_is_missing(root)}")


def _what_is_missing(root: Path) -> str:
    photos = [p for p in islice(root.rglob("*"), _MAX_FILES) if p.suffix.lower() in IMAGE_SUFFIXES]
    *others, last = (layout.expected for layout in LAYOUTS)
    expected = f"expected {', '.join(others)}, or {last}"
    if photos:
        where = photos[0].parent
        return f"{len(photos)} photos but no camera poses: {expected}; to find poses: stipple poses {where} -o capture/"
    return f"not a capture: {expected}"
