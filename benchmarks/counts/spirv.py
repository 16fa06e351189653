"""A SPIR-V module read from its words: its functions, and what its pointers lead to.

A module is a header of five words, then instructions: the low 16 bits of an instruction's first word are its opcode,
the high 16 its number of words (SPIR-V specification, section 2.3, "Physical Layout of a SPIR-V Module and
Instruction").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from counts.opcodes import BINDING, HEADER_WORDS, MAGIC, Op, Storage

_SCALAR_BYTES = 4


class Instruction(NamedTuple):
    """An opcode, and the words that follow it."""

    opcode: int
    operands: tuple[int, ...]


class Pointer(NamedTuple):
    """What a pointer leads to: the kind of memory, and the variable in it; None if a function is given the pointer."""

    storage: int
    variable: int | None


class Module(NamedTuple):
    """Functions by id, each as its instructions; the entry point's id; pointers by id; the number at which a variable
    is bound; sizes in bytes of variables in workgroup memory; and variables that are naga's loop counters."""

    functions: dict[int, list[Instruction]]
    entry: int
    pointers: dict[int, Pointer]
    bindings: dict[int, int]
    workgroup_bytes: dict[int, int]
    loop_counters: set[int]


def instructions(words: Sequence[int]) -> Iterator[Instruction]:
    """The instructions of a module, in order. Raises ValueError if the words are not SPIR-V."""
    if len(words) < HEADER_WORDS or words[0] != MAGIC:
        raise ValueError("not SPIR-V: the first word is not its magic number")
    at = HEADER_WORDS
    while at < len(words):
        opcode, length = words[at] & 0xFFFF, words[at] >> 16
        if not 0 < length <= len(words) - at:
            raise ValueError(f"not SPIR-V: the instruction at word {at} has {length} words")
        yield Instruction(opcode, tuple(words[at + 1 : at + length]))
        at += length


def read_module(words: Sequence[int]) -> Module:
    """A module with one entry point."""
    listed = list(instructions(words))
    types = _Types(listed)
    entries = [i.operands[1] for i in listed if i.opcode == Op.ENTRY_POINT]
    if len(entries) != 1:
        raise ValueError(f"the module has {len(entries)} entry points, not one")
    bindings = {i.operands[0]: i.operands[2] for i in listed if i.opcode == Op.DECORATE and i.operands[1] == BINDING}
    shared, counters = {}, set()
    for i in listed:
        if i.opcode != Op.VARIABLE:
            continue
        kind, variable, storage, *start = i.operands
        if storage == Storage.WORKGROUP:
            shared[variable] = types.size(types.pointees[kind])
        elif storage == Storage.FUNCTION and start and start[0] in types.counter_starts:
            counters.add(variable)
    return Module(_functions(listed), entries[0], _pointers(listed, types), bindings, shared, counters)


def _functions(listed: list[Instruction]) -> dict[int, list[Instruction]]:
    """The instructions of each function, without those that begin and end it."""
    functions: dict[int, list[Instruction]] = {}
    body: list[Instruction] = []
    for i in listed:
        if i.opcode == Op.FUNCTION:
            body = functions[i.operands[1]] = []
        elif i.opcode != Op.FUNCTION_END:
            body.append(i)
    return functions


def _pointers(listed: list[Instruction], types: _Types) -> dict[int, Pointer]:
    """What every pointer leads to. A pointer is defined before it is used."""
    pointers: dict[int, Pointer] = {}
    for opcode, operands in listed:
        if opcode == Op.VARIABLE:
            pointers[operands[1]] = Pointer(operands[2], operands[1])
        elif opcode in (Op.ACCESS_CHAIN, Op.IN_BOUNDS_ACCESS_CHAIN):
            pointers[operands[1]] = pointers[operands[2]]
        elif opcode == Op.FUNCTION_PARAMETER and operands[0] in types.storages:
            pointers[operands[1]] = Pointer(types.storages[operands[0]], None)
    return pointers


class _Types:
    """Sizes of types, what pointers' types lead to, and the constants with which naga's loop counters start."""

    def __init__(self, listed: list[Instruction]) -> None:
        self._made = {i.operands[0]: i for i in listed if Op.TYPE_BOOL <= i.opcode <= Op.TYPE_POINTER}
        pointers = [i.operands for i in listed if i.opcode == Op.TYPE_POINTER]
        self.storages = {kind: storage for kind, storage, _ in pointers}
        self.pointees = {kind: pointee for kind, _, pointee in pointers}
        self._constants = {i.operands[1]: i.operands[2] for i in listed if i.opcode == Op.CONSTANT}
        full = {constant for constant, value in self._constants.items() if value == 0xFFFFFFFF}
        composites = [i.operands for i in listed if i.opcode == Op.CONSTANT_COMPOSITE]
        self.counter_starts = {made for _, made, *parts in composites if len(parts) == 2 and full.issuperset(parts)}

    def size(self, kind: int) -> int:
        """Bytes in workgroup memory, laid out as WGSL does in all memory (its section "Alignment and Size")."""
        return self._layout(kind)[0]

    def _layout(self, kind: int) -> tuple[int, int]:
        """Size and alignment."""
        opcode, (_, *operands) = self._made[kind]
        if opcode == Op.TYPE_BOOL:
            return _SCALAR_BYTES, _SCALAR_BYTES
        if opcode in (Op.TYPE_INT, Op.TYPE_FLOAT):
            return operands[0] // 8, operands[0] // 8
        if opcode == Op.TYPE_VECTOR:
            size = self.size(operands[0])
            return size * operands[1], size * (2 if operands[1] == 2 else 4)
        if opcode in (Op.TYPE_MATRIX, Op.TYPE_ARRAY):
            size, alignment = self._layout(operands[0])
            count = operands[1] if opcode == Op.TYPE_MATRIX else self._constants[operands[1]]
            return count * _rounded(size, alignment), alignment
        if opcode != Op.TYPE_STRUCT:
            raise ValueError(f"SPIR-V type {opcode} is not known in workgroup memory")
        end, widest = 0, 1
        for size, alignment in map(self._layout, operands):
            end, widest = _rounded(end, alignment) + size, max(widest, alignment)
        return _rounded(end, widest), widest


def _rounded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
