"""Tuples of vectors: one vector for each of a few planes of numbers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from stipple.backends.cpu.simd.memory import Place
from stipple.backends.cpu.simd.types import (
    BITS,
    LANES,
    call,
    constant,
    halves_order,
    intrinsic,
    is_number,
    mask,
    repeat,
    vector,
)


def _length(t: Any) -> int | None:
    return len(t) if isinstance(t, types.BaseTuple) and len(t) else None


def _is_vectors(t: Any) -> bool:
    return isinstance(t, types.UniTuple) and t.dtype == vector


@intrinsic
def load_planes(typing: Any, array: Any, i: Any, plane: Any, like: Any) -> Any:
    """A vector of each plane, from elements i, i + plane, i + 2 plane, ...: as many as ``like`` has."""
    count = _length(like)
    if count is None:
        return None
    result = types.UniTuple(vector, count)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, args[0], args[1])
        steps = [builder.mul(args[2], ir.Constant(ir.IntType(64), k)) for k in range(count)]
        return context.make_tuple(builder, result, [place.shifted(step, aligned=True).load() for step in steps])

    return result(array, types.intp, types.intp, like), generate


@intrinsic
def store_planes(typing: Any, array: Any, i: Any, plane: Any, values: Any) -> Any:
    """Store a vector to each plane, at elements i, i + plane, i + 2 plane, ..."""
    if not _is_vectors(values):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, args[0], args[1])
        for k, value in enumerate(cgutils.unpack_tuple(builder, args[3])):
            step = builder.mul(args[2], ir.Constant(ir.IntType(64), k))
            place.shifted(step, aligned=True).store(value)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, values), generate


@intrinsic
def repeat_scalars(typing: Any, array: Any, i: Any, like: Any) -> Any:
    """Elements i, i + 1, ... each in every lane of a vector: as many as ``like`` has."""
    count = _length(like)
    if count is None:
        return None
    result = types.UniTuple(vector, count)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, args[0], args[1])
        scalars = [builder.load(place.shifted(k).address, typ=place.llvm) for k in range(count)]
        return context.make_tuple(builder, result, [repeat(builder, scalar) for scalar in scalars])

    return result(array, types.intp, like), generate


@intrinsic
def zeros(typing: Any, like: Any) -> Any:
    """A vector of zeros for each element of ``like``."""
    count = _length(like)
    if count is None:
        return None
    result = types.UniTuple(vector, count)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_tuple(builder, result, [constant(0.0)] * count)

    return result(like), generate


@intrinsic
def fma_each(typing: Any, factor: Any, a: Any, b: Any) -> Any:
    """factor * a + b for each pair of vectors of two tuples."""
    if not (is_number(factor) and _is_vectors(a) and a == b):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = zip(cgutils.unpack_tuple(builder, args[1]), cgutils.unpack_tuple(builder, args[2]), strict=True)
        return context.make_tuple(builder, a, [call(builder, "llvm.fma", args[0], x, y) for x, y in pairs])

    return a(vector, a, b), generate


@intrinsic(prefer_literal=True)
def join_halves_each(typing: Any, a: Any, b: Any, half: Any) -> Any:
    """``join_halves`` of each pair of vectors of two tuples."""
    if not (_is_vectors(a) and a == b and isinstance(half, types.IntegerLiteral)):
        return None
    order = halves_order(half.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, part) for part in args[:2]), strict=True)
        return context.make_tuple(builder, a, [builder.shuffle_vector(x, y, order) for x, y in pairs])

    return a(a, b, half), generate


@intrinsic
def dot(typing: Any, a: Any, b: Any) -> Any:
    """The sum of the products of two tuples' vectors."""
    if not (_is_vectors(a) and a == b):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = list(zip(cgutils.unpack_tuple(builder, args[0]), cgutils.unpack_tuple(builder, args[1]), strict=True))
        total = builder.fmul(*pairs[-1])
        for x, y in reversed(pairs[:-1]):
            total = call(builder, "llvm.fma", x, y, total)
        return total

    return vector(a, b), generate


@intrinsic
def all_finite(typing: Any, a: Any) -> Any:
    """The lanes in which none of a tuple's vectors is infinite or NaN."""
    if not _is_vectors(a):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = ir.Constant(BITS, [1] * LANES)
        for x in cgutils.unpack_tuple(builder, args[0]):
            finite = builder.fcmp_ordered("<", call(builder, "llvm.fabs", x), constant(float("inf")))
            total = builder.and_(total, finite)
        return total

    return mask(a), generate
