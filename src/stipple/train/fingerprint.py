"""A record of a capture at the start of a run, used to detect later changes of photos and poses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.formats.captures import Capture, View
from stipple.formats.reading import open_file

Array = np.ndarray
Record = Mapping[str, Any]
_NUMBERS = ("width", "height", "fx", "fy", "cx", "cy", "near", "far")
_TOLERANCE = 1e-9
_REMEDY = "restore it, or start again with --overwrite"


class Contents:
    """Digests of the files of views. A file whose contents differ when it is read again raises FileFormatError."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, str], str] = {}

    def expect(self, view: str, digests: Mapping[str, str]) -> None:
        """Set the digests that a view's files had when the run began."""
        self._digests.update({(view, kind): digest for kind, digest in digests.items()})

    def check(self, view: View) -> None:
        """Read a view's files; called from several threads."""
        for kind, path in _files(view).items():
            digest = digest_of(path)
            if self._digests.setdefault((view.name, kind), digest) != digest:
                raise FileFormatError(f"{path}: the file has changed since the run began; {_REMEDY}")

    def of(self, view: View) -> dict[str, str]:
        """Digests, by kind, of those of a view's files that have been read."""
        return {kind: d for kind in _files(view) if (d := self._digests.get((view.name, kind))) is not None}


def digest_of(path: Path) -> str:
    """A digest of a file's bytes. Raises FileFormatError where it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_file(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the image is missing") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


def record_of(capture: Capture, views: Sequence[View], contents: Contents) -> dict[str, Any]:
    """A capture's cameras, points and files, for JSON; after all files have been read once."""
    rows = {v.name: {"camera": _camera(v), "files": contents.of(v)} for v in views}
    return {"points": _points(capture), "views": rows}


def compare(capture: Capture, views: Sequence[View], record: Record) -> dict[str, dict[str, str]]:
    """The digests that a record holds, by view, after comparing cameras and points with the capture.

    Raises InputError that names what has changed, FileFormatError if the record is broken.
    """
    try:
        rows = {
            str(name): (np.array(row["camera"], float), {str(k): str(d) for k, d in row["files"].items()})
            for name, row in record["views"].items()
        }
        points = record["points"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"run.json: the record of the capture is broken: {error!r}") from None
    names = [v.name for v in views]
    strange = [*(n for n in rows if n not in set(names)), *(n for n in names if n not in rows)]
    if strange:
        what = "is gone" if strange[0] in rows else "was not there when the run began"
        raise InputError(f"{capture.root}: {strange[0]} {what}: the capture holds other photos now; {_REMEDY}")
    for view in views:
        _compare_view(capture, view, *rows[view.name])
    if points != _points(capture):
        raise InputError(f"{capture.root}: the points have changed since the run began; {_REMEDY}")
    return {name: digests for name, (_, digests) in rows.items()}


def _compare_view(capture: Capture, view: View, before: Array, digests: Mapping[str, str]) -> None:
    now = np.array(_camera(view))
    same = now.shape == before.shape
    if not same or not np.allclose(now, before, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise InputError(
            f"{capture.root}: the camera of {view.name} (its pose, lens or size) has changed since the run began; "
            f"{_REMEDY}"
        )
    changed = sorted(set(digests) ^ set(_files(view)))
    if changed:
        now_there = "has a" if changed[0] in _files(view) else "has no"
        raise InputError(
            f"{capture.root}: {view.name} {now_there} {changed[0]} now, unlike when the run began; {_REMEDY}"
        )


def _files(view: View) -> dict[str, Path]:
    found = {"photo": view.image, "mask": view.mask, "depth map": view.depth}
    return {kind: path for kind, path in found.items() if path is not None}


def _camera(view: View) -> list[float]:
    lens = [] if view.lens is None else [float(view.lens.fisheye), *view.lens.coefficients]
    lens += view.camera.distortion
    numbers = [float(getattr(view.camera, name)) for name in _NUMBERS]
    return [*numbers, *np.asarray(view.camera.viewmat, float).ravel().tolist(), view.depth_scale, *lens]


def _points(capture: Capture) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(capture.points).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(capture.colors).tobytes())
    for view in capture.views:
        if view.points is not None:
            digest.update(np.ascontiguousarray(view.points, np.int64).tobytes())
    return digest.hexdigest()
