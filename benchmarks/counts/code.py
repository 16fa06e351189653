"""What a kernel's SPIR-V holds: instructions by class, barriers, workgroup memory, and the arrays it reads and writes.

All counts are static. A function's instructions count once for each place that calls it, as if every call were inlined;
those inside a loop, which run once per iteration, are counted separately too.

naga adds counters to all loops, so that none runs forever. Stipple has wgpu leave them out, so they are not counted. It
also adds code that zeroes workgroup memory, with a barrier after it, which is counted: on Metal and DX12 there is no
other way, and on Vulkan the driver does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from counts.opcodes import ACCESSED, Op, Storage, class_of
from counts.spirv import Instruction, Module, read_module


class Code(NamedTuple):
    """Instructions by class, those of them in loops, the bindings that are read and written, and bytes of workgroup
    memory."""

    instructions: Counter[str]
    in_loops: Counter[str]
    reads: frozenset[int]
    writes: frozenset[int]
    workgroup_bytes: int


def count(words: Sequence[int]) -> Code:
    """What a kernel holds, from its words. Raises ValueError for what is not SPIR-V or is not known here."""
    module = read_module(words)
    found = _counted(module, module.entry, {})
    return Code(
        found.all,
        found.in_loops,
        frozenset(module.bindings[v] for v in found.read),
        frozenset(module.bindings[v] for v in found.written),
        sum(size for variable, size in module.workgroup_bytes.items() if variable in found.used),
    )


class _Found:
    """What has been counted of a function."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        self.in_loops: Counter[str] = Counter()
        self.read: set[int] = set()
        self.written: set[int] = set()
        self.used: set[int] = set()

    def add(self, name: str, in_loop: bool) -> None:
        self.all[name] += 1
        self.in_loops[name] += in_loop

    def include(self, other: _Found, in_loop: bool) -> None:
        """A call of another function."""
        self.all += other.all
        self.in_loops += other.all if in_loop else other.in_loops
        self.read |= other.read
        self.written |= other.written
        self.used |= other.used


def _counted(module: Module, function: int, known: dict[int, _Found]) -> _Found:
    """What a function holds, with those that it calls."""
    if function in known:
        return known[function]
    body = module.functions[function]
    looped = _labels_in_loops(body)
    found = known[function] = _Found()
    in_loop = False
    for i in _without_loop_counters(module, body):
        if i.opcode == Op.LABEL:
            in_loop = i.operands[0] in looped
        elif i.opcode == Op.FUNCTION_CALL:
            found.include(_counted(module, i.operands[2], known), in_loop)
            found.used.update(i.operands[3:])
        elif i.opcode in (Op.LOAD, Op.STORE) or Op.ATOMIC_LOAD <= i.opcode <= Op.ATOMIC_XOR:
            _add_access(module, i, in_loop, found)
        else:
            name = class_of(i.opcode)
            if name is not None:
                found.add(name, in_loop)
    return found


def _add_access(module: Module, i: Instruction, in_loop: bool, found: _Found) -> None:
    """A load, a store, or an atomic, which does both."""
    at = 0 if i.opcode in (Op.STORE, Op.ATOMIC_STORE) else 2
    storage, variable = module.pointers[i.operands[at]]
    found.add(ACCESSED[Storage(storage)], in_loop)
    if variable is None:
        if storage == Storage.STORAGE_BUFFER:
            raise ValueError("a function is given a pointer to an array, so which array it accesses is not known")
        return
    found.used.add(variable)
    if storage == Storage.STORAGE_BUFFER:
        if i.opcode not in (Op.STORE, Op.ATOMIC_STORE):
            found.read.add(variable)
        if i.opcode not in (Op.LOAD, Op.ATOMIC_LOAD):
            found.written.add(variable)


def _without_loop_counters(module: Module, body: list[Instruction]) -> list[Instruction]:
    """A function without what naga adds to its loops: from the load of a loop's counter to the store of its new
    value."""
    kept, skipping = [], False
    for i in body:
        if i.opcode == Op.LOAD and i.operands[2] in module.loop_counters:
            skipping = True
        elif i.opcode == Op.STORE and i.operands[0] in module.loop_counters:
            skipping = False
        elif not skipping or i.opcode == Op.LABEL:
            kept.append(i)
    return kept


def _labels_in_loops(body: list[Instruction]) -> set[int]:
    """The blocks of a function that are in loops: those that a loop's header reaches without passing its end."""
    successors: dict[int, list[int]] = {}
    ends: dict[int, int] = {}
    label = 0
    for opcode, operands in body:
        if opcode == Op.LABEL:
            label = operands[0]
            successors[label] = []
        elif opcode == Op.LOOP_MERGE:
            ends[label] = operands[0]
        elif opcode == Op.BRANCH:
            successors[label] = [operands[0]]
        elif opcode == Op.BRANCH_CONDITIONAL:
            successors[label] = list(operands[1:3])
        elif opcode == Op.SWITCH:  # a selector, the default, then a value and a label for each case
            successors[label] = [operands[1], *operands[3::2]]
    looped: set[int] = set()
    for header, end in ends.items():
        reached, left = {header, end}, [header]
        while left:
            new = set(successors[left.pop()]) - reached
            reached |= new
            left += new
        looped |= reached - {end}
    return looped
