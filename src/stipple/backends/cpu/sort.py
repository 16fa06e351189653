"""The order of visible Gaussians by depth: a stable radix sort of 32-bit keys, 11 bits at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stipple.backends.cpu.compile import kernel
from stipple.backends.cpu.threads import Threads

Array = np.ndarray
_RADIX_BITS = 11
_DIGITS = 1 << _RADIX_BITS
_MASK = np.uint32(_DIGITS - 1)
_PASSES = 3
_BLOCK = 16384
_SIGN, _NAN = np.uint32(1 << 31), np.uint32(0xFFFFFFFF)


@kernel("i8(i4[:,::1],f4[::1],u4[::1],i4[::1])")
def visible_keys(radii, depths, keys, ids):
    """Keys in the order of the depths (NaN last), and indices, of visible Gaussians; returns their number.

    ``keys`` and ``ids`` are one longer than ``depths``.
    """
    bits = depths.view(np.uint32)
    n = 0
    for i in range(len(depths)):
        key = bits[i] ^ (_NAN if bits[i] & _SIGN else _SIGN)  # negative floats sort in reverse, and before the others
        if depths[i] == 0:
            key = _SIGN  # -0 is 0
        if depths[i] != depths[i]:
            key = _NAN
        keys[n] = key
        ids[n] = i
        n += 1 if radii[i, 0] > 0 and radii[i, 1] > 0 else 0
    return n


@kernel("void(i8,i8,u4[::1],u4,i8[::1])")
def count_digits(start, end, keys, shift, counts):
    """How often each digit occurs in a block."""
    counts[:] = 0
    for i in range(start, end):
        counts[np.intp((keys[i] >> shift) & _MASK)] += 1


@kernel("void(i8,i8,u4[::1],i4[::1],u4,i8[::1],u4[::1],i4[::1])")
def move_by_digit(start, end, keys, ids, shift, cursors, out_keys, out_ids):
    """Move a block's items to the places that ``cursors`` counts up, in order."""
    for i in range(start, end):
        key = keys[i]
        digit = np.intp((key >> shift) & _MASK)
        at = cursors[digit]
        cursors[digit] = at + 1
        out_keys[at] = key
        out_ids[at] = ids[i]


def depth_order(radii: Array, depths: Array, threads: Threads) -> Array:
    """Indices of the visible Gaussians by depth, ties by index; in memory that the next call may reuse."""
    items, others = (_items(f"sort {k}", len(depths) + 1, threads) for k in range(2))
    count = visible_keys(radii, depths, *items)
    counts = np.empty((-(-count // _BLOCK), _DIGITS), np.int64)
    items, others = (_Items(keys[:count], ids[:count]) for keys, ids in (items, others))
    for step in range(_PASSES):
        _sort_by_digit(items, others, np.uint32(step * _RADIX_BITS), counts, threads)
        items, others = others, items
    return items.ids


class _Items(NamedTuple):
    """What is sorted."""

    keys: Array
    ids: Array


def _items(name: str, count: int, threads: Threads) -> _Items:
    memory = threads.scratch(name, (2, count))
    return _Items(memory[0].view(np.uint32), memory[1].view(np.int32))


def _sort_by_digit(items: _Items, out: _Items, shift: np.uint32, counts: Array, threads: Threads) -> None:
    """Sort items by the digit that begins at bit ``shift``."""
    keys = items.keys
    threads.blocks(len(keys), _BLOCK, lambda start, end: count_digits(start, end, keys, shift, counts[start // _BLOCK]))
    cursors = block_starts(counts)
    threads.blocks(
        len(keys),
        _BLOCK,
        lambda start, end: move_by_digit(start, end, *items, shift, cursors[start // _BLOCK], *out),
    )


def block_starts(counts: Array) -> Array:
    """Where each block's items of each kind begin, from their numbers [blocks, kinds]: kinds in order, and within one
    the blocks in order."""
    ends = np.cumsum(counts.T.ravel())
    return np.ascontiguousarray((ends - counts.T.ravel()).reshape(counts.shape[::-1]).T)
