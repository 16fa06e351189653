"""Statistics of a capture, and warnings about what may go wrong with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from stipple.formats.captures.frames import frame_camera
from stipple.formats.captures.model import Capture, Lens
from stipple.scene.camera import Camera

Array = np.ndarray
_FAR_CAMERA = 10.0
_FEW_VIEWS = 10
_FEW_POINTS = 100
_SMALL_BASELINE = 0.02
_LARGE_BASELINE = 0.5


@dataclass(frozen=True)
class CameraRow:
    """Views that share a camera: its size, their number, and its parameters as text."""

    width: int
    height: int
    views: int
    focal: str
    center: str
    fov: tuple[float, float]
    lens: str


@dataclass(frozen=True, eq=False)
class Survey:
    """Statistics and warnings of a capture; ``positions`` [V, 3] and ``directions`` [V, 3] of its cameras."""

    capture: Capture
    train: list[int]
    test: list[int]
    cameras: list[CameraRow]
    positions: Array
    directions: Array
    up: Array
    extent: float
    distance: float
    warnings: list[str]

    @classmethod
    def of(cls, capture: Capture, test_every: int, downscale: float = 1.0) -> Survey:
        """Survey a capture."""
        train, test = capture.split(test_every)
        views = [frame_camera(v, downscale) for v in capture.views]
        positions = np.array([v.position for v in views])
        directions = np.array([v.viewmat[2, :3] for v in views])
        up = -np.array([v.viewmat[1, :3] for v in views]).mean(axis=0)
        extent = float(np.linalg.norm(positions - positions.mean(axis=0), axis=1).max())
        distance = _median_distance(positions, capture.points)
        warnings = [*capture.notes, *_warnings(capture, positions, extent, distance, len(train))]
        return cls(
            capture, train, test, _camera_rows(capture, views), positions, directions, up, extent, distance, warnings
        )

    @property
    def tracks(self) -> bool:
        """Whether it is known which views observe which points."""
        return any(v.points is not None for v in self.capture.views)


def _median_distance(positions: Array, points: Array) -> float:
    """Median distance from the points to their nearest camera."""
    if not len(points):
        return 0.0
    sample = points[:: max(1, len(points) // 2000)]
    nearest = np.sqrt(((sample[:, None] - positions[None]) ** 2).sum(axis=2)).min(axis=1)
    return float(np.median(nearest))


def _median_spacing(positions: Array) -> float:
    """Median distance from a camera to the nearest other one."""
    if len(positions) < 2:
        return 0.0
    found, _ = cKDTree(positions).query(positions, k=2)
    return float(np.median(found[:, 1]))


def _camera_rows(capture: Capture, cameras: list[Camera]) -> list[CameraRow]:
    groups: dict[tuple[float, ...], list[int]] = defaultdict(list)
    lenses: dict[tuple[float, ...], Lens | None] = {}
    for i, (view, camera) in enumerate(zip(capture.views, cameras, strict=True)):
        numbers = (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        key = (*(round(n, 3) for n in numbers), hash((view.lens, camera.model, camera.distortion)))
        groups[key].append(i)
        lenses[key] = view.lens
    rows = []
    for key, members in groups.items():
        c, lens = cameras[members[0]], lenses[key]
        fov = tuple(float(np.degrees(2 * np.arctan(0.5 * s / f))) for s, f in ((c.width, c.fx), (c.height, c.fy)))
        rows.append(
            CameraRow(
                c.width,
                c.height,
                len(members),
                f"{c.fx:.2f}, {c.fy:.2f}",
                f"{c.cx:.2f}, {c.cy:.2f}",
                (fov[0], fov[1]),
                _lens_in_words(c, lens),
            )
        )
    return rows


def _lens_in_words(camera: Camera, lens: Lens | None) -> str:
    """The distortion of a frame's camera (kept), or of the photos' lens (undone), in words."""
    if camera.distortion:
        return "fisheye, kept" if camera.model == "fisheye" else "radial and tangential, kept"
    if lens is None:
        return "none"
    return "fisheye, undone" if lens.fisheye else "radial and tangential, undone"


def _warnings(capture: Capture, positions: Array, extent: float, distance: float, training: int) -> list[str]:
    found = []
    count = len(capture.points)
    if not count and not any(v.depth for v in capture.views):
        found.append("there are no points and no depth maps: training starts from random Gaussians")
    elif 0 < count < _FEW_POINTS:
        found.append(f"there are only {count} points: poses may be poor")
    if training < _FEW_VIEWS:
        found.append(f"only {training} views to train on: new views will look poor where few photos overlap")
    middle = np.median(positions, axis=0)
    away = np.linalg.norm(positions - middle, axis=1)
    typical = float(np.median(away))
    for i in np.flatnonzero(away > _FAR_CAMERA * typical) if typical > 0 else []:
        found.append(
            f"{capture.views[i].name}: {away[i] / typical:.0f} times farther away than most cameras: is its pose right?"
        )
    if distance and extent < _SMALL_BASELINE * distance:
        found.append(
            f"the cameras are within {extent:.3g} units, the scene is {distance:.3g} away: depth is poorly determined"
        )
    between = _median_spacing(positions)
    if distance and between > _LARGE_BASELINE * distance:
        found.append(
            f"the photos were taken far apart: {between:.2g} units from one to the next, the scene {distance:.2g} "
            "away; views between them will be blurred. More photos in between help most; --strategy mcmc overfits less"
        )
    if capture.unused:
        names = ", ".join(capture.unused[:3]) + (", ..." if len(capture.unused) > 3 else "")
        found.append(f"{len(capture.unused)} photos have no pose and are not used: {names}")
    return found
