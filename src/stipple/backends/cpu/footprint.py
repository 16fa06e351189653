"""Gaussians as the rasterizer reads them: one record of a cache line each, and its evaluation at pixels.

A record holds what depends on the Gaussian alone: logarithms, roots and divisions are taken once for a Gaussian, not
once for each tile that it reaches. Exponents are binary: with x = log2(opacity) - sigma log2(e), a Gaussian's alpha is
min(2^x, MAX_ALPHA), and it contributes where x is at least its threshold.

``ewa`` has sigma = (a dx^2 + 2 b dx dy + c dy^2) / 2; ``ray`` divides that by
1 + 2 p dx + 2 q dy + e dx^2 + 2 f dx dy + g dy^2, with conics (a, b, c, p, q, e, f, g).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.simd import (
    LANES,
    Vector,
    absolute,
    all_finite,
    broadcast,
    first_lanes,
    fma,
    load,
    load_columns_lanes,
    load_lanes,
    load_scalar,
    log2,
    maximum,
    reciprocal,
    sqrt,
    stack_floats,
    store,
    store_planes,
    store_scalar,
    transpose,
    where,
    zeros,
)

Array = np.ndarray
f4 = np.float32

RECORD = 16
"""Floats of a record: 64 bytes."""
RECORD_FEATURES = 11
"""Where a record's features begin, in ewa."""
CHUNK = 4
"""Features in a record at most, and in a pass over a pixel's features where there are more."""

LOG2E = f4(np.log2(np.e))
REACH = f4(0.5 * nx.EXTENT_SIGMA**2 * np.log2(np.e))
TWO_LN2 = f4(2 * np.log(2))
LEAST_EXPONENT = f4(-126)  # 2^x below this underflows to 0 in float32
INFINITY, FAR, NEVER = f4(np.inf), f4(1e9), f4(1e30)


class Variant(NamedTuple):
    """The variant that a kernel is compiled for, as lengths of tuples: these are types, and so compile-time constants.

    A flag is () for no and (0,) for yes.
    """

    ray: tuple[int, ...]
    many: tuple[int, ...]
    """More than CHUNK features: in chunks of CHUNK planes."""
    features: tuple[int, ...]
    """As long as there are features, or as a chunk."""
    extra: tuple[int, ...]
    """Forward: medians, counts and limits; backward: the magnitudes of the 2D means' gradients."""


def variant(ray: bool, features: int, extra: bool) -> Variant:
    """The variant for a projection, a number of features and the extra results."""
    flags = [(0,) if wanted else () for wanted in (ray, features > CHUNK, extra)]
    return Variant(flags[0], flags[1], (0,) * min(features, CHUNK), flags[2])


def _variant_type(ray: bool, features: int, extra: bool) -> Any:
    return record_type(Variant, *(types.Tuple([types.int64] * len(part)) for part in variant(ray, features, extra)))


USUAL_VARIANTS = (_variant_type(False, 3, False), _variant_type(False, 4, False))
"""What kernels are compiled for ahead of use: ewa, with colours alone and with depth."""


class Gaussians(NamedTuple):
    """Operands of ``describe``."""

    means2d: Array
    conics: Array
    opacities: Array
    features: Array


class Records(NamedTuple):
    """Records of all Gaussians, and where their features are."""

    records: Array
    """[N * RECORD], with space for whole vectors of Gaussians."""
    features: Array
    """Flat; feature k of Gaussian g is element g * stride + offset + k."""
    stride: int
    offset: int


_GAUSSIANS_TYPE = record_type(Gaussians, "f4[:,::1]", "f4[:,::1]", "f4[::1]", "f4[:,::1]")
RECORDS_TYPE = record_type(Records, "f4[::1]", "f4[::1]", "i8", "i8")


class Footprint(NamedTuple):
    """A record's fields, in order; ewa has features in the place of p to g."""

    mean_x: np.float32
    mean_y: np.float32
    qa: np.float32
    """-a / 2 log2(e), and so on: the exponent is qa dx^2 + qb dx dy + qc dy^2 + log_opacity in ewa."""
    qb: np.float32
    qc: np.float32
    log_opacity: np.float32
    threshold: np.float32
    row_low: np.float32
    row_high: np.float32
    column_low: np.float32
    column_high: np.float32
    p: np.float32
    q: np.float32
    e: np.float32
    f: np.float32
    g: np.float32


