"""Operators of vectors and masks, and the functions that belong with them.

A product and a sum may become one fused multiply-add; nothing else is rearranged: sums keep their order, divisions
are exact. Masked-off lanes may hold any value, including infinities and NaN, so no fast-math flag excludes these.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from stipple.backends.cpu.simd.types import BITS, FLOATS, LANES, MaskType, VectorType, call, intrinsic, is_number, mask
from stipple.backends.cpu.simd.types import vector as _vector

_FLAGS = ("nsz", "contract")
Emit = Callable[[Any, Any, Any], Any]


# --- operators --------------------------------------------------------------------------------------------
def _operate(operation: Any, operands: int, accepts: Callable[[Any], bool], operand: Any, result: Any) -> None:
    """Declare the types of a Python operator for vectors (mixed with scalars) or masks."""

    @infer_global(operation)
    class _Operator(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != operands or operand not in args or not all(accepts(t) for t in args):
                return None
            return signature(result, *[operand] * operands)


def _is_mask(t: Any) -> bool:
    return bool(t == mask)


def _binary(operations: tuple[Any, ...], emit: Emit, result: Any = _vector) -> None:
    """A binary operator of vectors."""
    for operation in operations:
        _operate(operation, 2, is_number, _vector, result)

        @lower_builtin(operation, VectorType, VectorType)
        def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(builder, *args)


def _logical(operations: tuple[Any, ...], emit: Emit) -> None:
    """A binary operator of masks."""
    for operation in operations:
        _operate(operation, 2, _is_mask, mask, mask)

        @lower_builtin(operation, MaskType, MaskType)
        def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(builder, *args)


_binary((operator.add, operator.iadd), lambda builder, x, y: builder.fadd(x, y, flags=_FLAGS))
_binary((operator.sub, operator.isub), lambda builder, x, y: builder.fsub(x, y, flags=_FLAGS))
_binary((operator.mul, operator.imul), lambda builder, x, y: builder.fmul(x, y, flags=_FLAGS))
_binary((operator.truediv, operator.itruediv), lambda builder, x, y: builder.fdiv(x, y))


def _compare(operation: Any, symbol: str) -> None:
    """A comparison; false where a lane is NaN, except for !=."""

    def emit(builder: Any, x: Any, y: Any) -> Any:
        return builder.fcmp_unordered(symbol, x, y) if symbol == "!=" else builder.fcmp_ordered(symbol, x, y)

    _binary((operation,), emit, mask)


_compare(operator.lt, "<")
_compare(operator.le, "<=")
_compare(operator.gt, ">")
_compare(operator.ge, ">=")
_compare(operator.eq, "==")
_compare(operator.ne, "!=")

# Selects, so that lanes decided by the left operand ignore undefined values of the right one.
_logical((operator.and_, operator.iand), lambda builder, x, y: builder.select(x, y, ir.Constant(BITS, [0] * LANES)))
_logical((operator.or_, operator.ior), lambda builder, x, y: builder.select(x, ir.Constant(BITS, [1] * LANES), y))

_operate(operator.neg, 1, is_number, _vector, _vector)
_operate(operator.invert, 1, _is_mask, mask, mask)


@lower_builtin(operator.neg, VectorType)
def _negative(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@lower_builtin(operator.invert, MaskType)
def _not(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.not_(args[0])


# --- functions --------------------------------------------------------------------------------------------
@intrinsic
def broadcast(typing: Any, a: Any) -> Any:
    """A scalar in every lane; a vector as it is."""
    if not is_number(a):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    return _vector(_vector), generate


@intrinsic
def lane_numbers(typing: Any) -> Any:
    """0, 1, 2, ... in the lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(FLOATS, [float(i) for i in range(LANES)])

    return _vector(), generate


def _literal(t: Any) -> int | None:
    return t.literal_value if isinstance(t, types.IntegerLiteral) else None


@intrinsic(prefer_literal=True)
def lane_columns(typing: Any, width: Any) -> Any:
    """Column of each lane where the lanes are rows of ``width`` (a literal): lane % width."""
    columns = _literal(width)
    if columns is None:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(FLOATS, [float(i % columns) for i in range(LANES)])

    return _vector(width), generate


@intrinsic(prefer_literal=True)
def lane_rows(typing: Any, width: Any) -> Any:
    """Row of each lane where the lanes are rows of ``width`` (a literal): lane // width."""
    columns = _literal(width)
    if columns is None:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(FLOATS, [float(i // columns) for i in range(LANES)])

    return _vector(width), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    if not (is_number(a) and is_number(b) and is_number(c)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "llvm.fma", *args)

    return _vector(_vector, _vector, _vector), generate


@intrinsic
def minimum(typing: Any, a: Any, b: Any) -> Any:
    """The smaller in each lane; b where either is NaN."""
    if not (is_number(a) and is_number(b)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return _vector(_vector, _vector), generate


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger in each lane; b where either is NaN."""
    if not (is_number(a) and is_number(b)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _vector(_vector, _vector), generate


@intrinsic
def absolute(typing: Any, a: Any) -> Any:
    """The magnitude in each lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "llvm.fabs", *args)

    return _vector(_vector), generate


@intrinsic
def copysign(typing: Any, a: Any, b: Any) -> Any:
    """The magnitude of a with the sign of b."""
    if not (is_number(a) and is_number(b)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "llvm.copysign", *args)

    return _vector(_vector, _vector), generate


@intrinsic
def where(typing: Any, m: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""
    if not (m == mask and is_number(a) and is_number(b)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return _vector(mask, _vector, _vector), generate


@intrinsic
def masked(typing: Any, values: Any, m: Any) -> Any:
    """A tuple of vectors, each with zeros where the mask is not set."""
    numbers: Any = values
    if not (isinstance(values, types.BaseTuple) and m == mask and all(is_number(t) for t in numbers)):
        return None
    result = types.UniTuple(_vector, len(values))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [
            context.cast(builder, part, t, _vector)
            for part, t in zip(cgutils.unpack_tuple(builder, args[0]), numbers, strict=True)
        ]
        zeros = ir.Constant(FLOATS, [0.0] * LANES)
        return context.make_tuple(builder, result, [builder.select(args[1], part, zeros) for part in parts])

    return result(values, mask), generate


@intrinsic
def any_lane(typing: Any, m: Any) -> Any:
    """Whether any lane of a mask is set."""
    if m != mask:
        return None
    bits = ir.IntType(LANES)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), generate


@intrinsic
def all_lanes(typing: Any, m: Any) -> Any:
    """Whether every lane of a mask is set."""
    if m != mask:
        return None
    bits = ir.IntType(LANES)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_unsigned("==", builder.bitcast(args[0], bits), ir.Constant(bits, 2**LANES - 1))

    return types.boolean(mask), generate


@intrinsic
def first_lanes(typing: Any, count: Any) -> Any:
    """The mask of the first ``count`` lanes (all of them if it is LANES or more, none if it is 0 or less)."""
    if not isinstance(count, types.Integer):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # compared as int64, because counts may be the remaining length of a long array
        wide = ir.VectorType(ir.IntType(64), LANES)
        one = builder.insert_element(ir.Constant(wide, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        limit = builder.shuffle_vector(one, ir.Constant(wide, ir.Undefined), order)
        return builder.icmp_signed("<", ir.Constant(wide, list(range(LANES))), limit)

    return mask(types.int64), generate
