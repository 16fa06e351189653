"""Splat PLY files, in the layout that 3DGS (Kerbl et al., 2023) writes and every viewer reads.

Properties of the element ``vertex``: x y z, f_dc_0..2, f_rest_0.., opacity (logit), scale_0..2 (log), rot_0..3
(wxyz). f_rest holds all coefficients of red, then of green, then of blue. Normals and other properties are read
past. ASCII and both binary byte orders are read; little endian is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from stipple.errors import FileFormatError
from stipple.formats.files import atomic_write
from stipple.scene.gaussians import Gaussians
from stipple.scene.harmonics import sh_degree

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 20
_NEEDED = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
           "rot_0", "rot_1", "rot_2", "rot_3")  # fmt: skip


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]]


def load_ply(path: str | os.PathLike[str]) -> Gaussians:
    """Read a splat PLY of any harmonic degree from 0 to 4.

    Raises FileFormatError, naming the file and what is wrong with it; OSError if it cannot be read.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        form, elements = _read_header(name, file)
        for element in elements:
            if element.name == "vertex":
                _check_properties(name, element)
                table = _read_table(name, file, form, element)
                return _gaussians(name, table)
            _read_table(name, file, form, element)
    raise FileFormatError(f"{name}: has no element 'vertex'")


def _read_header(name: str, file: BinaryIO) -> tuple[str, list[_Element]]:
    if file.readline(16).strip() != b"ply":
        raise FileFormatError(f"{name}: not a PLY file (its first line is not 'ply')")
    form, elements, size = "", [], 0
    while True:
        line = file.readline(4096)
        size += len(line)
        if not line.endswith(b"\n") or size > _MAX_HEADER:
            raise FileFormatError(f"{name}: the header ends without 'end_header'")
        words = line.decode("ascii", "replace").split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words == ["end_header"]:
            break
        try:
            if words[0] == "format" and words[1] in _ORDERS and len(words) == 3:
                form = words[1]
            elif words[0] == "element" and len(words) == 3 and words[2].isdigit():
                elements.append(_Element(words[1], int(words[2]), []))
            elif words[0] == "property" and words[1] == "list" and elements:
                elements[-1].properties.append((words[4], "list"))
            elif words[0] == "property" and len(words) == 3 and elements:
                elements[-1].properties.append((words[2], _TYPES[words[1]]))
            else:
                raise KeyError
        except (KeyError, IndexError):
            raise FileFormatError(f"{name}: cannot read the header line {' '.join(words)[:80]!r}") from None
    if not form:
        raise FileFormatError(f"{name}: the header has no format line")
    return form, elements


def _check_properties(name: str, element: _Element) -> None:
    have = {n for n, _ in element.properties}
    missing = [p for p in _NEEDED if p not in have]
    if {"packed_position", "packed_color"} <= have:
        raise FileFormatError(
            f"{name}: a compressed PLY (packed_position ...), which is not read; convert it to a plain splat PLY first, "
            "for example with PlayCanvas' splat-transform"
        )
    if missing:
        hint = " (a point cloud, not a splat scene)" if {"x", "y", "z"} <= have and "f_dc_0" in missing else ""
        raise FileFormatError(f"{name}: vertex has no property {', '.join(missing)}{hint}")
    if len(have) != len(element.properties):
        raise FileFormatError(f"{name}: a property of vertex is declared twice")


def _read_table(name: str, file: BinaryIO, form: str, element: _Element) -> Any:
    """An element's rows as a structured array."""
    lists = [n for n, kind in element.properties if kind == "list"]
    if lists:
        raise FileFormatError(
            f"{name}: element {element.name!r} before or with the splats has a list property {lists[0]!r}"
        )
    dtype = np.dtype([(n, _ORDERS[form] + kind) for n, kind in element.properties])
    if form == "ascii":
        return _read_ascii(name, file, element, dtype)
    start = file.tell()
    size = os.fstat(file.fileno()).st_size - start
    if size < element.count * dtype.itemsize:
        held = size // dtype.itemsize if dtype.itemsize else 0
        raise FileFormatError(
            f"{name}: cut short: the header says {element.count} of {element.name!r}, the file holds {held}"
        )
    return np.frombuffer(file.read(element.count * dtype.itemsize), dtype, element.count)


def _read_ascii(name: str, file: BinaryIO, element: _Element, dtype: np.dtype[Any]) -> Any:
    columns = len(element.properties)
    rows = np.empty((min(element.count, 1 << 16), columns))
    for i in range(element.count):
        words = file.readline().split()
        if i == len(rows):  # grown as lines come, so that a hostile count allocates nothing
            rows = np.concatenate([rows, np.empty((min(len(rows), element.count - len(rows)), columns))])
        try:
            if len(words) != columns:
                raise ValueError(f"{len(words)} values where {columns} are declared" if words else "the file ends")
            rows[i] = [float(w) for w in words]
        except ValueError as error:
            raise FileFormatError(f"{name}: {element.name} {i} of {element.count}: {error}") from None
    table = np.empty(element.count, dtype)
    for k, (column, _) in enumerate(element.properties):
        with np.errstate(all="ignore"):
            table[column] = rows[: element.count, k]
    return table


def _gaussians(name: str, table: Any) -> Gaussians:
    def columns(*names: str) -> np.ndarray:
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
        table["opacity"].astype(np.float32),
        sh,
    )


def save_ply(scene: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write a splat PLY, binary little endian, normals zero. The file appears only when it is complete."""
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
    with atomic_write(path) as file:
        file.write("\n".join(header).encode())
        file.write(np.ascontiguousarray(np.concatenate(parts, axis=1), "<f4").tobytes())
