"""Splat PLY files, in the layout that 3DGS (Kerbl et al., 2023) writes and every viewer reads.

Properties of the element ``vertex``: x y z, f_dc_0..2, f_rest_0.., opacity (logit), scale_0..2 (log), rot_0..3 (wxyz).
f_rest holds all coefficients of red, then of green, then of blue. Normals and other properties are ignored. ASCII and
both binary byte orders are read; little endian is written.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from stipple.errors import FileFormatError
from stipple.formats.ply import Element, read_header, read_table
from stipple.formats.scenes.base import SceneFormat, scene_format
from stipple.scene.gaussians import Gaussians
from stipple.scene.sh import sh_degree

_NEEDED = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
           "rot_0", "rot_1", "rot_2", "rot_3")  # fmt: skip


def read(name: str, file: BinaryIO) -> Gaussians:
    """The Gaussians of a PLY file with SH of any degree from 0 to 4. Raises FileFormatError."""
    form, elements = read_header(name, file)
    for element in elements:
        if element.name == "vertex":
            _check_properties(name, element)
            return _gaussians(name, read_table(name, file, form, element))
        read_table(name, file, form, element)
    raise FileFormatError(f"{name}: has no element 'vertex'")


def _check_properties(name: str, element: Element) -> None:
    have = element.names
    missing = [p for p in _NEEDED if p not in have]
    if missing:
        hint = " (a point cloud, not a splat scene)" if {"x", "y", "z"} <= have and "f_dc_0" in missing else ""
        raise FileFormatError(f"{name}: vertex has no property {', '.join(missing)}{hint}")


def _gaussians(name: str, table: Any) -> Gaussians:
    def columns(*names: str) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # overflow gives infinity, which is not drawn
            return np.stack([table[n].astype(np.float32) for n in names], axis=1)

    rest = sum(1 for n in table.dtype.names if n.startswith("f_rest_"))
    coefficients = rest // 3 + 1
    names = [f"f_rest_{i}" for i in range(rest)]
    if rest % 3 or sh_degree(coefficients) is None or any(n not in table.dtype.names for n in names):
        raise FileFormatError(f"{name}: {rest} f_rest properties; expected 0, 9, 24, 45 or 72, numbered from 0")
    sh = np.empty((len(table), coefficients, 3), np.float32)
    sh[:, 0] = columns("f_dc_0", "f_dc_1", "f_dc_2")
    if rest:
        sh[:, 1:] = columns(*names).reshape(len(table), 3, coefficients - 1).transpose(0, 2, 1)
    return Gaussians(
        columns("x", "y", "z"),
        columns("scale_0", "scale_1", "scale_2"),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        columns("opacity")[:, 0],
        sh,
    )


def write(scene: Gaussians, file: BinaryIO) -> None:
    """Write a splat PLY, binary little endian, normals zero."""
    rest = (scene.sh.shape[1] - 1) * 3
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(rest))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    parts = [
        scene.means,
        np.zeros_like(scene.means),
        scene.sh[:, 0],
        scene.sh[:, 1:].transpose(0, 2, 1).reshape(scene.count, rest),
        scene.logit_opacities[:, None],
        scene.log_scales,
        scene.quats,
    ]
    header = ["ply", "format binary_little_endian 1.0", "comment written by Stipple", f"element vertex {scene.count}"]
    header += [f"property float {n}" for n in names] + ["end_header", ""]
    file.write("\n".join(header).encode())
    file.write(np.ascontiguousarray(np.concatenate(parts, axis=1), "<f4").tobytes())


scene_format(
    SceneFormat("splat PLY", "as 3DGS writes it; every splat viewer opens it", ".ply", read, write, magic=b"ply")
)
