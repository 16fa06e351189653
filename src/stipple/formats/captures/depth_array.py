"""Depth maps in NumPy's .npy files, checked before anything is allocated."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from stipple.errors import FileFormatError
from stipple.formats.reading import read_bytes

Array = np.ndarray
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_depth_array(path: Path, size: tuple[int, int]) -> Array:
    """Numbers [H, W]. Raises FileFormatError, naming a file that is missing, broken, or of another shape."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the depth map is missing") from None
    file = io.BytesIO(data)
    try:
        version: Any = npy.read_magic(file)
        shape, columns_first, dtype = _HEADERS[version](file)
    except Exception as error:  # the header is a Python literal: SyntaxError, MemoryError, RecursionError, KeyError ...
        raise FileFormatError(f"{path}: cannot be read as an array: {_reason(error)}") from None
    if shape != (size[1], size[0]) or dtype.kind not in "fui":
        raise FileFormatError(f"{path}: expected numbers [{size[1]}, {size[0]}], got {dtype} {shape}"[:500])
    needed, held = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if held < needed:
        raise FileFormatError(f"{path}: truncated: expected {needed} bytes of depth, found {held}")
    values = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    return values.reshape(shape, order="F" if columns_first else "C")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
