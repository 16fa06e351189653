"""The vector and mask types, and their LLVM values.

LANES is chosen for the machine when this module is imported: 16 with AVX-512, 8 with AVX2, 4 elsewhere (NEON, SSE);
``STIPPLE_SIMD_WIDTH`` overrides it (4, 8 or 16).
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, extending, types
from numba.core.extending import lower_cast, models, register_model
from numba.core.typeconv.castgraph import Conversion

from stipple.errors import DeviceError

HOST_FEATURES = llvm.get_host_cpu_features()


def _choose_lanes() -> int:
    requested = os.environ.get("STIPPLE_SIMD_WIDTH")
    if requested is not None:
        if requested not in ("4", "8", "16"):
            raise DeviceError(f"STIPPLE_SIMD_WIDTH: expected 4, 8 or 16, got {requested!r}")
        return int(requested)
    if HOST_FEATURES.get("avx512f"):
        return 16
    return 8 if HOST_FEATURES.get("avx2") else 4


LANES = _choose_lanes()

F32, I32, I1 = ir.FloatType(), ir.IntType(32), ir.IntType(1)
FLOATS, INTS, BITS = (ir.VectorType(t, LANES) for t in (F32, I32, I1))

intrinsic: Any = extending.intrinsic  # its functions exist only in compiled code, whatever their stubs say


class VectorType(types.Type):
    """LANES float32 values. Scalars convert to it by being repeated in every lane."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector{LANES}")

    def can_convert_from(self, typingctx: Any, other: Any) -> Any:
        return Conversion.safe if isinstance(other, (types.Float, types.Integer)) else None


class MaskType(types.Type):
    """LANES booleans."""

    def __init__(self) -> None:
        super().__init__(name=f"Mask{LANES}")


vector, mask = VectorType(), MaskType()
Vector: TypeAlias = Any
"""A vector, for annotations of records; it does not exist outside compiled code."""


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, FLOATS)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, BITS)


def repeat(builder: Any, scalar: Any) -> Any:
    """A float32 in every lane."""
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, ir.Constant(FLOATS, ir.Undefined), ir.Constant(INTS, [0] * LANES))


@lower_cast(types.Float, VectorType)
@lower_cast(types.Integer, VectorType)
def _number_to_vector(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return repeat(builder, context.cast(builder, value, fromty, types.float32))


def is_number(t: Any) -> bool:
    """Whether a type is a vector, or converts to one."""
    return t == vector or isinstance(t, (types.Float, types.Integer))


def constant(value: float) -> Any:
    """A compile-time float32 in every lane."""
    return ir.Constant(FLOATS, [value] * LANES)


def integers(value: int) -> Any:
    """A compile-time int32 in every lane."""
    return ir.Constant(INTS, [value] * LANES)


def function(builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
    """One of LLVM's intrinsic functions, by its full name."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, operands), name)


def call(builder: Any, name: str, *args: Any) -> Any:
    """Call one of LLVM's intrinsics that takes and returns vectors of floats."""
    return builder.call(function(builder, f"{name}.v{LANES}f32", FLOATS, [FLOATS] * len(args)), args)


def halves_order(half: int) -> Any:
    """Shuffle order that joins the first (0) or the second (1) halves of two vectors."""
    order = [half * LANES // 2 + lane for lane in range(LANES // 2)]
    return ir.Constant(INTS, [*order, *(LANES + lane for lane in order)])
