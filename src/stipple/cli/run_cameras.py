"""Cameras for looking at a trained run: those of its photos, and the way from one to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline, interp1d
from scipy.spatial.transform import Rotation, Slerp

from stipple.errors import InputError
from stipple.scene import Camera
from stipple.train.rundir import RunFolder

_SPLINE_FROM = 4


def view_camera(folder: Path, name: str | None, size: tuple[int, int] | None) -> Camera:
    """The camera of a photo, by name or the end of one; the first by default."""
    cameras = _named(folder)
    fitting = [
        c for n, c in cameras.items() if name is None or n == name or Path(n).name == name or Path(n).stem == name
    ]
    if not fitting:
        known = ", ".join(list(cameras)[:5])
        raise InputError(
            f"--view {name}: {folder} has no such view; it has {known}" + (", ..." if len(cameras) > 5 else "")
        )
    return _sized(fitting[0], size)


def flight(folder: Path, frames: int, size: tuple[int, int] | None) -> list[Camera]:
    """A way through all photos' cameras in the order of their names, in ``frames`` steps."""
    cameras = list(_named(folder).values())
    base = _sized(cameras[0], size)
    if len(cameras) == 1:
        return [base] * frames
    at, wanted = np.arange(len(cameras)), np.linspace(0, len(cameras) - 1, frames)
    places = np.array([c.position for c in cameras])
    along = CubicSpline(at, places) if len(cameras) >= _SPLINE_FROM else interp1d(at, places, axis=0)
    turns = Slerp(at, Rotation.from_matrix([c.viewmat[:3, :3] for c in cameras]))
    made = []
    for t in wanted:
        viewmat = np.eye(4)
        viewmat[:3, :3] = turns(t).as_matrix()
        viewmat[:3, 3] = -viewmat[:3, :3] @ along(t)
        made.append(replace(base, viewmat=viewmat))
    return made


def _named(folder: Path) -> dict[str, Camera]:
    return {name: camera for name, (camera, _) in sorted(RunFolder(folder).read_cameras().items())}


def _sized(camera: Camera, size: tuple[int, int] | None) -> Camera:
    """The camera at another size in pixels, with the same vertical field of view."""
    if size is None:
        return camera
    width, height = size
    factor = height / camera.height
    return replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx * factor,
        fy=camera.fy * factor,
        cx=width / 2 + (camera.cx - camera.width / 2) * factor,
        cy=camera.cy * factor,
    )
