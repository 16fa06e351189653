"""PlayCanvas' compressed PLY: chunks of 256 Gaussians, each packed into four 32-bit words.

The layout is that of PlayCanvas' open format (SuperSplat and splat-transform write it): positions 11-10-11 bits
and log scales 11-10-11 bits between the chunk's bounds, rotations as the three smallest of four components in
2-10-10-10 bits, colours and opacity 8 bits each (colours between the chunk's bounds where it has them),
SH 8 bits in an element of their own.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from stipple.errors import FileFormatError
from stipple.formats.ply import Element, read_header, read_table
from stipple.formats.scenes.base import SceneFormat, logits, scene_format
from stipple.scene.gaussians import Gaussians
from stipple.scene.sh import rgb_to_sh, sh_degree

_CHUNK = 256
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_BOUNDS = tuple(f"{edge}_{part}{axis}" for part in ("", "scale_") for edge in ("min", "max") for axis in "xyz")
_COLOR_BOUNDS = tuple(f"{edge}_{axis}" for edge in ("min", "max") for axis in "rgb")


def matches(name: str, file: BinaryIO) -> bool:
    """Whether a PLY file declares the compressed layout."""
    if file.read(3) != b"ply":
        return False
    file.seek(0)
    _, elements = read_header(name, file)
    return any(e.name == "vertex" and not e.names.isdisjoint(_PACKED) for e in elements)


def read(name: str, file: BinaryIO) -> Gaussians:
    """The Gaussians of a compressed PLY file. Raises FileFormatError."""
    form, elements = read_header(name, file)
    _check_header(name, elements)
    tables: dict[str, Any] = {e.name: read_table(name, file, form, e) for e in elements}
    chunks, vertex = tables["chunk"], tables["vertex"]
    if len(chunks) * _CHUNK < len(vertex):
        raise FileFormatError(
            f"{name}: {len(vertex)} Gaussians need {-(-len(vertex) // _CHUNK)} chunks, got {len(chunks)}"
        )
    with np.errstate(all="ignore"):  # bounds may be arbitrary: Gaussians that become infinite or NaN are not drawn
        return _unpacked(name, chunks, vertex, tables.get("sh"))


def _check_header(name: str, elements: list[Element]) -> None:
    found = {e.name: e for e in elements}
    if "chunk" not in found or not found["chunk"].names >= set(_BOUNDS):
        raise FileFormatError(f"{name}: a compressed PLY without an element 'chunk' that holds bounds")
    kinds = dict(found["vertex"].properties)
    wrong = [n for n in _PACKED if kinds.get(n) not in ("u4", "i4")]
    if wrong:
        raise FileFormatError(f"{name}: a compressed PLY whose vertex has no 32-bit integers {', '.join(wrong)}")


def _unpacked(name: str, chunks: Any, vertex: Any, sh: Any) -> Gaussians:
    rows = chunks[np.arange(len(vertex)) // _CHUNK]
    words = {n: vertex[n].astype(np.uint32) for n in _PACKED}
    color = np.stack([_bits(words["packed_color"], shift, 8) for shift in (24, 16, 8, 0)], axis=1)
    rgb, alpha = color[:, :3], color[:, 3]
    if all(b in chunks.dtype.names for b in _COLOR_BOUNDS):
        rgb = _between(rows, _COLOR_BOUNDS, rgb)
    return Gaussians(
        _between(rows, _BOUNDS[:6], _three(words["packed_position"])),
        _between(rows, _BOUNDS[6:], _three(words["packed_scale"])),
        _rotations(words["packed_rotation"]),
        logits(alpha),
        _sh(name, rgb_to_sh(rgb), sh),
    )


def _bits(words: np.ndarray, shift: int, count: int) -> np.ndarray:
    """Some bits of each word as a number from 0 to 1."""
    top = (1 << count) - 1
    return np.asarray(((words >> np.uint32(shift)) & np.uint32(top)) / top)


def _three(words: np.ndarray) -> np.ndarray:
    return np.stack([_bits(words, 21, 11), _bits(words, 11, 10), _bits(words, 0, 11)], axis=1)


def _between(rows: Any, names: tuple[str, ...], share: np.ndarray) -> np.ndarray:
    low, high = (np.stack([rows[n].astype(float) for n in part], axis=1) for part in (names[:3], names[3:]))
    return np.asarray(low + share * (high - low))


def _rotations(words: np.ndarray) -> np.ndarray:
    """Quaternions wxyz from their three smallest components; the top bits say which one is left out."""
    parts = (np.stack([_bits(words, s, 10) for s in (20, 10, 0)], axis=1) - 0.5) * np.sqrt(2)
    largest = np.sqrt(np.maximum(1 - np.sum(parts**2, axis=1), 0))
    which = (words >> np.uint32(30)).astype(int)
    quats = np.empty((len(words), 4))
    for left_out in range(4):
        chosen = which == left_out
        quats[chosen] = np.insert(parts[chosen], left_out, largest[chosen], axis=1)
    return quats


def _sh(name: str, band0: np.ndarray, table: Any) -> np.ndarray:
    if table is None:
        return band0[:, None, :]
    columns = [f"f_rest_{i}" for i in range(sum(1 for n in table.dtype.names if n.startswith("f_rest_")))]
    count = len(columns) // 3 + 1
    numbered = set(columns) <= set(table.dtype.names)
    if len(columns) % 3 or sh_degree(count) is None or not numbered or (columns and len(table) != len(band0)):
        raise FileFormatError(f"{name}: element 'sh' has {len(columns)} coefficients for {len(table)} Gaussians")
    if not columns:
        return band0[:, None, :]
    values = np.stack([table[n].astype(float) for n in columns], axis=1)
    centred = np.where(values == 0, 0.0, np.where(values == 255, 1.0, (values + 0.5) / 256)) - 0.5
    rest = (centred * 8).reshape(len(table), 3, count - 1).transpose(0, 2, 1)
    return np.concatenate([band0[:, None, :], rest], axis=1)


scene_format(SceneFormat("compressed PLY", "PlayCanvas' packed layout", ".ply", read, matches=matches))
