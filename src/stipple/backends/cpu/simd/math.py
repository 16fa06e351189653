"""Roots, reciprocals, rounding, powers and logarithms of vectors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from stipple.backends.cpu.simd.types import (
    FLOATS,
    HOST_FEATURES,
    INTS,
    LANES,
    call,
    constant,
    function,
    integers,
    intrinsic,
    is_number,
    vector,
)

# Minimax polynomial of 2**f on [-0.5, 0.5], relative error 2.1e-7 in float32.
_EXP2 = (
    0.0013276470126584172,
    0.009675540961325169,
    0.05550713464617729,
    0.24022120237350464,
    0.6931469440460205,
    1.0000001192092896,
)

# Polynomial of log2(1 + f) / f on [sqrt(1/2) - 1, sqrt(2) - 1]: log2 to 9e-8.
_LOG2 = (
    -0.146205291,
    0.234212622,
    -0.248822346,
    0.287075311,
    -0.36024192,
    0.48092404,
    -0.721352756,
    1.4426949,
)
_SQRT_HALF_BITS = 0x3F3504F3
_MANTISSA = 23


def polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """A polynomial's value by Horner's rule, from the highest coefficient down."""
    value = constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = call(builder, "llvm.fma", value, x, constant(coefficient))
    return value


@intrinsic
def horner(typing: Any, x: Any, coefficients: Any) -> Any:
    """A polynomial of x, given by a tuple of numbers from the highest coefficient down."""
    numbers: Any = coefficients
    if not (is_number(x) and isinstance(coefficients, types.BaseTuple) and all(is_number(t) for t in numbers)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = cgutils.unpack_tuple(builder, args[1])
        steps = [context.cast(builder, part, t, vector) for part, t in zip(parts, numbers, strict=True)]
        value = steps[0]
        for step in steps[1:]:
            value = call(builder, "llvm.fma", value, args[0], step)
        return value

    return vector(vector, coefficients), generate


@intrinsic
def exp2(typing: Any, a: Any) -> Any:
    """2 ** a for -126 <= a < 128, with a relative error of 2.1e-7; other lanes are undefined."""
    if not is_number(a):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = call(builder, "llvm.rint", args[0])
        value = polynomial(builder, builder.fsub(args[0], whole), _EXP2)
        # Out-of-range lanes become poison; callers mask them, and `&` does not propagate it.
        exponent = builder.shl(builder.fptosi(whole, INTS), integers(_MANTISSA))
        return builder.bitcast(builder.add(builder.bitcast(value, INTS), exponent), FLOATS)

    return vector(vector), generate


@intrinsic
def log2(typing: Any, a: Any) -> Any:
    """The binary logarithm of positive normal numbers, to 9e-8 and rounding; other lanes are undefined."""
    if not is_number(a):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], INTS)
        exponent = builder.ashr(builder.sub(bits, integers(_SQRT_HALF_BITS)), integers(_MANTISSA))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, integers(_MANTISSA))), FLOATS)
        rest = builder.fsub(mantissa, constant(1.0))
        value = polynomial(builder, rest, _LOG2)
        return call(builder, "llvm.fma", value, rest, builder.sitofp(exponent, FLOATS))

    return vector(vector), generate


def _unary(name: str, text: str) -> Any:
    """An LLVM intrinsic with one vector operand."""

    def typed(typing: Any, a: Any) -> Any:
        if not is_number(a):
            return None

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return call(builder, f"llvm.{name}", *args)

        return vector(vector), generate

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = text
    return intrinsic(typed)


sqrt = _unary("sqrt", "The square root in each lane, correctly rounded; NaN for negative numbers.")
floor = _unary("floor", "The largest whole number that is not larger, in each lane.")
ceil = _unary("ceil", "The smallest whole number that is not smaller, in each lane.")
rint = _unary("rint", "The nearest whole number in each lane, ties to even.")


def _estimate() -> tuple[str, bool] | None:
    """The machine's approximate reciprocal of LANES floats, and whether it takes a mask; None if there is none."""
    if HOST_FEATURES.get("avx512f") and LANES == 16:
        return "llvm.x86.avx512.rcp14.ps.512", True
    if HOST_FEATURES.get("avx") and LANES == 8:
        return "llvm.x86.avx.rcp.ps.256", False
    if HOST_FEATURES.get("sse") and LANES == 4:
        return "llvm.x86.sse.rcp.ps", False
    return None


_RECIPROCAL = _estimate()


@intrinsic
def reciprocal(typing: Any, a: Any) -> Any:
    """1 / a with a relative error of 3e-7 if both are normal numbers: an estimate and one Newton step.

    NaN where a is 0 or infinite: divide if those may occur. Machines without an estimate divide.
    """
    if not is_number(a):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, one = args[0], constant(1.0)
        if _RECIPROCAL is None:
            return builder.fdiv(one, x)
        name, masked = _RECIPROCAL
        bits = ir.IntType(16)
        more_types, more = ([FLOATS, bits], [constant(0.0), bits(0xFFFF)]) if masked else ([], [])
        estimate = builder.call(function(builder, name, FLOATS, [FLOATS, *more_types]), [x, *more])
        error = call(builder, "llvm.fma", builder.fneg(x), estimate, one)
        return call(builder, "llvm.fma", error, estimate, estimate)

    return vector(vector), generate
