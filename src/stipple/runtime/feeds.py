"""Checks of feeds: names, dtypes, shapes, symbols, and values that an op forbids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stipple.errors import FeedError
from stipple.ir.graph import Graph, Value
from stipple.ir.numbers import as_dtype
from stipple.ir.shape import TensorType


def as_array(what: str, value: Any, type_: TensorType) -> np.ndarray:
    """A feed as a NumPy array of the right dtype and rank.

    Arrays (NumPy or DLPack) must have the dtype; Python numbers and lists are converted if it can represent them.
    """
    if isinstance(value, (bool, int, float, list, tuple)):
        try:
            array = as_dtype(value, type_.dtype)
        except ValueError as error:
            raise FeedError(f"{what}: {type_}: {error}") from None
    else:
        array = _from_array_like(what, value, type_)
        if array.dtype != type_.dtype.numpy:
            raise FeedError(
                f"{what}: expected dtype {type_.dtype.value}, got {array.dtype}; convert it with "
                f".astype({type_.dtype.numpy.name!r})"
            )
    if array.ndim != type_.shape.rank:
        raise FeedError(f"{what}: expected shape {type_.shape}, got {list(array.shape)}")
    return array


def _from_array_like(what: str, value: Any, type_: TensorType) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise FeedError(f"{what}: expected {type_}, got an array with masked elements; fill them first")
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise FeedError(f"{what}: cannot be read through DLPack (is it on the CPU?): {error}") from None
    if hasattr(value, "__array__"):
        try:
            return np.asarray(value)
        except MemoryError:
            raise
        except Exception as error:  # somebody else's array may raise anything
            raise FeedError(f"{what}: cannot be read as an array: {error}") from error
    raise FeedError(f"{what}: expected {type_} as an array, got {type(value).__name__}")


class Bindings:
    """Values of the dimension symbols in one run, and where each comes from."""

    def __init__(self) -> None:
        self.dims: dict[str, int] = {}
        self._source: dict[str, str] = {}

    def bind(self, what: str, type_: TensorType, shape: tuple[int, ...]) -> None:
        """Match a concrete shape against a type, binding symbols; FeedError if they do not match."""
        for dim, number in zip(type_.shape, shape, strict=True):
            symbol = dim.symbol
            if symbol is not None and symbol not in self.dims:
                self.dims[symbol] = number
                self._source[symbol] = what
            elif dim.resolve(self.dims) != number:
                reasons = [f"{s} = {self.dims[s]} from {self._source[s]}" for s in sorted(dim.symbols)]
                where = f" with {', '.join(reasons)}" if reasons else ""
                raise FeedError(f"{what}: expected shape {type_.shape}{where}, got {list(shape)}")


def check_names(given: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Raise FeedError unless the feeds are exactly the graph's inputs."""
    missing = expected.keys() - given.keys()
    extra = given.keys() - expected.keys()
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"missing {', '.join(sorted(missing))}")
        if extra:
            parts.append(f"unknown {', '.join(sorted(map(str, extra)))}")
        raise FeedError(f"feeds: {'; '.join(parts)}; the graph takes {', '.join(sorted(expected)) or 'none'}")


def finite_users(graph: Graph) -> dict[str, str]:
    """Inputs and parameters that go straight to an operand that must be finite, with that operand's name."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        for i, value in enumerate(node.inputs):
            operand = node.definition.operand(i)
            if operand.finite and value.node.definition.source:
                found.setdefault(value.name, f"{operand.name} of {node.op}")
    return found


def check_finite(what: str, array: np.ndarray, user: str) -> None:
    """Raise FeedError, naming the first bad element, if an array holds NaN or infinity."""
    bad = ~np.isfinite(array)
    if bad.any():
        index = [int(i) for i in np.argwhere(bad)[0]]
        raise FeedError(f"{what}: {user} must be finite; element {index} is {array[tuple(index)]}")


def describe(value: Value) -> str:
    """A source's name in messages."""
    return f"{'feed' if value.node.op == 'input' else 'parameter'} {value.name!r}"