# --- records ----------------------------------------------------------------------------------------------
class Extent(NamedTuple):
    """Half the size of a footprint's bounding box, and its centre relative to the mean."""

    half_x: Vector
    half_y: Vector
    center_x: Vector
    center_y: Vector


@inline
def determinant(a, b, c):
    """a c - b^2 without cancellation (Kahan)."""
    bb = b * b
    return fma(a, c, -bb) + fma(-b, b, bb)


@inline
def ellipse_extent(a, b, c, reach):
    """Of the ellipse a x^2 + 2 b x y + c y^2 <= reach."""
    scale = reach / determinant(a, b, c)
    zero = broadcast(0)
    return Extent(sqrt(c * scale), sqrt(a * scale), zero, zero)


@inline
def ray_extent(conic, reach):
    """Of the region where the ratio of both polynomials is at most ``reach``; everything if it is no ellipse."""
    a, b, c = conic[0] - reach * conic[5], conic[1] - reach * conic[6], conic[2] - reach * conic[7]
    p, q = -(reach * conic[3]), -(reach * conic[4])
    det = determinant(a, b, c)
    x, y = (b * q - c * p) / det, (b * p - a * q) / det
    rest = reach - (p * x + q * y)
    half_x, half_y = sqrt(c * rest / det), sqrt(a * rest / det)
    bounded = (a > 0) & (det > 0) & (half_x < FAR) & (half_y < FAR) & (absolute(x) < FAR) & (absolute(y) < FAR)
    return Extent(where(bounded, half_x, FAR), where(bounded, half_y, FAR), where(bounded, x, 0), where(bounded, y, 0))


def load_conics(variant, conics, i, lanes):
    """The eight coefficients of LANES Gaussians; those of the denominator are zeros in ewa."""
    raise NotImplementedError("compiled code only")


@overload(load_conics, inline="always")
def _load_conics(variant, conics, i, lanes):
    if len(variant.types[0]):
        return lambda variant, conics, i, lanes: load_columns_lanes(conics, 8 * i, 8, lanes)
    return lambda variant, conics, i, lanes: load_columns_lanes(conics, 3 * i, 3, lanes) + zeros((0, 0, 0, 0, 0))


@inline
def padded(mean, half):
    """Half a size with space for rounding."""
    return half + fma(absolute(mean) + half, 1e-5, 0.01)


@inline
def finite_features(start, count, features):
    """Whether each of the Gaussians from ``start`` on has finite features only: 1 or 0 for each of ``count``."""
    flags, width = stack_floats(16), features.shape[1]
    store(flags, 0, broadcast(0))
    for j in range(count):
        sound = f4(1)
        for k in range(width):
            if not abs(features[start + j, k]) < INFINITY:
                sound = f4(0)
        store_scalar(flags, j, sound)
    return load(flags, 0) > 0


