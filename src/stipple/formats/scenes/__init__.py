"""Scene formats, a module each: every module in this folder is registered. Only this module dispatches to them."""

from __future__ import annotations

import importlib
import os
import pkgutil
from typing import BinaryIO

from stipple.errors import FileFormatError, InputError
from stipple.files import atomic_write
from stipple.formats.reading import open_file
from stipple.formats.scenes.base import FORMATS, SceneFormat
from stipple.scene.gaussians import Gaussians

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["FORMATS", "SceneFormat", "load_ply", "load_scene", "save_ply", "save_scene"]
_PLY = ".ply"


def load_scene(path: str | os.PathLike[str]) -> Gaussians:
    """Read a scene from a file of any format in FORMATS, determined by its suffix, or else by how it begins.

    Raises FileFormatError, naming the file and what is wrong with it; OSError if it cannot be read.
    """
    name = os.fspath(path)
    with open_file(name) as file:
        suffix = _suffix(name)
        known = [f for f in FORMATS if f.suffix == suffix]
        head = b"" if known else file.read(max(len(f.magic) for f in FORMATS))
        known = known or [f for f in FORMATS if f.magic and head.startswith(f.magic)]
        if not known:
            raise FileFormatError(
                f"{name}: not a scene: expected {_in_words([f for f in FORMATS if f.matches is None])}"
            )
        return _read(name, file, known)


def load_ply(path: str | os.PathLike[str]) -> Gaussians:
    """Read a PLY file, whatever it is called: plain, or compressed (PlayCanvas' packed layout). See load_scene."""
    name = os.fspath(path)
    with open_file(name) as file:
        return _read(name, file, [f for f in FORMATS if f.suffix == _PLY])


def save_scene(scene: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write a scene in the format of the path's suffix. The file appears only when it is complete.

    Raises InputError for an unknown suffix; warns (FormatWarning) about data that the format cannot hold.
    """
    written = [f for f in FORMATS if f.write is not None]
    chosen = [f for f in written if f.suffix == _suffix(os.fspath(path))]
    if not chosen:
        raise InputError(f"{os.fspath(path)}: expected the name of a scene file: {_in_words(written)}")
    _write(scene, path, chosen[0])


def save_ply(scene: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write a splat PLY, whatever the file is called. See save_scene."""
    _write(scene, path, next(f for f in FORMATS if f.suffix == _PLY and f.write is not None))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _in_words(formats: list[SceneFormat]) -> str:
    return ", ".join(f"{f.name} ({f.suffix})" for f in formats)


def _read(name: str, file: BinaryIO, formats: list[SceneFormat]) -> Gaussians:
    """Read a file in the format that matches, else in the default one."""
    for candidate in sorted(formats, key=lambda f: f.matches is None):
        file.seek(0)
        if candidate.matches is None or candidate.matches(name, file):
            file.seek(0)
            return candidate.read(name, file)
    raise FileFormatError(f"{name}: expected {_in_words(formats)}")


def _write(scene: Gaussians, path: str | os.PathLike[str], chosen: SceneFormat) -> None:
    assert chosen.write is not None
    with atomic_write(path) as file:
        chosen.write(scene, file)
