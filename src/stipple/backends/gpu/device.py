"""One GPU: its memory, its pipelines, its command stream, and the run in progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stipple.backends.gpu import process
from stipple.backends.gpu.adapters import AdapterInfo
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.driver import WORKGROUP, open_driver
from stipple.backends.gpu.kernels import Arrays, Kernel, Params, bind
from stipple.backends.gpu.locking import alone
from stipple.backends.gpu.memory import Memory
from stipple.backends.gpu.pipelines import Pipelines
from stipple.backends.gpu.runs import Runs
from stipple.backends.gpu.stream import CommandStream
from stipple.backends.gpu.timing import KernelTime
from stipple.errors import DeviceError
from stipple.ir.dtype import DType


def groups_of(count: int) -> int:
    """Workgroups needed for one thread per item."""
    return -(-count // WORKGROUP)


class Gpu:
    """A device of wgpu. ``kind`` is gpu, metal, vulkan or dx12; with ``minimal`` nothing beyond WebGPU's guarantees is
    used.

    One thread at a time uses it: others wait for ``lock``, which a run holds from beginning to end.
    """

    def __init__(self, kind: str = "gpu", minimal: bool = False) -> None:
        process.bind(self)
        self.driver = open_driver(kind, minimal)
        self.info, self.lock = self.driver.info, self.driver.lock
        self.loop_limit = self.info.loop_limit
        self.stream = CommandStream(self.driver, self._submitted)
        self.pipelines = Pipelines(self.driver)
        self.memory = Memory(self.driver, self.stream, self.pipelines.unbind)
        self.runs = Runs(self.driver, self.memory)

    def _submitted(self) -> None:
        self.memory.tidy()

    @alone
    def run(self, kernel: Kernel, reads: Arrays, writes: Arrays, groups: int, params: Params) -> None:
        """Dispatch ``groups`` workgroups of a kernel, a whole program.

        ``reads`` become functions of those names, ``writes`` arrays, ``params`` the fields of a uniform ``P``. It may
        call ``group_index(workgroup_id, num_workgroups)``. Unlike with :meth:`each`, it cannot be skipped.
        """
        assert not self.runs.is_overwriting, f"kernel {kernel.name} overwrites parameters, and cannot be skipped"
        self._dispatch(kernel, reads, writes, groups, params)

    @alone
    def each(self, kernel: Kernel, reads: Arrays, writes: Arrays, count: int, params: Params | None = None) -> None:
        """Run a kernel's body once for each ``i`` below ``count``; not at all inside :meth:`Runs.overwriting` if the
        run is unusable, unless the kernel always runs."""
        guard = None if kernel.always else self.runs.guard()
        if guard is not None:
            reads = {**reads, "unusable": guard}
        code = f"{_EACH}{_GUARD if guard is not None else ''}{kernel.code}\n}}\n"
        self._dispatch(kernel._replace(code=code), reads, writes, groups_of(count), {"count": count, **(params or {})})

    def _dispatch(self, kernel: Kernel, reads: Arrays, writes: Arrays, groups: int, params: Params) -> None:
        if groups <= 0:
            return
        binding = bind(kernel, reads, writes, self.driver.max_arrays, self._joined)
        params = {**params, **binding.starts}
        program = self.pipelines.program(kernel, binding, params)
        raws = [b.buffer.raw for b in binding.bound]
        if params:
            raws.append(self.pipelines.uniform(program, params))
        group = self.pipelines.group(program, raws)
        self.stream.dispatch(kernel.name, program.pipeline, group, raws, groups)

    def _joined(self, buffers: Sequence[GpuBuffer]) -> GpuBuffer:
        """A new buffer with some buffers of one type concatenated."""
        joined = self.memory.allocate((sum(b.size for b in buffers),), DType.I32)
        joined.wgsl = buffers[0].wgsl
        start = 0
        for buffer in buffers:
            self.memory.copy_into(buffer, joined, start)
            start += buffer.size
        return joined

    @contextmanager
    def timed(self) -> Iterator[list[KernelTime]]:
        """Times of the kernels dispatched inside, by the device's own clock; the list is filled at the end.

        Raises DeviceError where the device has no timestamps.
        """
        if not self.info.timestamps:
            raise DeviceError(f"{self.info.name} ({self.info.api}): has no timestamps, so kernels cannot be timed")
        with self.lock, self.stream.timed() as times:
            yield times


def describe(info: AdapterInfo) -> str:
    """One line about a GPU."""
    abilities = [n for n, has in (("subgroups", info.subgroups), ("timestamps", info.timestamps)) if has]
    kind = "software" if info.type == "CPU" else info.type
    return f"{info.name}, {kind}, {info.api}; " + ", ".join(
        [*abilities, f"buffers up to {info.largest_buffer >> 20} MB"]
    )


_GUARD = "  if (unusable(0u) != 0) { return; }\n"
_EACH = """
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
"""
