"""Sums over an entry's pixels in the gradient of compositing: moments of the exponent's gradient, and their order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from stipple.backends.cpu.compile import inline
from stipple.backends.cpu.footprint import LOG2E, Variant
from stipple.backends.cpu.simd import Vector, broadcast, fma

f4 = np.float32

# Sums of an entry: of the exponent's gradient and its moments; in ray also those of the denominator's; then
# the magnitudes of the 2D mean's gradient, if requested; then the features' gradients.
MOMENTS = 6


@register_jitable
def first_feature(variant):
    """Sums of each entry that come before the features'."""
    return MOMENTS * (1 + len(variant.ray)) + 2 * len(variant.extra)


def sum_count(kind: Variant, features: int) -> int:
    """Sums of each entry: features in whole chunks."""
    chunk = len(kind.features)
    return int(first_feature(kind)) + -(-features // chunk) * chunk


# --- sums over pixels -----------------------------------------------------------------------------------
class Moments(NamedTuple):
    """Sums over pixels of v, v dx, v dy, v dx^2, v dx dy, v dy^2."""

    one: Vector
    x: Vector
    y: Vector
    xx: Vector
    xy: Vector
    yy: Vector


class Rows(NamedTuple):
    """Sums over the pixels of a column of vectors, each lane its own dx: of v, v dy, v dy^2."""

    one: Vector
    y: Vector
    yy: Vector


@inline
def no_moments():
    zero = broadcast(0)
    return Moments(zero, zero, zero, zero, zero, zero)


@inline
def no_rows():
    zero = broadcast(0)
    return Rows(zero, zero, zero)


@inline
def add_row(sums, v, dy):
    """Add the pixels of one more vector."""
    v_y = v * dy
    return Rows(sums.one + v, sums.y + v_y, fma(v_y, dy, sums.yy))


@inline
def add_column(sums, rows, dx):
    """Add the sums of one more column."""
    x = rows.one * dx
    return Moments(
        sums.one + rows.one,
        sums.x + x,
        sums.y + rows.y,
        fma(x, dx, sums.xx),
        fma(rows.y, dx, sums.xy),
        sums.yy + rows.yy,
    )


@inline
def mean_gradient(variant, g, along, dy, v, v_ratio):
    """The 2D mean's gradient at pixels: of the exponent's numerator, and in ray of its denominator."""
    dx = along.dx
    numerator, denominator = f4(-1) / LOG2E, f4(2) / LOG2E
    x = v * ((2 * g.qa * numerator) * dx + (g.qb * numerator) * dy)
    y = v * ((g.qb * numerator) * dx + (2 * g.qc * numerator) * dy)
    if len(variant.ray):
        scaled = v_ratio * denominator
        x = x + scaled * (g.e * dx + (g.f * dy + g.p))
        y = y + scaled * (g.f * dx + (g.g * dy + g.q))
    return x, y


# --- sums of an entry -----------------------------------------------------------------------------------
class EntrySums(NamedTuple):
    """The sums of an entry, each still a vector; features after the first chunk are added later."""

    total: Vector
    numerator: Moments
    denominator: Moments
    magnitude_x: Vector
    magnitude_y: Vector
    features: tuple[Vector, ...]


@inline
def numerator_sums(s):
    n = s.numerator
    return (s.total, n.x, n.y, n.xx, n.xy, n.yy)


@inline
def denominator_sums(s):
    d = s.denominator
    return (d.one, d.x, d.y, d.xx, d.xy, d.yy)


@inline
def magnitude_sums(s):
    return (s.magnitude_x, s.magnitude_y)


def in_order(variant, sums):
    """An entry's sums as they are stored."""
    raise NotImplementedError("compiled code only")


@overload(in_order, inline="always")
def _in_order(variant, sums):
    ray, extra = len(variant.types[0]) > 0, len(variant.types[3]) > 0
    if ray and extra:
        return lambda variant, sums: (
            numerator_sums(sums) + denominator_sums(sums) + magnitude_sums(sums) + sums.features
        )
    if ray:
        return lambda variant, sums: numerator_sums(sums) + denominator_sums(sums) + sums.features
    if extra:
        return lambda variant, sums: numerator_sums(sums) + magnitude_sums(sums) + sums.features
    return lambda variant, sums: numerator_sums(sums) + sums.features
