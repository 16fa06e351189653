"""Explicit SIMD inside Numba: vectors of LANES float32 values and masks, as first-class Numba types.

Each function below is one or a few LLVM instructions; kernels written with them compile to what hand-written
intrinsics give, where the auto-vectoriser does not. LANES is chosen for the machine when this is imported:
16 with AVX-512, 8 with AVX2, 4 elsewhere (NEON, SSE); ``STIPPLE_SIMD_WIDTH`` overrides it (4, 8 or 16).

Masked-off lanes may hold anything, infinities included, so the arithmetic flags never promise their absence.
"""

from __future__ import annotations

import os
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, extending, types
from numba.core.extending import models, register_model

from stipple.errors import DeviceError

ROW = 16
"""Pixels in a row of a tile: a vector, or a few."""


def _choose_lanes() -> int:
    wanted = os.environ.get("STIPPLE_SIMD_WIDTH")
    if wanted is not None:
        if wanted not in ("4", "8", "16"):
            raise DeviceError(f"STIPPLE_SIMD_WIDTH: expected 4, 8 or 16, got {wanted!r}")
        return int(wanted)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


LANES = _choose_lanes()
VECTORS = ROW // LANES
"""Vectors in a tile's row."""

_F32, _I32, _I1 = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_VF, _VI, _VM = (ir.VectorType(t, LANES) for t in (_F32, _I32, _I1))
_FLAGS = ("nsz", "arcp", "contract", "afn", "reassoc")  # neither nnan nor ninf: see above


intrinsic: Any = extending.intrinsic  # its functions exist in compiled code only, whatever their stubs say


class _Vector(types.Type):
    """LANES float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector{LANES}")


class _Mask(types.Type):
    """LANES booleans."""

    def __init__(self) -> None:
        super().__init__(name=f"Mask{LANES}")


vector, mask = _Vector(), _Mask()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VF)


@register_model(_Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VM)


# --- code generation helpers ------------------------------------------------------------------------------
def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VF, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(_VF, ir.Undefined), ir.Constant(_VI, [0] * LANES))


def _vectors(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Arguments as vectors; scalars are repeated in every lane."""
    return [
        a if t == vector else _splat(builder, context.cast(builder, a, t, types.float32))
        for a, t in zip(args, signature.args, strict=True)
    ]


def _constant(value: float) -> Any:
    return ir.Constant(_VF, [value] * LANES)


def _declare(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, args), name)


def _is_number(t: Any) -> bool:
    return t == vector or isinstance(t, (types.Float, types.Integer))


