"""PLY files (Turk, "The PLY Polygon File Format", 1994): header and tables of numbers.

ASCII and both binary byte orders are read. Declared sizes are checked against the file's size before anything is
allocated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from stipple.errors import FileFormatError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 20
_MAX_WORD = 400  # characters of a number in text, including the separator


@dataclass
class Element:
    """One element of a PLY header: rows of named, typed numbers."""

    name: str
    count: int
    properties: list[tuple[str, str]]

    @property
    def names(self) -> set[str]:
        return {n for n, _ in self.properties}


def read_header(name: str, file: BinaryIO) -> tuple[str, list[Element]]:
    if file.readline(16).strip() != b"ply":
        raise FileFormatError(f"{name}: not a PLY file (its first line is not 'ply')")
    form, size = "", 0
    elements: list[Element] = []
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
            form = _read_line(words, elements) or form
        except (KeyError, IndexError):
            raise FileFormatError(f"{name}: cannot read the header line {' '.join(words)[:80]!r}") from None
    if not form:
        raise FileFormatError(f"{name}: the header has no format line")
    _refuse_twice(f"{name}: an element", [e.name for e in elements])
    for element in elements:
        _refuse_twice(f"{name}: a property of {element.name}", [n for n, _ in element.properties])
    return form, elements


def _read_line(words: list[str], elements: list[Element]) -> str:
    """Add the element or property that a line declares; returns the format if it declares that. Raises KeyError or
    IndexError."""
    if words[0] == "format" and words[1] in _ORDERS and len(words) == 3:
        return words[1]
    if words[0] == "element" and len(words) == 3 and words[2].isdigit():
        elements.append(Element(words[1], int(words[2]), []))
    elif words[0] == "property" and words[1] == "list" and elements:
        elements[-1].properties.append((words[4], "list"))
    elif words[0] == "property" and len(words) == 3 and elements:
        elements[-1].properties.append((words[2], _TYPES[words[1]]))
    else:
        raise KeyError(words[0])
    return ""


def _refuse_twice(what: str, names: list[str]) -> None:
    found: set[str] = set()
    for name in names:
        if name in found:
            raise FileFormatError(f"{what} is declared twice: {name}")
        found.add(name)


def read_table(name: str, file: BinaryIO, form: str, element: Element) -> Any:
    """An element's rows as a structured array."""
    lists = [n for n, kind in element.properties if kind == "list"]
    if lists:
        raise FileFormatError(
            f"{name}: element {element.name!r} before or with the splats has a list property {lists[0]!r}"
        )
    dtype = np.dtype([(n, _ORDERS[form] + kind) for n, kind in element.properties])
    if not element.properties:
        return np.empty(0, dtype)  # rows without numbers take no space, however many there are
    left = os.fstat(file.fileno()).st_size - file.tell()
    # in text a number takes at least a digit and a separator, which the last number may lack
    row, spare, bound = (2 * len(element.properties), 1, "at most ") if form == "ascii" else (dtype.itemsize, 0, "")
    if element.count * row > left + spare:
        raise FileFormatError(
            f"{name}: truncated: the header declares {element.count} of {element.name!r}, the file holds "
            f"{bound}{max(0, left + spare) // row}"
        )
    if form == "ascii":
        return _read_ascii(name, file, element, dtype)
    return np.frombuffer(file.read(element.count * dtype.itemsize), dtype, element.count)


def _read_ascii(name: str, file: BinaryIO, element: Element, dtype: np.dtype[Any]) -> Any:
    columns = len(element.properties)
    rows = np.empty((element.count, columns))
    for i in range(element.count):
        words = file.readline(columns * _MAX_WORD).split()
        try:
            if len(words) != columns:
                raise ValueError(f"{len(words)} values where {columns} are declared" if words else "the file ends")
            rows[i] = [float(w) for w in words]
        except ValueError as error:
            raise FileFormatError(f"{name}: {element.name} {i} of {element.count}: {str(error)[:200]}") from None
    table = np.empty(element.count, dtype)
    for k, (column, _) in enumerate(element.properties):
        with np.errstate(all="ignore"):
            table[column] = rows[:, k]
    return table
