"""Kernels as they are written, and how they are bound to arrays.

A kernel reads arrays by function calls and writes them by index: ``out[i] = source(i) + 1.0;``. The functions are
generated for each way in which its arrays may be bound:

* an array that is read has a binding of its own;
* or it shares memory with one that is written, which is bound once; the kernel must declare that this is correct;
* or it shares a binding with others, if a kernel has more arrays than the device can bind. WebGPU guarantees 8, and
  some devices have no more than 8 or 10. Then arrays that are read are concatenated in one buffer before the kernel
  runs, the smallest first, and only as many as necessary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer

Params = Mapping[str, int | float]
"""Constants of a kernel by name: ints are u32, floats f32."""

Arrays = Mapping[str, GpuBuffer]

_SHADERS = Path(__file__).parent / "shaders"


@lru_cache(maxsize=64)
def shader_text(name: str) -> str:
    """A file of the folder shaders."""
    return (_SHADERS / f"{name}.wgsl").read_text(encoding="utf-8")


class Kernel(NamedTuple):
    """WGSL without bindings: a whole program, or the body of one that runs once for each ``i``, with ``functions``
    before it.

    ``overwrites`` are pairs of an array that is written and one that may be in the same memory, because every element
    of the latter is read only by the thread that writes it. ``always`` kernels run even if the run is unusable.
    """

    name: str
    code: str
    functions: str = ""
    overwrites: tuple[tuple[str, str], ...] = ()
    always: bool = False


class Bound(NamedTuple):
    """An array that is bound to a kernel, under the name that it has in WGSL."""

    name: str
    buffer: GpuBuffer
    writes: bool

    def declaration(self, number: int) -> str:
        access = "read_write" if self.writes else "read"
        return f"@group(0) @binding({number}) var<storage, {access}> {self.name}: array<{self.buffer.wgsl}>;\n"


class Accessor(NamedTuple):
    """The function with which a kernel reads an array: from a bound one, from element ``start`` (a constant) on."""

    name: str
    type: str
    bound: str
    start: str = ""

    def definition(self) -> str:
        index = f"{self.start} + i" if self.start else "i"
        return f"fn {self.name}(i: u32) -> {self.type} {{ return {self.bound}[{index}]; }}\n"


class Binding(NamedTuple):
    """The arrays bound to a kernel, its accessors, and the starts of arrays that share a binding."""

    bound: Sequence[Bound]
    accessors: Sequence[Accessor]
    starts: Params


def bind(
    kernel: Kernel, reads: Arrays, writes: Arrays, max_arrays: int, join: Callable[[Sequence[GpuBuffer]], GpuBuffer]
) -> Binding:
    """The binding of arrays to a kernel. ``join`` concatenates some in a new one."""
    written = {id(b.raw): name for name, b in writes.items()}
    assert len(written) == len(writes), f"kernel {kernel.name} writes twice to the same memory"
    bound = [Bound(name, buffer, True) for name, buffer in writes.items()]
    accessors: list[Accessor] = []
    separate: dict[str, GpuBuffer] = {}
    for name, buffer in reads.items():
        target = written.get(id(buffer.raw))
        if target is None:
            separate[name] = buffer
        else:
            assert (target, name) in kernel.overwrites, f"kernel {kernel.name}: {target} may not overwrite {name}"
            accessors.append(Accessor(name, buffer.wgsl, target))
    starts: dict[str, int | float] = {}
    for group in to_join(separate, max_arrays - len(bound)):
        shared = f"joined_{separate[group[0]].wgsl}"
        bound.append(Bound(shared, join([separate[name] for name in group]), False))
        start = 0
        for name in group:
            buffer = separate.pop(name)
            starts[f"start_{name}"] = start
            accessors.append(Accessor(name, buffer.wgsl, shared, f"P.start_{name}"))
            start += buffer.size
    for name, buffer in separate.items():
        bound.append(Bound(f"array_{name}", buffer, False))
        accessors.append(Accessor(name, buffer.wgsl, f"array_{name}"))
    assert len(bound) <= max_arrays, f"kernel {kernel.name} has {len(bound)} arrays, {max_arrays} can be bound"
    return Binding(bound, accessors, starts)


def to_join(arrays: Arrays, max_arrays: int) -> list[list[str]]:
    """Groups of arrays that share bindings, so that there are at most ``max_arrays``; the smallest are copied."""
    groups: dict[str, list[str]] = {}
    left = len(arrays)
    for name in sorted(arrays, key=lambda n: arrays[n].size):
        if left <= max_arrays:
            break
        group = groups.setdefault(arrays[name].wgsl, [])
        left -= bool(group)
        group.append(name)
    return [group for group in groups.values() if len(group) > 1]


__all__ = ["Accessor", "Binding", "Bound", "Kernel", "Params", "bind", "shader_text", "to_join"]