def _arithmetic(op: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> Any:
        if not (_is_number(a) and _is_number(b)):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y = _vectors(context, builder, signature, args)
            return getattr(builder, op)(x, y, flags=_FLAGS)

        return vector(a, b), generate

    return function


def _comparison(op: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y = _vectors(context, builder, signature, args)
            return builder.fcmp_ordered(op, x, y)

        return mask(a, b), generate

    return function


# --- arithmetic -------------------------------------------------------------------------------------------
vadd, vsub, vmul, vdiv = (_arithmetic(op) for op in ("fadd", "fsub", "fmul", "fdiv"))
vge, vgt, vlt, vle = (_comparison(op) for op in (">=", ">", "<", "<="))


@intrinsic
def vset(typing: Any, a: Any) -> Any:
    """A scalar in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _vectors(context, builder, signature, args)[0]

    return vector(a), generate


@intrinsic
def viota(typing: Any) -> Any:
    """0, 1, 2, ... in the lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_VF, [float(i) for i in range(LANES)])

    return vector(), generate


@intrinsic
def vfma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = _declare(builder, f"llvm.fma.v{LANES}f32", _VF, [_VF] * 3)
        return builder.call(function, _vectors(context, builder, signature, args))

    return vector(a, b, c), generate


@intrinsic
def vmin(typing: Any, a: Any, b: Any) -> Any:
    """The smaller in each lane; b where a is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = _vectors(context, builder, signature, args)
        return builder.select(builder.fcmp_ordered("<", x, y), x, y)

    return vector(a, b), generate


@intrinsic
def vabs(typing: Any, a: Any) -> Any:
    """The magnitude in each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(_declare(builder, f"llvm.fabs.v{LANES}f32", _VF, [_VF]), args)

    return vector(a), generate


# Minimax polynomial of 2**f on [-0.5, 0.5], relative error 2.1e-7 in float32.
_EXP2 = (
    0.0013276470126584172,
    0.009675540961325169,
    0.05550713464617729,
    0.24022120237350464,
    0.6931469440460205,
    1.0000001192092896,
)


@intrinsic
def vexp2(typing: Any, a: Any) -> Any:
    """2 ** a for -126 <= a < 128, by a polynomial and the exponent's bits; other lanes hold anything."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = args[0]
        whole = builder.call(_declare(builder, f"llvm.rint.v{LANES}f32", _VF, [_VF]), [x])
        rest = builder.fsub(x, whole)
        fma = _declare(builder, f"llvm.fma.v{LANES}f32", _VF, [_VF] * 3)
        value = _constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            value = builder.call(fma, [value, rest, _constant(coefficient)])
        # Out-of-range lanes convert to poison; callers mask them, and mand() lets none through.
        exponent = builder.shl(builder.fptosi(whole, _VI), ir.Constant(_VI, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(value, _VI), exponent), _VF)

    return vector(a), generate


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


@intrinsic
def vlog2(typing: Any, a: Any) -> Any:
    """The binary logarithm of positive normal numbers; other lanes hold anything."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _VI)
        above = builder.sub(bits, ir.Constant(_VI, [_SQRT_HALF_BITS] * LANES))
        exponent = builder.ashr(above, ir.Constant(_VI, [23] * LANES))
        mantissa = builder.sub(bits, builder.shl(exponent, ir.Constant(_VI, [23] * LANES)))
        rest = builder.fsub(builder.bitcast(mantissa, _VF), _constant(1.0))
        fma = _declare(builder, f"llvm.fma.v{LANES}f32", _VF, [_VF] * 3)
        value = _constant(_LOG2[0])
        for coefficient in _LOG2[1:]:
            value = builder.call(fma, [value, rest, _constant(coefficient)])
        return builder.call(fma, [value, rest, builder.sitofp(exponent, _VF)])

    return vector(a), generate


@intrinsic
def vsqrt(typing: Any, a: Any) -> Any:
    """The square root in each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(_declare(builder, f"llvm.sqrt.v{LANES}f32", _VF, [_VF]), args)

    return vector(a), generate


# --- masks ------------------------------------------------------------------------------------------------
@intrinsic
def mand(typing: Any, a: Any, b: Any) -> Any:
    """Both; b may be poison in lanes where a is not set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(args[0], args[1], ir.Constant(_VM, [0] * LANES))

    return mask(a, b), generate


@intrinsic
def many(typing: Any, a: Any) -> Any:
    """Whether any lane is set."""
    bits = ir.IntType(LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(a), generate


@intrinsic
def vsel(typing: Any, m: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = (
            v if t == vector else _splat(builder, context.cast(builder, v, t, types.float32))
            for v, t in zip(args[1:], signature.args[1:], strict=True)
        )
        return builder.select(args[0], x, y)

    return vector(m, a, b), generate


# --- memory -----------------------------------------------------------------------------------------------
def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> tuple[Any, int]:
    """Address of an element of an array or stack buffer, and the alignment to count on."""
    kind = signature.args[0]
    if isinstance(kind, types.Array):
        base = cgutils.create_struct_proxy(kind)(context, builder, value=args[0]).data
        alignment = 4
    else:
        base, alignment = args[0], 4 * LANES
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(base, [index]), alignment


@intrinsic
def vload(typing: Any, a: Any, i: Any) -> Any:
    """LANES values from element i on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, alignment = _pointer(context, builder, signature, args)
        return builder.load(builder.bitcast(pointer, _VF.as_pointer()), align=alignment, typ=_VF)

    return vector(a, i), generate


@intrinsic
def vstore(typing: Any, a: Any, i: Any, v: Any) -> Any:
    """Store LANES values from element i on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, alignment = _pointer(context, builder, signature, args)
        value = args[2]
        if signature.args[2] != vector:
            value = _splat(builder, context.cast(builder, value, signature.args[2], types.float32))
        builder.store(value, builder.bitcast(pointer, _VF.as_pointer()), align=alignment)
        return context.get_dummy_value()

    return types.void(a, i, v), generate


@intrinsic
def sload(typing: Any, a: Any, i: Any) -> Any:
    """One element, without Python's negative indices."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, args)[0])

    return a.dtype(a, i), generate


@intrinsic
def sstore(typing: Any, a: Any, i: Any, v: Any) -> Any:
    """Store one element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], signature.args[0].dtype)
        builder.store(value, _pointer(context, builder, signature, args)[0])
        return context.get_dummy_value()

    return types.void(a, i, v), generate


@intrinsic
def stack_floats(typing: Any, count: Any) -> Any:
    """A buffer of a literal number of float32 values on the stack, aligned for vectors, uninitialised."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    size = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            buffer = builder.alloca(ir.ArrayType(_F32, size))
            buffer.align = 64
        return builder.bitcast(buffer, _F32.as_pointer())

    return types.CPointer(types.float32)(count), generate


# --- sums -------------------------------------------------------------------------------------------------
def _fold(builder: Any, u: Any, v: Any, width: int) -> Any:
    """Add neighbouring blocks of ``width`` lanes of two vectors into one vector."""
    lanes = range(2 * LANES)
    even = [k for k in lanes if (k // width) % 2 == 0]
    odd = [k for k in lanes if (k // width) % 2 == 1]
    pick = [builder.shuffle_vector(u, v, ir.Constant(_VI, order)) for order in (even, odd)]
    return builder.fadd(*pick)


def _sum_all(builder: Any, values: list[Any]) -> list[Any]:
    """Vectors whose lanes, in order, are the sums of the given vectors: a transposition that adds."""
    width = LANES // 2
    while width:
        if len(values) % 2:
            values = [*values, _constant(0.0)]
        values = [_fold(builder, values[i], values[i + 1], width) for i in range(0, len(values), 2)]
        width //= 2
    return values


@intrinsic
def store_sums(typing: Any, a: Any, i: Any, values: Any) -> Any:
    """Store the sums of the lanes of a tuple of vectors as consecutive elements from i on.

    Writes whole vectors: up to the next multiple of LANES elements, zeros beyond the sums, but never beyond
    16 elements.
    """
    if not (isinstance(values, types.BaseTuple) and len(values) <= ROW):
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = cgutils.unpack_tuple(builder, args[2])
        for block, sums in enumerate(_sum_all(builder, list(parts))):
            pointer, _ = _pointer(context, builder, signature, args)
            shifted = builder.gep(pointer, [ir.Constant(ir.IntType(64), block * LANES)])
            builder.store(sums, builder.bitcast(shifted, _VF.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(a, i, values), generate


@intrinsic
def vsum(typing: Any, a: Any) -> Any:
    """The sum of the lanes, in a fixed order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total = args[0]
        width = LANES // 2
        while width:
            order = [(k + width) % LANES for k in range(LANES)]
            turned = builder.shuffle_vector(total, total, ir.Constant(_VI, order))
            total = builder.fadd(total, turned)
            width //= 2
        return builder.extract_element(total, ir.Constant(_I32, 0))

    return types.float32(a), generate
