"""Cameras for viewing a trained run: those of its photos, and the path from one to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stipple.errors import InputError
from stipple.scene import Camera
from stipple.scene.paths import flight
from stipple.train.rundir import RunFolder


def view_camera(folder: Path, name: str | None, size: tuple[int, int] | None) -> Camera:
    """The camera of a photo, by its path, file name or stem; the first by default."""
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


def run_flight(folder: Path, frames: int, size: tuple[int, int] | None) -> list[Camera]:
    """A path through all photos' cameras in the order of their names, in ``frames`` steps, without distortion."""
    first, *others = (camera.without_distortion() for camera in _named(folder).values())
    return flight([_sized(first, size), *others], frames)


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
