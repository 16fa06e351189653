"""Checks of operands when a graph runs, before a kernel writes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stipple.errors import InputError
from stipple.ir.graph import Node

Array = np.ndarray
Dims = Mapping[str, int]
Shapes = Sequence[tuple[int, ...]]


def check(node: Node, x: Sequence[Array], dims: Dims) -> None:
    """Raise InputError, naming the op and the operand, unless a node can run on these arrays."""
    check_shapes(node, [a.shape for a in x], dims)
    for i, array in enumerate(x):
        operand = node.definition.operand(i)
        if operand.finite:
            check_finite(f"{node.op}: {operand.name}", array)
    named = node.definition.named_operands(x)
    if node.op in ("gather", "scatter_add"):
        check_ids(node.op, named.ids, len(named[0]))
    elif node.op in ("adam", "adam_visible"):
        check_step(node.op, float(named.step))


def check_shapes(node: Node, shapes: Shapes, dims: Dims) -> None:
    """The part of :func:`check` that needs no values, for devices whose arrays are elsewhere."""
    rule = _SHAPES.get(node.op)
    if rule is not None:
        rule(node, shapes[0], dims)


def check_finite(what: str, array: Array) -> None:
    """Raise InputError, naming the first bad element, if an array holds NaN or infinity."""
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(finite_message(what, index, float(array[index])))


def finite_message(what: str, index: Sequence[int], value: float) -> str:
    """The message for an element that is NaN or infinite."""
    where = f"element {list(index)} is " if index else "got "
    return f"{what} must be finite; {where}{value:g}"


def check_ids(op: str, ids: Array, rows: int) -> None:
    """Raise InputError if an index is out of range."""
    bad = ids[(ids < 0) | (ids >= rows)]
    if bad.size:
        raise InputError(ids_message(op, rows, int(bad.min()), int(bad.max())))


def ids_message(op: str, rows: int, smallest: int, largest: int) -> str:
    """The message for indices out of range, of which these are the smallest and the largest."""
    expected = f"ids must be between 0 and {rows - 1}" if rows else "there are no rows, so there must be no ids"
    return f"{op}: {expected}, got {smallest} to {largest}"


def check_step(op: str, step: float) -> None:
    """Raise InputError unless Adam's step is at least 1."""
    if not step >= 1:
        raise InputError(step_message(op, step))


def step_message(op: str, step: float) -> str:
    """The message for a step below 1."""
    return f"{op}: step counts from 1, got {step:g}"


def check_sorted_ids(ids: Array, gaussians: int) -> None:
    """Raise InputError if an entry of a tile list is not the index of a Gaussian."""
    if ids.size and not (ids.min() >= 0 and ids.max() < gaussians):
        raise InputError(sorted_ids_message(gaussians))


def sorted_ids_message(gaussians: int) -> str:
    """The message for entries that are not indices of Gaussians."""
    return f"splat_rasterize: sorted_ids must be between 0 and {gaussians - 1}"


def check_tile_ranges(ranges: Array, entries: int) -> None:
    """Raise InputError if a tile's list extends beyond the entries."""
    start, end = ranges[:, 0], ranges[:, 1]
    if not ((start >= 0) & (start <= end) & (end <= entries)).all():
        raise InputError(tile_ranges_message(entries))


def tile_ranges_message(entries: int) -> str:
    """The message for tiles whose lists extend beyond the entries."""
    return f"splat_rasterize: tile_ranges must be between 0 and {entries}, ascending"


def _check_narrow(node: Node, shape: tuple[int, ...], dims: Dims) -> None:
    axis, start = node.attrs["axis"], node.attrs["start"].resolve(dims)
    length = node.attrs["length"].resolve(dims)
    if start < 0 or length < 0 or start + length > shape[axis]:
        raise InputError(f"narrow: elements {start} to {start + length} are outside axis {axis} of {list(shape)}")


def _check_pad(node: Node, shape: tuple[int, ...], dims: Dims) -> None:
    before, after = node.attrs["before"].resolve(dims), node.attrs["after"].resolve(dims)
    if min(before, after) < 0:
        raise InputError(f"pad: lengths must not be negative, got {(before, after)}")


def _check_extreme(node: Node, shape: tuple[int, ...], dims: Dims) -> None:
    if any(shape[a] == 0 for a in node.attrs["axes"]):
        raise InputError(f"{node.op}: no element along an axis of {list(shape)}")


_SHAPES: Mapping[str, Callable[[Node, tuple[int, ...], Dims], None]] = {
    "narrow": _check_narrow,
    "pad": _check_pad,
    "reduce_max": _check_extreme,
    "reduce_min": _check_extreme,
}
