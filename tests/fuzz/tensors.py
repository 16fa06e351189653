"""Tensors of spans, and the ops that move elements or add them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from fuzz import elementwise
from fuzz.spans import ANYTHING, INF, NAN, Precision, Span, hull_of

Shape = tuple[int, ...]


class RefusedError(Exception):
    """The op does not accept these values: InputError on a device."""


class UndecidedError(Exception):
    """Whether the op accepts its values hangs on a rounding error."""


@dataclass(frozen=True)
class Tensor:
    """Spans in row-major order."""

    shape: Shape
    dtype: str
    spans: Sequence[Span]

    def __post_init__(self) -> None:
        assert len(self.spans) == math.prod(self.shape), (self.shape, len(self.spans))

    @property
    def strides(self) -> list[int]:
        return [math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]


def indices(shape: Shape) -> Iterator[Shape]:
    """Every index of a shape in row-major order."""
    return product(*(range(n) for n in shape))


def picked(x: Tensor, shape: Shape, where: Callable[[Shape], Sequence[int]]) -> Tensor:
    """A tensor whose element at an index is that of x at ``where(index)``."""
    strides = x.strides
    return Tensor(
        shape,
        x.dtype,
        [x.spans[sum(i * s for i, s in zip(where(index), strides, strict=True))] for index in indices(shape)],
    )


def broadcast(x: Tensor, shape: Shape) -> Tensor:
    if x.shape == shape:
        return x
    shift = len(shape) - len(x.shape)
    return picked(x, shape, lambda index: [0 if n == 1 else index[k + shift] for k, n in enumerate(x.shape)])


def joint_shape(shapes: Sequence[Shape]) -> Shape:
    """What shapes broadcast to."""
    rank = max(len(s) for s in shapes)
    made = []
    for k in range(rank):
        found = [s[k - rank + len(s)] for s in shapes if k - rank + len(s) >= 0]
        others = [n for n in found if n != 1]
        assert len(set(others)) <= 1, shapes
        made.append(others[0] if others else 1)
    return tuple(made)


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    def where(index: Shape) -> list[int]:
        found = [0] * len(axes)
        for k, a in enumerate(axes):
            found[a] = index[k]
        return found

    return picked(x, tuple(x.shape[a] for a in axes), where)


def narrow(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    if start < 0 or length < 0 or start + length > x.shape[axis]:
        raise RefusedError(f"narrow: {start} + {length} of {x.shape[axis]}")
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    return picked(x, shape, lambda index: [i + (start if k == axis else 0) for k, i in enumerate(index)])


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    first = parts[0]
    outer, inner = math.prod(first.shape[:axis]), math.prod(first.shape[axis + 1 :])
    spans: list[Span] = []
    for row in range(outer):
        for part in parts:
            size = part.shape[axis] * inner
            spans.extend(part.spans[row * size : (row + 1) * size])
    total = sum(p.shape[axis] for p in parts)
    return Tensor((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype, spans)


def pad(x: Tensor, axis: int, lengths: Sequence[int]) -> Tensor:
    if min(lengths) < 0:
        raise RefusedError(f"pad: {lengths}")
    zero: Span = (0.0, 0.0, False) if x.dtype in ("f32", "f64") else (0, 0, False)
    shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in lengths]
    before, after = (Tensor(s, x.dtype, [zero] * math.prod(s)) for s in shapes)
    return concat([before, x, after], axis)


def _rows(x: Tensor) -> list[Sequence[Span]]:
    width = math.prod(x.shape[1:])
    return [x.spans[i * width : (i + 1) * width] for i in range(x.shape[0])]


def _checked(ids: Tensor, rows: int) -> None:
    for low, high, _ in ids.spans:
        if high < 0 or low >= rows:
            raise RefusedError(f"ids: {low} of {rows}")
    if any(low < 0 or high >= rows for low, high, _ in ids.spans):
        raise UndecidedError("ids")


def gather(x: Tensor, ids: Tensor) -> Tensor:
    rows = _rows(x)
    _checked(ids, len(rows))
    spans: list[Span] = []
    for low, high, _ in ids.spans:
        candidates = rows[int(low) : int(high) + 1]
        spans.extend(candidates[0] if low == high else [hull_of(c) for c in zip(*candidates, strict=True)])
    return Tensor((*ids.shape, *x.shape[1:]), x.dtype, spans)


def scatter_add(base: Tensor, ids: Tensor, updates: Tensor, how: Precision) -> Tensor:
    """Row by row in order, as documented: each addition rounds."""
    _checked(ids, base.shape[0])
    if any(low != high for low, high, _ in ids.spans):
        raise UndecidedError("ids of scatter_add")
    width = math.prod(base.shape[1:])
    made = list(base.spans)
    for k, (row, _, _) in enumerate(ids.spans):
        for j in range(width):
            at = int(row) * width + j
            made[at] = elementwise.add(made[at], updates.spans[k * width + j], how)
    return Tensor(base.shape, base.dtype, made)


# --- reductions -------------------------------------------------------------------------------------------
def total(spans: Sequence[Span], how: Precision, terms: float = 0.0) -> Span:
    """A sum in any order, each addition and up to ``terms`` roundings of its terms off by a unit."""
    if any(s[0] > s[1] for s in spans):
        return NAN
    nan = any(s[2] for s in spans)
    if len(spans) == 1 and not terms:
        return _unsigned(spans[0])
    lows, highs = [s[0] for s in spans], [s[1] for s in spans]
    up, down = INF in highs, -INF in lows
    nan = nan or (up and down)
    if INF in lows or -INF in highs:  # some term is surely infinite
        if INF in lows and -INF in highs:
            return NAN
        sure = INF if INF in lows else -INF
        return (sure, sure, nan)
    size = math.fsum(max(-s[0], s[1]) for s in spans if s[0] > -INF and s[1] < INF)
    steps = terms + min(len(spans) - 1, how.sums)
    if size * (1 + steps * how.unit) >= how.largest and min(lows) < 0 < max(highs):
        return ANYTHING  # what lies between may overflow, or not: that is a matter of order
    low = -INF if down else _fsum(lows)
    high = INF if up else _fsum(highs)
    made = how.rounded(low, high, nan, how.basic, steps * how.unit * size + how.tiny * how.unit * len(spans))
    return _unsigned(made)


def _fsum(values: Sequence[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return INF if max(values) > -min(values) else -INF


def _unsigned(a: Span) -> Span:
    """The span with both zeros, if it ends with one: sums may start with 0."""
    return (-0.0 if a[0] == 0 else a[0], 0.0 if a[1] == 0 else a[1], a[2])


def largest(spans: Sequence[Span], how: Precision) -> Span:
    found = spans[0]
    for span in spans[1:]:
        found = elementwise.maximum(found, span, how)
    return found


def smallest(spans: Sequence[Span], how: Precision) -> Span:
    found = spans[0]
    for span in spans[1:]:
        found = elementwise.minimum(found, span, how)
    return found


def mean(spans: Sequence[Span], how: Precision) -> Span:
    if not spans:
        return NAN
    count = float(len(spans))
    if how.gpu:  # multiplied by the rounded 1 / count
        return elementwise.mul(total(spans, how), how.rounded(1 / count, 1 / count, False, 1), how)
    return elementwise.div(total(spans, how), (count, count, False), how)


def reduce(op: str, x: Tensor, axes: Sequence[int], keepdims: bool, how: Precision) -> Tensor:
    kept = [k for k in range(len(x.shape)) if k not in axes]
    if op in ("reduce_max", "reduce_min") and any(x.shape[a] == 0 for a in axes):
        raise RefusedError(f"{op}: nothing along an axis")
    outer = tuple(x.shape[k] for k in kept)
    groups: dict[Shape, list[Span]] = {index: [] for index in indices(outer)}
    for index, span in zip(indices(x.shape), x.spans, strict=True):
        groups[tuple(index[k] for k in kept)].append(span)
    one = {"sum": _sum, "mean": mean, "reduce_max": largest, "reduce_min": smallest}[op]
    shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape)) if keepdims else outer
    return Tensor(shape, x.dtype, [one(group, how) for group in groups.values()])


def _sum(spans: Sequence[Span], how: Precision) -> Span:
    return total(spans, how) if spans else (-0.0, 0.0, False)


def matmul(a: Tensor, b: Tensor, how: Precision, exact: Precision) -> Tensor:
    """Products are taken exactly (``exact`` is a precision that hardly rounds); their roundings count as the sum's. One
    that is too large for a number is infinite, or, multiplied and added at once, never a number of its own."""
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    spans = []
    for i in range(rows):
        for j in range(columns):
            terms = [elementwise.mul(a.spans[i * inner + k], b.spans[k * columns + j], exact) for k in range(inner)]
            if any(infinite(t, how) for t in terms):
                signs = {math.copysign(1, end) for t in terms for end in t[:2] if end != 0}
                if len(signs) > 1 and any(infinite(t, how) and not infinite(t, exact) for t in terms):
                    spans.append(ANYTHING)
                    continue
                terms = [elementwise.mul(t, (1.0, 1.0, False), how) for t in terms]
            spans.append(total(terms, how, 1.0) if terms else (-0.0, 0.0, False))
    return Tensor((rows, columns), a.dtype, spans)


def infinite(a: Span, how: Precision) -> bool:
    """Whether a product may overflow where it is computed."""
    return a[0] <= a[1] and max(-a[0], a[1]) >= how.largest
