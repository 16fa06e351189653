"""Point clouds in PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stipple.errors import FileFormatError
from stipple.formats.ply import read_header, read_table
from stipple.formats.reading import open_file

Array = np.ndarray


def read_points(path: Path) -> tuple[Array, Array]:
    """Points [M, 3] and colours [M, 3] uint8 (grey where there are none) of a PLY's vertices."""
    name = str(path)
    try:
        file = open_file(path)  # closed below; a missing file has a message of its own
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the point cloud is missing") from None
    with file:
        form, elements = read_header(name, file)
        for element in elements:
            table = read_table(name, file, form, element)
            if element.name == "vertex":
                return _points(name, table)
    raise FileFormatError(f"{name}: has no element 'vertex'")


def _points(name: str, table: Array) -> tuple[Array, Array]:
    have = table.dtype.names or ()
    if not {"x", "y", "z"} <= set(have):
        raise FileFormatError(f"{name}: vertex has no properties x, y, z")
    with np.errstate(invalid="ignore"):
        points = np.stack([table[n].astype(np.float64) for n in "xyz"], axis=1)
    if not {"red", "green", "blue"} <= set(have):
        return points, np.full((len(points), 3), 128, np.uint8)
    colors = np.stack([table[n] for n in ("red", "green", "blue")], axis=1)
    if colors.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            colors = np.nan_to_num(colors) * (255 if np.nanmax(colors, initial=0) <= 1 else 1)
    return points, np.clip(colors, 0, 255).astype(np.uint8)
