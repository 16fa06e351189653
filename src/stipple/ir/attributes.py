"""Node attributes: their kinds, ranges and serialised form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stipple.errors import GraphError
from stipple.ir.dtype import DType
from stipple.ir.shape import Dim, Shape

AttrValue = Any
"""int, float, bool, str, Dim, Shape, DType, tuple of ints, read-only ndarray, or a nested tuple (program)."""

MAX_PROGRAM_STEPS = 10_000


@dataclass(frozen=True)
class Attr:
    """Schema of one attribute.

    ``kind`` is one of int, float, bool, str, dim, shape, axes, dtype, array, program. ``minimum`` and
    ``maximum`` bound numbers (inclusive; exclusive at the lower end when ``open_minimum``), ``choices`` text.
    """

    name: str
    kind: str
    doc: str = ""
    default: AttrValue = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    open_minimum: bool = False
    choices: tuple[str, ...] = ()

    def normalise(self, op: str, value: AttrValue) -> AttrValue:
        """The value in its canonical type, or GraphError naming op, attribute and what was expected."""
        try:
            result = _NORMALISERS[self.kind](value)
        except (TypeError, ValueError, OverflowError, GraphError) as error:
            detail = f" ({error})" if isinstance(error, GraphError) else ""
            raise GraphError(f"{op}: {self.name}: expected {self.expected()}, got {_short(value)}{detail}") from None
        if not self._in_range(result):
            raise GraphError(f"{op}: {self.name}: expected {self.expected()}, got {_short(value)}")
        return result

    def expected(self) -> str:
        """The accepted values, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = _KIND_WORDS[self.kind]
        bounds = []
        if self.minimum is not None:
            bounds.append(f"{'>' if self.open_minimum else '>='} {self.minimum:g}")
        if self.maximum is not None:
            bounds.append(f"<= {self.maximum:g}")
        return words + (" " + " and ".join(bounds) if bounds else "")

    def _in_range(self, value: AttrValue) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind not in ("int", "float"):
            return True
        if self.minimum is not None and (value < self.minimum or (self.open_minimum and value == self.minimum)):
            return False
        return self.maximum is None or value <= self.maximum

    def to_json(self, value: AttrValue) -> Any:
        """The value as JSON data. Arrays are stored beside the JSON, not in it."""
        if self.kind in ("dim", "shape"):
            return value.to_json()
        if self.kind == "float" and math.isinf(value):
            return str(value)  # JSON has no infinity
        if self.kind == "dtype":
            return value.value
        if self.kind == "program":
            return _listed(value)
        if self.kind == "axes":
            return list(value)
        return value


def _short(value: AttrValue) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _int(value: AttrValue) -> int:
    if isinstance(value, (bool, str)) or not hasattr(value, "__index__"):
        raise TypeError
    result = int(value.__index__())
    if abs(result) > 1 << 53:
        raise ValueError
    return result


def _float(value: AttrValue) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("inf", "-inf")):
        raise TypeError
    result = float(value)
    if math.isnan(result):
        raise ValueError
    return result


def _bool(value: AttrValue) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError
    return bool(value)


def _str(value: AttrValue) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError
    return value


def _axes(value: AttrValue) -> tuple[int, ...]:
    result = tuple(_int(v) for v in value)
    if len(set(result)) != len(result) or any(not 0 <= v < 8 for v in result):
        raise ValueError
    return result


def _array(value: AttrValue) -> np.ndarray:
    result = np.array(value, order="C", copy=True)
    DType.of(result.dtype)
    result.setflags(write=False)
    return result


def _program(value: AttrValue) -> tuple[AttrValue, ...]:
    result = _frozen(value, 4)
    if not isinstance(result, tuple) or len(result) > MAX_PROGRAM_STEPS:
        raise TypeError
    return result


def _frozen(value: AttrValue, depth: int) -> AttrValue:
    if isinstance(value, (list, tuple)):
        if depth == 0:
            raise TypeError
        return tuple(_frozen(v, depth - 1) for v in value)
    if isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError


def _listed(value: AttrValue) -> AttrValue:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


_NORMALISERS: Mapping[str, Callable[[AttrValue], AttrValue]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
    "dim": Dim.of,
    "shape": Shape,
    "axes": _axes,
    "dtype": DType.of,
    "array": _array,
    "program": _program,
}
_KIND_WORDS = {
    "int": "an int",
    "float": "a number",
    "bool": "a bool",
    "str": "a text",
    "dim": "a dimension",
    "shape": "a shape",
    "axes": "distinct axes",
    "dtype": "a dtype",
    "array": "an array of f32, f64, i32, u8 or bool",
    "program": "a program of elementwise steps",
}


def attr_key(value: AttrValue) -> Any:
    """A hashable key that is equal for equal attribute values (bits of floats and arrays included)."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, float):
        return ("float", value.hex() if math.isfinite(value) else repr(value))
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Shape):
        return ("shape", tuple(value))
    if isinstance(value, tuple):
        return ("tuple", tuple(attr_key(v) for v in value))
    return value
