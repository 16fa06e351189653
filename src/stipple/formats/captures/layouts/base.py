"""The interface of a capture layout, and the registry of all layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stipple.formats.captures.model import Capture

Intrinsics = tuple[float, float, float, float]


@dataclass(frozen=True)
class CaptureOptions:
    """Options for reading a capture: the folder of images (COLMAP) or masks, and for RGB-D the intrinsics fx, fy, cx,
    cy and the integers of depth per world unit. ``allow_outside`` also reads files that the capture names outside its
    folder. Without ``undistort`` photos stay as they are, and their cameras have the lens's distortion."""

    images: str | None = None
    masks: str | None = None
    intrinsics: Intrinsics | None = None
    depth_scale: float | None = None
    allow_outside: bool = False
    undistort: bool = True


@dataclass(frozen=True)
class CaptureLayout:
    """One of the ways in which a folder, or a file, describes posed photos."""

    expected: str
    """The expected files, as listed in messages."""
    rank: int
    """Layouts are tried in ascending order: a folder may satisfy several, as nerfstudio keeps COLMAP's model."""
    matches: Callable[[Path], bool]
    """Whether an existing folder or file has this layout."""
    load: Callable[[Path, CaptureOptions], Capture]
    """Reads the capture. Raises InputError or FileFormatError."""


LAYOUTS: list[CaptureLayout] = []


def capture_layout(added: CaptureLayout) -> CaptureLayout:
    """Add a layout to those that are recognised."""
    LAYOUTS.append(added)
    LAYOUTS.sort(key=lambda layout: layout.rank)
    return added