@kernel(*((usual, "i8", "i8", _GAUSSIANS_TYPE, "f4", "f4[::1]") for usual in USUAL_VARIANTS))
def describe(variant, start, end, gaussians, log_cutoff, records):
    """Records of Gaussians start to end; those that are not finite or no ellipses reach no row.

    ``start`` is a multiple of LANES, and there is space for whole vectors of records.
    """
    means, conics = gaussians.means2d.reshape(-1), gaussians.conics.reshape(-1)
    features = gaussians.features.reshape(-1)
    fields = stack_floats(256)
    for i in range(start, end, LANES):
        lanes = first_lanes(end - i)
        mean_x, mean_y = load_columns_lanes(means, 2 * i, 2, lanes)
        opacity = load_lanes(gaussians.opacities, i, lanes)
        log_opacity = log2(opacity)
        threshold = maximum(maximum(log_opacity - REACH, log_cutoff), LEAST_EXPONENT)
        reach = (log_opacity - threshold) * TWO_LN2
        a, b, c, p, q, e, f, g = load_conics(variant, conics, i, lanes)
        sizes = absolute(mean_x) + a + c + absolute(p) + absolute(q) + absolute(e) + absolute(f) + absolute(g)
        if len(variant.ray):
            extent = ray_extent((a, b, c, p, q, e, f, g), reach)
            store_planes(fields, RECORD_FEATURES * LANES, LANES, (p, q, e, f, g))
        else:
            extent = ellipse_extent(a, b, c, reach)
        valid = lanes & (a > 0) & (determinant(a, b, c) > 0) & (sizes < NEVER)
        valid = valid & (opacity >= 1.1754944e-38) & (opacity < NEVER)
        if len(variant.many):
            valid = valid & finite_features(i, min(LANES, end - i), gaussians.features)
        else:
            count = len(variant.features)
            values = load_columns_lanes(features, count * i, variant.features, lanes)
            valid = valid & all_finite(values)
            if not len(variant.ray):
                store_planes(fields, RECORD_FEATURES * LANES, LANES, values)
        half_x, half_y = padded(mean_x, extent.half_x), padded(mean_y, extent.half_y)
        row_low, row_high = mean_y + extent.center_y - half_y, mean_y + extent.center_y + half_y
        valid = valid & (absolute(row_low) < 4 * FAR) & (absolute(row_high) < 4 * FAR)
        store(fields, 0 * LANES, mean_x)
        store(fields, 1 * LANES, mean_y)
        store(fields, 2 * LANES, a * (-0.5 * LOG2E))
        store(fields, 3 * LANES, b * -LOG2E)
        store(fields, 4 * LANES, c * (-0.5 * LOG2E))
        store(fields, 5 * LANES, log_opacity)
        store(fields, 6 * LANES, where(valid, threshold, NEVER))
        store(fields, 7 * LANES, where(valid, row_low, FAR))
        store(fields, 8 * LANES, where(valid, row_high, -FAR))
        store(fields, 9 * LANES, where(valid, mean_x + extent.center_x - half_x, FAR))
        store(fields, 10 * LANES, where(valid, mean_x + extent.center_x + half_x, -FAR))
        for k in range(0, RECORD, LANES):
            transpose(fields, k * LANES, LANES, records, i * RECORD + k, RECORD)


# --- evaluation -------------------------------------------------------------------------------------------
@inline
def footprint(records, gaussian):
    """A Gaussian's record."""
    r = np.intp(gaussian) * RECORD
    return Footprint(
        load_scalar(records, r),
        load_scalar(records, r + 1),
        load_scalar(records, r + 2),
        load_scalar(records, r + 3),
        load_scalar(records, r + 4),
        load_scalar(records, r + 5),
        load_scalar(records, r + 6),
        load_scalar(records, r + 7),
        load_scalar(records, r + 8),
        load_scalar(records, r + 9),
        load_scalar(records, r + 10),
        load_scalar(records, r + 11),
        load_scalar(records, r + 12),
        load_scalar(records, r + 13),
        load_scalar(records, r + 14),
        load_scalar(records, r + 15),
    )


class Column(NamedTuple):
    """What a Gaussian's exponent has in common along a column of vectors: polynomials in dy, given dx."""

    dx: Vector
    constant: Vector
    slope: Vector
    ratio_constant: Vector
    ratio_slope: Vector


@inline
def column(variant, g, dx):
    """The column at ``dx`` from a Gaussian's mean."""
    square = dx * dx
    if len(variant.ray):
        ratio = fma(g.e, square, fma(2 * g.p, dx, 1))
        return Column(dx, square * g.qa, dx * g.qb, ratio, fma(2 * g.f, dx, 2 * g.q))
    return Column(dx, fma(g.qa, square, g.log_opacity), dx * g.qb, square, square)


class Exponent(NamedTuple):
    """A Gaussian's exponent x at pixels; in ray also x without the opacity, and the denominator's inverse."""

    x: Vector
    power: Vector
    inverse: Vector


# fma by name here, and nothing left to the compiler: forward and backward must find the same bits, for pixels at the
# edge of a footprint.
@inline
def log2_alpha(variant, g, column, dy):
    """The exponent at ``dy`` from a Gaussian's mean."""
    value = fma(fma(g.qc, dy, column.slope), dy, column.constant)
    if len(variant.ray):
        ratio = fma(fma(g.g, dy, column.ratio_slope), dy, column.ratio_constant)
        inverse = reciprocal(ratio)
        power = value * inverse
        return Exponent(where(ratio > 0, fma(value, inverse, g.log_opacity), -FAR), power, inverse)
    return Exponent(value, value, value)
