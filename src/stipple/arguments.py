"""Arguments of public functions: accepted in every sensible form, refused in one sentence otherwise.

Each function takes the argument's name and value and returns the value in its canonical type, or raises InputError
that names the argument, what was expected, and what was passed. All numbers end up in float32, so a number that
float32 cannot hold counts as infinite, and one that it rounds to 0 as 0.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from stipple.errors import InputError

Array = np.ndarray
Kind = TypeVar("Kind")
_LONGEST = 60
_LONGEST_INT = 128
MAX_SIDE = 1 << 20
"""Maximum width and height of an image in pixels."""


def shown(value: Any) -> str:
    """A value as shown in messages: always short."""
    if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value):
        return f"an array of shape {list(value.shape)} and dtype {value.dtype}"
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:  # Python refuses to print very long ones
        return f"an int of {value.bit_length()} bits"
    if value is None or isinstance(value, (str, bytes, numbers.Number, np.generic)):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"a value of type {type(value).__name__}"


def integer(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """An int: Python's, NumPy's, or an array without dimensions. Not a bool, nor a float, even a whole one."""
    try:
        result = None if isinstance(value, (bool, np.bool_)) else operator.index(_scalar(value))
    except TypeError:
        result = None
    if result is None or (minimum is not None and result < minimum) or (maximum is not None and result > maximum):
        bounds = [f"{sign} {bound}" for sign, bound in ((">=", minimum), ("<=", maximum)) if bound is not None]
        raise InputError(f"{name}: expected an int {' and '.join(bounds)}".rstrip() + f", got {shown(value)}")
    return result


def number(
    name: str, value: Any, *, above: float | None = None, minimum: float | None = None, maximum: float | None = None,
    below: float | None = None,
) -> float:  # fmt: skip
    """A finite number within bounds, as a float. Not a bool or a string."""
    scalar = _scalar(value)
    real = isinstance(scalar, numbers.Real) and not isinstance(scalar, (bool, np.bool_))
    try:
        result = float(scalar) if real else np.nan
    except OverflowError:
        result = np.inf
    with np.errstate(over="ignore"):
        single = float(np.float32(result))
    inside = (
        np.isfinite(single)
        and (above is None or single > above)
        and (minimum is None or single >= minimum)
        and (maximum is None or result <= maximum)
        and (below is None or result < below)
    )
    if not inside:
        signs = ((">", above), (">=", minimum), ("<=", maximum), ("<", below))
        bounds = " and ".join(f"{sign} {bound:g}" for sign, bound in signs if bound is not None)
        raise InputError(f"{name}: expected a finite number {bounds}".rstrip() + f", got {shown(value)}")
    return result


def _scalar(value: Any) -> Any:
    """The element of an array without dimensions; anything else as it is."""
    if isinstance(value, np.generic) or getattr(value, "ndim", None) != 0 or isinstance(value, np.ma.MaskedArray):
        return value
    try:
        return np.asarray(value)[()]
    except Exception:  # another library's array: its error does not help, the caller says what was expected
        return value


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name}: expected True or False, got {shown(value)}")
    return bool(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of a few strings."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}: expected one of {', '.join(choices)}, got {shown(value)}")
    return value


def instance(name: str, value: Any, kind: type[Kind]) -> Kind:
    """An object of a class."""
    if not isinstance(value, kind):
        raise InputError(f"{name}: expected a {kind.__module__}.{kind.__qualname__}, got {shown(value)}")
    return value


def device(value: Any) -> str:
    """A device's name, whether there is such a device or not."""
    if not isinstance(value, str):
        raise InputError(
            f"device: expected a name such as 'auto' or 'cpu' (see stipple.runtime.devices()), got {shown(value)}"
        )
    return value


def read(name: str, value: Any, kinds: str = "iuf", what: str = "an array of numbers") -> Array:
    """An array of whatever shape and dtype it has: NumPy's, lists, DLPack, ``__array__``. Real numbers by default."""
    expected = f"{name}: expected {what}"
    if value is None or isinstance(value, (str, bytes, dict, set)):
        raise InputError(f"{expected}, got {shown(value)}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{expected}, got one with masked elements; fill them first")
    try:
        through_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        array = np.from_dlpack(value) if through_dlpack else np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # another library's array may raise anything
        raise InputError(f"{expected}, got {shown(value)}: {error}") from error
    if array.dtype.kind not in kinds and not (array.size == 0 and isinstance(value, (list, tuple))):
        raise InputError(f"{expected}, got {f'dtype {array.dtype}' if array.dtype != object else shown(value)}")
    return array


def array(
    name: str, value: Any, shape: Sequence[int | str], dtype: type[np.floating[Any]] = np.float32, *,
    finite: bool = False, single: bool = True,
) -> Array:  # fmt: skip
    """Numbers in a contiguous array of a shape, in which strings (``"N"``) stand for any size.

    NaN and infinity are accepted unless ``finite``. Numbers that overflow float32 are not, even where the array stays
    float64, unless ``single`` is False.
    """
    given = read(name, value)
    if given.ndim != len(shape) or any(isinstance(w, int) and w != n for w, n in zip(shape, given.shape, strict=True)):
        expected = ", ".join(str(w) for w in shape)
        raise InputError(f"{name}: expected shape [{expected}], got {list(given.shape)}")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(given, dtype).reshape(given.shape)
        held = result.astype(np.float32, copy=False) if single else result
    may_overflow = given.dtype.kind == "f" and given.dtype.itemsize > held.itemsize
    if not (finite or may_overflow):
        return result
    bad = ~np.isfinite(held) if finite else np.isinf(held) & np.isfinite(given)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"element {list(first)} is {given[first]}" if first else f"got {given[first]}"
        kind = f"{'finite ' if finite else ''}numbers{' that float32 holds' if single else ''}"
        raise InputError(f"{name}: expected {kind}; {where}")
    return result


def image_size(width: Any, height: Any, channels: int) -> tuple[int, int]:
    """Width and height of an image whose elements the kernels can index with 32 bits."""
    size = integer("width", width, 1, MAX_SIDE), integer("height", height, 1, MAX_SIDE)
    if size[0] * size[1] * (channels + 1) >= 1 << 31:
        raise InputError(
            f"width, height: an image of {size[0]} x {size[1]} pixels with {channels} channels and alpha has 2^31 "
            "numbers or more; render it in parts (a Camera for each, with its own cx and cy)"
        )
    return size
