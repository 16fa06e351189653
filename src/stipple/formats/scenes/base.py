"""The interface of a scene format, and the registry of all formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from stipple.scene.gaussians import Gaussians

Array = np.ndarray
_EDGE = 1e-6


@dataclass(frozen=True)
class SceneFormat:
    """A kind of file that holds Gaussians. ``read`` and ``matches`` get the file's name, for messages, and the file
    open at its beginning; ``read`` raises FileFormatError."""

    name: str
    """Its name in messages, such as "splat PLY"."""
    about: str
    """A short description that helps users choose it."""
    suffix: str
    """The suffix of its files, such as ".ply"."""
    read: Callable[[str, BinaryIO], Gaussians]
    write: Callable[[Gaussians, BinaryIO], None] | None = None
    """Writes a scene; None where only reading is supported."""
    matches: Callable[[str, BinaryIO], bool] | None = None
    """Whether a file with the suffix is of this format. None: this is the suffix's default format, for files that no
    other format matches."""
    magic: bytes = b""
    """The bytes that its files begin with, if any: used if the suffix is unknown."""


FORMATS: list[SceneFormat] = []


def scene_format(added: SceneFormat) -> SceneFormat:
    """Add a format to those that are read and written."""
    FORMATS.append(added)
    return added


def logits(opacities: Array) -> Array:
    """Opacities from 0 to 1 as they are stored, finite for 0 and 1 too."""
    inside = np.clip(opacities, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)))
