"""Sums over lanes, shifts of lanes, and transpositions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from stipple.backends.cpu.simd.memory import Place
from stipple.backends.cpu.simd.types import BITS, I32, INTS, LANES, constant, halves_order, intrinsic, mask, vector


def _fold(builder: Any, u: Any, v: Any, width: int) -> Any:
    """Add neighbouring blocks of ``width`` lanes of two vectors into one vector."""
    lanes = range(2 * LANES)
    even = [k for k in lanes if (k // width) % 2 == 0]
    odd = [k for k in lanes if (k // width) % 2 == 1]
    pick = [builder.shuffle_vector(u, v, ir.Constant(INTS, order)) for order in (even, odd)]
    return builder.fadd(*pick)


def _sum_all(builder: Any, values: list[Any]) -> list[Any]:
    """Vectors whose lanes, in order, are the sums of the given vectors: a transposition that adds."""
    width = LANES // 2
    while width:
        if len(values) % 2:
            values = [*values, constant(0.0)]
        values = [_fold(builder, values[i], values[i + 1], width) for i in range(0, len(values), 2)]
        width //= 2
    return values


def _sums_with_lanes(builder: Any, values: list[Any]) -> list[tuple[Any, Any]]:
    """Vectors of sums, each with the mask of the lanes that hold one; None if all do."""
    result = []
    for block, sums in enumerate(_sum_all(builder, values)):
        count = len(values) - block * LANES
        lanes = None if count >= LANES else ir.Constant(BITS, [int(lane < count) for lane in range(LANES)])
        result.append((sums, lanes))
    return result


@intrinsic
def store_sums(typing: Any, array: Any, i: Any, values: Any) -> Any:
    """Store the sums of the lanes of a tuple of vectors as consecutive elements from i on."""
    if not isinstance(values, types.BaseTuple):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, args[0], args[1])
        for block, (sums, lanes) in enumerate(_sums_with_lanes(builder, cgutils.unpack_tuple(builder, args[2]))):
            place.shifted(block * LANES).store(sums, lanes)
        return context.get_dummy_value()

    return types.void(array, types.intp, values), generate


@intrinsic
def add_sums(typing: Any, array: Any, i: Any, values: Any) -> Any:
    """Add the sums of the lanes of a tuple of vectors to consecutive elements from i on."""
    if not isinstance(values, types.BaseTuple):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, args[0], args[1])
        for block, (sums, lanes) in enumerate(_sums_with_lanes(builder, cgutils.unpack_tuple(builder, args[2]))):
            part = place.shifted(block * LANES)
            part.store(builder.fadd(part.load(lanes), sums), lanes)
        return context.get_dummy_value()

    return types.void(array, types.intp, values), generate


@intrinsic
def accumulate(typing: Any, array: Any, i: Any, values: Any, lanes: Any) -> Any:
    """Add a tuple of vectors to as many consecutive vectors from element i on, where the mask is set."""
    if not (isinstance(values, types.BaseTuple) and lanes == mask):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, args[0], args[1])
        for k, value in enumerate(cgutils.unpack_tuple(builder, args[2])):
            total = place.shifted(k * LANES)
            total.store(builder.fadd(total.load(), builder.select(args[3], value, constant(0.0))))
        return context.get_dummy_value()

    return types.void(array, types.intp, values, mask), generate


@intrinsic
def lane_sum(typing: Any, a: Any) -> Any:
    """The sum of the lanes in float32, in a fixed order (halves are added to each other)."""
    if a != vector:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = args[0]
        width = LANES // 2
        while width:
            order = [(k + width) % LANES for k in range(LANES)]
            total = builder.fadd(total, builder.shuffle_vector(total, total, ir.Constant(INTS, order)))
            width //= 2
        return builder.extract_element(total, ir.Constant(I32, 0))

    return types.float32(vector), generate


@intrinsic
def lane_sum_double(typing: Any, a: Any) -> Any:
    """The sum of the lanes in float64, in a fixed order (halves are added to each other)."""
    if a != vector:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = builder.fpext(args[0], ir.VectorType(ir.DoubleType(), LANES))
        width = LANES // 2
        while width:
            order = [(k + width) % LANES for k in range(LANES)]
            total = builder.fadd(total, builder.shuffle_vector(total, total, ir.Constant(INTS, order)))
            width //= 2
        return builder.extract_element(total, ir.Constant(I32, 0))

    return types.float64(vector), generate


@intrinsic
def lane_maximum(typing: Any, a: Any) -> Any:
    """The largest lane; none may be NaN."""
    if a != vector:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        largest, width = args[0], LANES // 2
        while width:
            order = [(k + width) % LANES for k in range(LANES)]
            other = builder.shuffle_vector(largest, largest, ir.Constant(INTS, order))
            largest = builder.select(builder.fcmp_ordered(">", largest, other), largest, other)
            width //= 2
        return builder.extract_element(largest, ir.Constant(I32, 0))

    return types.float32(vector), generate


@intrinsic(prefer_literal=True)
def join_halves(typing: Any, a: Any, b: Any, half: Any) -> Any:
    """Half of a, then the same half of b: the first lanes (``half`` 0, a literal) or the last (1)."""
    if not (a == vector and b == vector and isinstance(half, types.IntegerLiteral)):
        return None
    order = halves_order(half.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.shuffle_vector(*args[:2], order)

    return vector(vector, vector, half), generate


@intrinsic(prefer_literal=True)
def shift_lanes(typing: Any, a: Any, b: Any, count: Any) -> Any:
    """Lanes from ``count`` (a literal, 0 to LANES) on of a followed by b."""
    if not (a == vector and b == vector and isinstance(count, types.IntegerLiteral)):
        return None
    first = count.literal_value

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        order = [first + lane for lane in range(LANES)]
        return builder.shuffle_vector(args[0], args[1], ir.Constant(INTS, order))

    return vector(vector, vector, count), generate


@intrinsic
def set_lanes(typing: Any, m: Any) -> Any:
    """How many lanes of a mask are set."""
    if m != mask:
        return None
    bits = ir.IntType(LANES)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = builder.ctpop(builder.bitcast(args[0], bits))
        return builder.zext(count, ir.IntType(64))

    return types.intp(mask), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of a matrix whose rows are LANES vectors."""
    rows = list(rows)
    width = LANES // 2
    while width:
        low = [lane if not lane & width else LANES + lane - width for lane in range(LANES)]
        high = [lane + width if not lane & width else LANES + lane for lane in range(LANES)]
        for r in range(LANES):
            if not r & width:
                u, v = rows[r], rows[r + width]
                rows[r] = builder.shuffle_vector(u, v, ir.Constant(INTS, low))
                rows[r + width] = builder.shuffle_vector(u, v, ir.Constant(INTS, high))
        width //= 2
    return rows


@intrinsic
def transpose(typing: Any, source: Any, i: Any, step: Any, target: Any, o: Any, target_step: Any) -> Any:
    """target[o + r target_step + c] = source[i + c step + r] for LANES x LANES elements (r, c)."""
    integers = all(isinstance(t, types.Integer) for t in (i, step, o, target_step))
    if not integers:
        return None
    n = types.intp

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        from_place = Place(context, builder, source, args[0], args[1])
        to_place = Place(context, builder, target, args[3], args[4])

        def row(place: Place, step: Any, k: int) -> Place:
            return place.shifted(builder.mul(step, ir.Constant(ir.IntType(64), k)))

        loaded = [row(from_place, args[2], k).load() for k in range(LANES)]
        for k, value in enumerate(_transposed(builder, loaded)):
            row(to_place, args[5], k).store(value)
        return context.get_dummy_value()

    return types.void(source, n, n, target, n, n), generate
