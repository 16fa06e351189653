"""SPIR-V's numbers, and the classes in which its instructions are counted.

Names and numbers are those of the SPIR-V specification (Khronos, version 1.6, section 3, "Binary Form"), without the
prefix Op.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = 0x07230203
HEADER_WORDS = 5


class Op(IntEnum):
    """Instructions that are read here, and the first and last of groups that have adjacent numbers."""

    UNDEF = 1
    LINE = 8
    EXT_INST = 12
    ENTRY_POINT = 15
    TYPE_BOOL = 20
    TYPE_INT = 21
    TYPE_FLOAT = 22
    TYPE_VECTOR = 23
    TYPE_MATRIX = 24
    TYPE_ARRAY = 28
    TYPE_STRUCT = 30
    TYPE_POINTER = 32
    CONSTANT = 43
    CONSTANT_COMPOSITE = 44
    FUNCTION = 54
    FUNCTION_PARAMETER = 55
    FUNCTION_END = 56
    FUNCTION_CALL = 57
    VARIABLE = 59
    LOAD = 61
    STORE = 62
    ACCESS_CHAIN = 65
    IN_BOUNDS_ACCESS_CHAIN = 66
    ARRAY_LENGTH = 68
    DECORATE = 71
    VECTOR_EXTRACT_DYNAMIC = 77
    TRANSPOSE = 84
    CONVERT_F_TO_U = 109
    BITCAST = 124
    S_NEGATE = 126
    S_MUL_EXTENDED = 152
    ANY = 154
    F_UNORD_GREATER_THAN_EQUAL = 191
    SHIFT_RIGHT_LOGICAL = 194
    BIT_COUNT = 205
    CONTROL_BARRIER = 224
    MEMORY_BARRIER = 225
    ATOMIC_LOAD = 227
    ATOMIC_STORE = 228
    ATOMIC_XOR = 242
    PHI = 245
    LOOP_MERGE = 246
    SELECTION_MERGE = 247
    LABEL = 248
    BRANCH = 249
    BRANCH_CONDITIONAL = 250
    SWITCH = 251
    KILL = 252
    UNREACHABLE = 255
    NO_LINE = 317
    GROUP_NON_UNIFORM_ELECT = 333
    GROUP_NON_UNIFORM_QUAD_SWAP = 366
    COPY_LOGICAL = 400
    S_DOT = 4450
    SU_DOT_ACC_SAT = 4455


class Storage(IntEnum):
    """Storage classes of pointers."""

    INPUT = 1
    UNIFORM = 2
    WORKGROUP = 4
    PRIVATE = 6
    FUNCTION = 7
    STORAGE_BUFFER = 12


BINDING = 33
"""The decoration that says where a buffer is bound."""

CLASSES = ("arithmetic", "buffers", "constants", "workgroup", "variables", "moves", "branches", "subgroups", "barriers")
"""Loads, stores and atomics are counted by what they access: arrays (buffers), a kernel's parameters (constants),
workgroup memory, or the thread's own variables and inputs, which compilers keep in registers. Moves are addresses
(access chains), vectors and structures put together and taken apart, and choices of values by control flow (phi)."""

ACCESSED = {
    Storage.STORAGE_BUFFER: "buffers",
    Storage.UNIFORM: "constants",
    Storage.WORKGROUP: "workgroup",
    Storage.INPUT: "variables",
    Storage.PRIVATE: "variables",
    Storage.FUNCTION: "variables",
}

_RANGES = (
    (Op.CONVERT_F_TO_U, Op.BITCAST, "arithmetic"),
    (Op.S_NEGATE, Op.S_MUL_EXTENDED, "arithmetic"),
    (Op.ANY, Op.F_UNORD_GREATER_THAN_EQUAL, "arithmetic"),
    (Op.SHIFT_RIGHT_LOGICAL, Op.BIT_COUNT, "arithmetic"),
    (Op.S_DOT, Op.SU_DOT_ACC_SAT, "arithmetic"),
    (Op.EXT_INST, Op.EXT_INST, "arithmetic"),
    (Op.GROUP_NON_UNIFORM_ELECT, Op.GROUP_NON_UNIFORM_QUAD_SWAP, "subgroups"),
    (Op.CONTROL_BARRIER, Op.MEMORY_BARRIER, "barriers"),
    (Op.BRANCH_CONDITIONAL, Op.SWITCH, "branches"),
    (Op.ACCESS_CHAIN, Op.IN_BOUNDS_ACCESS_CHAIN, "moves"),
    (Op.ARRAY_LENGTH, Op.ARRAY_LENGTH, "moves"),
    (Op.VECTOR_EXTRACT_DYNAMIC, Op.TRANSPOSE, "moves"),
    (Op.PHI, Op.PHI, "moves"),
    (Op.COPY_LOGICAL, Op.COPY_LOGICAL, "moves"),
)

_NOTHING = {
    Op.UNDEF, Op.LINE, Op.NO_LINE, Op.FUNCTION_PARAMETER, Op.FUNCTION_CALL, Op.VARIABLE, Op.LOOP_MERGE,
    Op.SELECTION_MERGE, Op.LABEL, Op.BRANCH, *range(Op.KILL, Op.UNREACHABLE + 1),
}  # fmt: skip
"""What is no instruction of a device (declarations, structure), or is gone once functions are inlined and blocks laid
out: calls, returns, unconditional branches."""


def class_of(opcode: int) -> str | None:
    """The class of an instruction that accesses no memory, or None if it is not counted.

    Raises ValueError for one that is not known here, so that nothing is left out silently.
    """
    for first, last, name in _RANGES:
        if first <= opcode <= last:
            return name
    if opcode in _NOTHING:
        return None
    raise ValueError(f"SPIR-V instruction {opcode} has no class in benchmarks/counts/opcodes.py")
