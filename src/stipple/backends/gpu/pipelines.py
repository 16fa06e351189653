"""Kernels as run by a device: compiled programs, the buffers bound to them, and their constants.

A training step dispatches about eighty kernels, most of them tiny, so the host must not be slow: everything is cached.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from stipple.backends.gpu.driver import Driver
from stipple.backends.gpu.kernels import Binding, Kernel, Params
from stipple.backends.gpu.native import shader_module

_MAX_GROUPS = 4096
_MAX_UNIFORMS = 4096

_COMMON = """
fn group_index(id: vec3<u32>, groups: vec3<u32>) -> u32 { return id.y * groups.x + id.x; }
"""


class Program(NamedTuple):
    """A compiled kernel, the layout of its bindings, and the memory layout of its constants."""

    pipeline: Any
    layout: Any
    constants: struct.Struct | None


class Pipelines:
    """Programs and bindings of one device. ``sources`` are the programs' texts, for tests and tools."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._uniforms: dict[bytes, Any] = {}
        self._groups: dict[tuple[int, ...], tuple[Any, list[Any]]] = {}
        self.sources: dict[str, str] = {}

    def program(self, kernel: Kernel, binding: Binding, params: Params) -> Program:
        """The program of a kernel over arrays and constants."""
        arrays = [(b.name, b.buffer.wgsl, b.writes) for b in binding.bound]
        key = (kernel, *arrays, *binding.accessors, *params, *map(type, params.values()))
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = self._compiled(kernel, binding, params)
        return found

    def _compiled(self, kernel: Kernel, binding: Binding, params: Params) -> Program:
        header = "".join(b.declaration(i) for i, b in enumerate(binding.bound))
        constants = None
        if params:
            fields = "".join(f"  {n}: {'f32' if isinstance(v, float) else 'u32'},\n" for n, v in params.items())
            number = len(binding.bound)
            header += f"struct Params {{\n{fields}}};\n@group(0) @binding({number}) var<uniform> P: Params;\n"
            letters = "".join("f" if isinstance(v, float) else "I" for v in params.values())
            constants = struct.Struct(f"<{letters}{-len(letters) % 4 * 4}x")
        header += "".join(a.definition() for a in binding.accessors)
        source = header + _COMMON + kernel.functions + kernel.code
        device = self._driver.device
        with self._driver.failures.reported(f"kernel {kernel.name} was refused", "report it to Stipple's developers"):
            module = shader_module(device, kernel.name, source)
            pipeline = device.create_compute_pipeline(
                layout="auto", compute={"module": module, "entry_point": "main"}, label=kernel.name
            )
        self.sources[f"{kernel.name}.{len(self.sources)}"] = source
        return Program(pipeline, pipeline.get_bind_group_layout(0), constants)

    def uniform(self, program: Program, params: Params) -> Any:
        """A buffer with a program's constants."""
        assert program.constants is not None
        data = program.constants.pack(*params.values())
        found = self._uniforms.get(data)
        if found is None:
            if len(self._uniforms) >= _MAX_UNIFORMS:
                self._uniforms.clear()
            usage = self._driver.wgpu.BufferUsage.UNIFORM
            found = self._uniforms[data] = self._driver.device.create_buffer_with_data(data=data, usage=usage)
        return found

    def group(self, program: Program, raws: list[Any]) -> Any:
        """The binding of buffers to a program. It is cached, and keeps the buffers alive, so that their ids are not
        reused."""
        key = (id(program.layout), *map(id, raws))
        found = self._groups.get(key)
        if found is None:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups.clear()
            entries = [
                {"binding": i, "resource": {"buffer": raw, "offset": 0, "size": raw.size}} for i, raw in enumerate(raws)
            ]
            found = (self._driver.device.create_bind_group(layout=program.layout, entries=entries), raws)
            self._groups[key] = found
        return found[0]

    def unbind(self, dropped: Sequence[Any]) -> None:
        """Drop the bindings of released memory."""
        if dropped:
            gone = {id(raw) for raw in dropped}
            self._groups = {k: v for k, v in self._groups.items() if gone.isdisjoint(k[1:])}
