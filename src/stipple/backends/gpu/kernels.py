"""Kernels as a device runs them: compiled programs, the buffers bound to them, and their constants.

A training step dispatches some eighty kernels, most of them tiny, so the host must not be slow: whatever was asked for
before is found, not made.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple

from stipple.backends.gpu.merging import Bound
from stipple.backends.gpu.native import shader_module

_MOST_GROUPS = 4096
_MOST_UNIFORMS = 4096

Params = Mapping[str, int | float]
"""Constants of a kernel by name: ints are u32, floats f32."""

_COMMON = """
fn group_index(id: vec3<u32>, groups: vec3<u32>) -> u32 { return id.y * groups.x + id.x; }
"""


class Program(NamedTuple):
    """A compiled kernel, the layout of its bindings, and how its constants lie in memory."""

    pipeline: Any
    layout: Any
    constants: struct.Struct | None


class Kernels:
    """Programs and bindings of one device. ``sources`` are the programs' texts, for tests and tools.

    ``failing(what, advice)`` turns the driver's errors into the device's.
    """

    def __init__(self, wgpu: Any, device: Any, failing: Callable[[str, str], AbstractContextManager[None]]) -> None:
        self._wgpu, self._device, self._failing = wgpu, device, failing
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._uniforms: dict[bytes, Any] = {}
        self._groups: dict[tuple[int, ...], tuple[Any, list[Any]]] = {}
        self.sources: dict[str, str] = {}

    def program(self, name: str, code: str, bound: Sequence[Bound], params: Params) -> Program:
        """The kernel ``code`` over some arrays and constants."""
        arrays = [(b.name, b.buffer.wgsl, b.writes) for b in bound]
        key = (name, code, *arrays, *params, *map(type, params.values()))
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = self._compiled(name, code, bound, params)
        return found

    def _compiled(self, name: str, code: str, bound: Sequence[Bound], params: Params) -> Program:
        header = "".join(
            f"@group(0) @binding({i}) var<storage, {'read_write' if b.writes else 'read'}> {b.name}: "
            f"array<{b.buffer.wgsl}>;\n"
            for i, b in enumerate(bound)
        )
        constants = None
        if params:
            fields = "".join(f"  {n}: {'f32' if isinstance(v, float) else 'u32'},\n" for n, v in params.items())
            header += f"struct Params {{\n{fields}}};\n@group(0) @binding({len(bound)}) var<uniform> P: Params;\n"
            letters = "".join("f" if isinstance(v, float) else "I" for v in params.values())
            constants = struct.Struct(f"<{letters}{-len(letters) % 4 * 4}x")
        source = header + _COMMON + code
        with self._failing(f"kernel {name} was refused", "tell Stipple's developers"):
            module = shader_module(self._device, name, source)
            pipeline = self._device.create_compute_pipeline(
                layout="auto", compute={"module": module, "entry_point": "main"}, label=name
            )
        self.sources[f"{name}.{len(self.sources)}"] = source
        return Program(pipeline, pipeline.get_bind_group_layout(0), constants)

    def uniform(self, program: Program, params: Params) -> Any:
        """A buffer with a program's constants."""
        assert program.constants is not None
        data = program.constants.pack(*params.values())
        found = self._uniforms.get(data)
        if found is None:
            if len(self._uniforms) >= _MOST_UNIFORMS:
                self._uniforms.clear()
            usage = self._wgpu.BufferUsage.UNIFORM
            found = self._uniforms[data] = self._device.create_buffer_with_data(data=data, usage=usage)
        return found

    def group(self, program: Program, raws: list[Any]) -> Any:
        """The binding of buffers to a program. It is kept, and keeps the buffers, so that no other has their ids."""
        key = (id(program.layout), *map(id, raws))
        found = self._groups.get(key)
        if found is None:
            if len(self._groups) >= _MOST_GROUPS:
                self._groups.clear()
            entries = [
                {"binding": i, "resource": {"buffer": raw, "offset": 0, "size": raw.size}} for i, raw in enumerate(raws)
            ]
            found = (self._device.create_bind_group(layout=program.layout, entries=entries), raws)
            self._groups[key] = found
        return found[0]

    def unbind(self, dropped: Sequence[Any]) -> None:
        """Forget the bindings of memory that was let go."""
        if dropped:
            gone = {id(raw) for raw in dropped}
            self._groups = {k: v for k, v in self._groups.items() if gone.isdisjoint(k[1:])}


@lru_cache(maxsize=512)
def renamed(code: str, names: tuple[tuple[str, str], ...]) -> str:
    """WGSL whose arrays of the first names are those of the second, in the same memory: (read, written).

    That is right only if nobody reads what another thread has written, so both must be used at the same places.
    """
    for read, written in names:
        others = _places(code, read) - _places(code, written)
        if others:
            raise AssertionError(
                f"kernel: {read} is read at {sorted(others)}, where {written} in its memory is not written"
            )
    for read, written in names:
        code = re.sub(rf"\b{read}\b", written, code)
    return code


def _places(code: str, name: str) -> set[str]:
    """Every index that an array is used with."""
    return set(re.findall(rf"\b{name}\[([^\]]*)\]", code))
