"""Explicit SIMD inside Numba: vectors of LANES float32 values and masks, as first-class Numba types.

Each function and operator is one or a few LLVM instructions; kernels written with them compile to what hand-written
intrinsics give, where the auto-vectoriser does not. Scalars among vectors are repeated in every lane::

    x = load(array, i)
    hit = (x >= threshold) & (t > 0.0)
    if any_lane(hit):
        store(array, i, where(hit, minimum(exp2(x), 0.99) * t, x))

``a * b + c`` becomes one fused multiply-add, ``a / b`` and ``sqrt`` are exact, ``reciprocal`` is nearly so. Tails of
arrays: ``load_lanes(array, i, first_lanes(end - i))``.
"""

from stipple.backends.cpu.simd.arithmetic import (
    absolute,
    all_lanes,
    any_lane,
    broadcast,
    copysign,
    first_lanes,
    fma,
    lane_columns,
    lane_numbers,
    lane_rows,
    masked,
    maximum,
    minimum,
    where,
)
from stipple.backends.cpu.simd.math import ceil, exp2, floor, horner, log2, reciprocal, rint, sqrt
from stipple.backends.cpu.simd.memory import (
    gather,
    load,
    load_columns,
    load_columns_lanes,
    load_lanes,
    load_offsets,
    load_scalar,
    prefetch,
    scatter,
    store,
    store_columns,
    store_columns_lanes,
    store_lanes,
    store_scalar,
)
from stipple.backends.cpu.simd.planes import (
    all_finite,
    dot,
    fma_each,
    join_halves_each,
    load_planes,
    repeat_scalars,
    store_planes,
    zeros,
)
from stipple.backends.cpu.simd.stack import stack_floats, stack_integers
from stipple.backends.cpu.simd.sums import (
    accumulate,
    add_sums,
    join_halves,
    lane_maximum,
    lane_sum,
    lane_sum_double,
    set_lanes,
    shift_lanes,
    store_sums,
    transpose,
)
from stipple.backends.cpu.simd.types import LANES, Vector, mask, vector

__all__ = [
    "LANES",
    "Vector",
    "absolute",
    "accumulate",
    "add_sums",
    "all_finite",
    "all_lanes",
    "any_lane",
    "broadcast",
    "ceil",
    "copysign",
    "dot",
    "exp2",
    "first_lanes",
    "floor",
    "fma",
    "fma_each",
    "gather",
    "horner",
    "join_halves",
    "join_halves_each",
    "lane_columns",
    "lane_maximum",
    "lane_numbers",
    "lane_rows",
    "lane_sum",
    "lane_sum_double",
    "load",
    "load_columns",
    "load_columns_lanes",
    "load_lanes",
    "load_offsets",
    "load_planes",
    "load_scalar",
    "log2",
    "mask",
    "masked",
    "maximum",
    "minimum",
    "prefetch",
    "reciprocal",
    "repeat_scalars",
    "rint",
    "scatter",
    "set_lanes",
    "shift_lanes",
    "sqrt",
    "stack_floats",
    "stack_integers",
    "store",
    "store_columns",
    "store_columns_lanes",
    "store_lanes",
    "store_planes",
    "store_scalar",
    "store_sums",
    "transpose",
    "vector",
    "where",
    "zeros",
]
