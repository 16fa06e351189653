"""Buffers on the stack: uninitialised, and valid until their function returns."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from stipple.backends.cpu.simd.types import F32, intrinsic


def _stack(builder: Any, element: Any, count: int) -> Any:
    with builder.goto_entry_block():
        buffer = builder.alloca(ir.ArrayType(element, count))
        buffer.align = 64
    return builder.bitcast(buffer, element.as_pointer())


def _size(count: Any) -> int | None:
    return count.literal_value if isinstance(count, types.IntegerLiteral) else None


@intrinsic(prefer_literal=True)
def stack_floats(typing: Any, count: Any) -> Any:
    """A buffer of a literal number of float32 values; vectors in it begin at multiples of LANES."""
    size = _size(count)
    if size is None:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _stack(builder, F32, size)

    return types.CPointer(types.float32)(count), generate


@intrinsic(prefer_literal=True)
def stack_integers(typing: Any, count: Any) -> Any:
    """A buffer of a literal number of int64 values."""
    size = _size(count)
    if size is None:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _stack(builder, ir.IntType(64), size)

    return types.CPointer(types.int64)(count), generate
