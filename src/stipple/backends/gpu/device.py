"""One GPU: buffers, pipelines, and a stream of dispatches that is handed over when a result is wanted."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from stipple.backends.gpu import process
from stipple.backends.gpu.adapters import AdapterInfo, choose, import_wgpu
from stipple.backends.gpu.buffers import GpuBuffer, stored
from stipple.backends.gpu.failures import Failures
from stipple.backends.gpu.faults import BOARD, UNTOUCHED, WRITTEN, Faults
from stipple.backends.gpu.guesses import Guesses
from stipple.backends.gpu.kernels import Kernels, Params, renamed
from stipple.backends.gpu.memory import Block, Pool
from stipple.backends.gpu.merging import Bound, redirected, to_merge
from stipple.backends.gpu.readback import Readback, batches
from stipple.backends.gpu.stream import Stream
from stipple.backends.gpu.timing import KernelTime
from stipple.errors import DeviceError
from stipple.ir.dtype import DType

Array = np.ndarray
WORKGROUP = 256
"""Threads of a workgroup, of every kernel."""

_SMALL = 256
_WIDEST_ROW = 64
_ARRAYS = "max-storage-buffers-per-shader-stage"
_MOST_ARRAYS = 24
_LEAST_ARRAYS = 8
_WORKGROUP_BYTES = "max-compute-workgroup-storage-size"
_LEAST_WORKGROUP_BYTES = 16_384
_SHADERS = Path(__file__).parent / "shaders"


@lru_cache(maxsize=64)
def shader_text(name: str) -> str:
    """A file of the folder shaders."""
    return (_SHADERS / f"{name}.wgsl").read_text(encoding="utf-8")


def groups_of(count: int) -> int:
    """Workgroups that have a thread for each of so many items."""
    return -(-count // WORKGROUP)


_Args = ParamSpec("_Args")
_Made = TypeVar("_Made")


def _alone(method: Callable[Concatenate[Gpu, _Args], _Made]) -> Callable[Concatenate[Gpu, _Args], _Made]:
    """A method that one thread at a time is in; what one calls another may call."""

    @wraps(method)
    def locked(gpu: Gpu, /, *args: _Args.args, **kwargs: _Args.kwargs) -> _Made:
        with gpu.lock:
            return method(gpu, *args, **kwargs)

    return locked


class Gpu:
    """A device of wgpu. ``kind`` is gpu, metal, vulkan or dx12; with ``least`` no more is used than WebGPU promises.

    There is one stream of work, and one thread at a time adds to it: each method waits for ``lock``, and a run holds it
    from beginning to end (:meth:`running`).
    """

    def __init__(self, kind: str = "gpu", least: bool = False) -> None:
        self.lock = threading.RLock()
        self.wgpu = import_wgpu()
        process.bind(self)
        self.info, adapter = choose(kind)
        self.loop_limit = self.info.loop_limit
        self.subgroup_size = self._subgroup_size(adapter) if self.info.subgroups and not least else 0
        limits = adapter.limits
        self.most_arrays = min(_LEAST_ARRAYS if least else _MOST_ARRAYS, limits[_ARRAYS])
        wanted = {
            _ARRAYS: self.most_arrays,
            "max-storage-buffer-binding-size": limits["max-storage-buffer-binding-size"],
            "max-buffer-size": limits["max-buffer-size"],
            _WORKGROUP_BYTES: min(_LEAST_WORKGROUP_BYTES, limits[_WORKGROUP_BYTES]),
        }
        features = ["subgroup"] if self.subgroup_size else []
        if self.info.timestamps:
            features.append("timestamp-query")
        try:
            self.device = adapter.request_device_sync(required_features=features, required_limits=wanted)
        except RuntimeError as error:
            raise DeviceError(f"{self.info.name} ({self.info.api}): cannot be opened: {error}") from None
        self.largest = min(wanted["max-storage-buffer-binding-size"], wanted["max-buffer-size"]) // 16 * 16
        self._failures = Failures(self.info, (self.wgpu.GPUError, RuntimeError))
        self.kernels = Kernels(self.wgpu, self.device, self._failures.telling)
        self.pool = Pool(self._create, self.largest)
        self.stream = Stream(self.wgpu, self.device, self._failures, self._tidy_up)
        self._fence: GpuBuffer | None = None
        self._readback = Readback(self.wgpu, self.device, self.largest)
        self._overwriting = False
        self._spoiled: GpuBuffer | None = None
        self.guesses = Guesses(self.largest // _WIDEST_ROW)
        self.faults = Faults(self._make_board)

    @staticmethod
    def _subgroup_size(adapter: Any) -> int:
        """The smallest number of threads that a subgroup may have; 0 where that is not told."""
        info = adapter.info
        size = next((info[k] for k in info if k.endswith("group_min_size")), 0)
        return int(size) if 0 < int(size) <= WORKGROUP else 0

    # --- memory -------------------------------------------------------------------------------------------
    @_alone
    def allocate(self, shape: tuple[int, ...], dtype: DType) -> GpuBuffer:
        """Memory with whatever is in it."""
        return GpuBuffer(self._take(4 * math.prod(shape)), shape, dtype)

    def _take(self, size: int, upload: bool = False) -> Block:
        self._failures.check_size(size, self.largest)
        try:
            return self.pool.take(size, upload)
        except self._failures.errors:
            self.forget()
        with self._failures.telling(f"{size / 1e6:.0f} MB could not be had"):
            return self.pool.take(size, upload)

    def _create(self, size: int) -> Any:
        usage = self.wgpu.BufferUsage
        return self.device.create_buffer(size=size, usage=usage.STORAGE | usage.COPY_SRC | usage.COPY_DST)

    @_alone
    def forget(self) -> None:
        """Let go of memory that nothing uses."""
        self.stream.flush()
        self.kernels.unbind(self.pool.drop())

    @_alone
    def upload(self, array: Array, dtype: DType) -> GpuBuffer:
        """A new buffer with an array's values."""
        shape = tuple(np.shape(array))
        if math.prod(shape) > _SMALL and dtype.numpy.itemsize == 1:
            return self._unpacked(array, shape, dtype)
        block = self._written(np.ascontiguousarray(array, stored(dtype)))
        host = np.array(array, dtype.numpy) if math.prod(shape) <= _SMALL else None
        return GpuBuffer(block, shape, dtype, host)

    def _unpacked(self, array: Array, shape: tuple[int, ...], dtype: DType) -> GpuBuffer:
        """Bytes travel four to a word and take a word each only on the device: photos are large."""
        out = self.allocate(shape, dtype)
        data = np.ascontiguousarray(array, dtype.numpy).reshape(-1).view(np.uint8)
        if rest := -data.size % 4:
            data = np.append(data, np.zeros(rest, np.uint8))
        packed = GpuBuffer(self._written(data), (data.size // 4,), DType.U8)
        body = "  out[i] = (packed_[i / 4u] >> (8u * (i % 4u))) & 255u;"
        self.each("unpack", body, {"packed_": packed}, {"out": out}, out.size, always=True)
        return out

    @_alone
    def copy(self, buffer: GpuBuffer) -> GpuBuffer:
        """New memory with what is in a buffer when all work before is done."""
        made = GpuBuffer(self._take(4 * buffer.size), buffer.shape, buffer.dtype, buffer.host)
        if buffer.size:
            with self._failures.telling("an array could not be copied"):
                self.stream.encoder().copy_buffer_to_buffer(buffer.raw, 0, made.raw, 0, 4 * buffer.size)
        return made

    def _written(self, data: Array) -> Block:
        """New memory with an array's bytes."""
        block = self._take(data.nbytes, upload=True)
        if data.nbytes:
            with self._failures.telling(f"{data.nbytes / 1e6:.0f} MB could not be uploaded"):
                self.device.queue.write_buffer(block.raw, 0, data.reshape(-1))
        return block

    def download(self, buffer: GpuBuffer, dtype: DType | None = None) -> Array:
        """A buffer's values; waits for everything that was dispatched."""
        return self.download_all([(buffer, dtype or buffer.dtype)])[0]

    @_alone
    def download_all(self, wanted: Sequence[tuple[GpuBuffer, DType]]) -> list[Array]:
        """The values of some buffers; the host waits once for all that fit into one buffer together."""
        arrays: list[Array] = []
        for part in batches([buffer for buffer, _ in wanted], self.largest):
            with self._failures.telling("a result could not be read"):
                self._readback.copy(self.stream.encoder(), part)
            self.stream.flush()
            with self._failures.telling("a result could not be read"), self.stream.waiting():
                arrays += self._readback.take(part)
        self.stream.flush()
        return [a.astype(dtype.numpy, copy=False) for a, (_, dtype) in zip(arrays, wanted, strict=True)]

    def known(self, buffer: GpuBuffer) -> Array:
        """Values that the host must know: from its copy, else downloaded."""
        return self.download(buffer) if buffer.host is None else buffer.host

    # --- work ---------------------------------------------------------------------------------------------
    @_alone
    def run(
        self,
        name: str,
        code: str,
        reads: Mapping[str, GpuBuffer],
        writes: Mapping[str, GpuBuffer],
        params: Params,
        groups: int,
    ) -> None:
        """Dispatch ``groups`` workgroups of a kernel.

        ``code`` is WGSL without bindings; ``reads`` and ``writes`` become storage arrays of those names, ``params``
        the fields of a uniform ``P``. It may call ``group_index(workgroup_id, num_workgroups)``. Nothing that it writes
        may be in the memory of what it reads, and it cannot be withheld: see :meth:`each` for what can do both.
        """
        assert not self._overwriting, f"kernel {name} overwrites parameters, and cannot be withheld"
        assert not _shared(reads, writes), f"kernel {name} writes what it reads"
        self._bind_and_dispatch(name, code, reads, writes, params, groups)

    def _bind_and_dispatch(
        self,
        name: str,
        code: str,
        reads: Mapping[str, GpuBuffer],
        writes: Mapping[str, GpuBuffer],
        params: Params,
        groups: int,
    ) -> None:
        if groups <= 0:
            return
        names = {id(b.raw): n for n, b in writes.items()}
        assert len(names) == len(writes), f"kernel {name} writes twice to the same memory"
        aliased = _shared(reads, writes)
        if aliased:
            code = renamed(code, aliased)
        bound = [Bound(n, b, True) for n, b in writes.items()]
        bound += [Bound(n, b, False) for n, b in reads.items() if id(b.raw) not in names]
        if len(bound) > self.most_arrays:
            self._run_merged(name, code, bound, params, groups)
        else:
            self._dispatch(name, code, bound, params, groups)

    def _run_merged(self, name: str, code: str, bound: list[Bound], params: Params, groups: int) -> None:
        """A kernel with more arrays than can be bound: some share a binding while it runs."""
        moved: list[tuple[GpuBuffer, GpuBuffer, int]] = []
        starts: dict[str, int | float] = {}
        for group in to_merge(bound, self.most_arrays):
            shared = self.allocate((sum(b.buffer.size for b in group),), group[0].buffer.dtype)
            start = 0
            for array in group:
                code = redirected(code, array.name, group[0].kind, f"P.start_{array.name}")
                starts[f"start_{array.name}"] = start
                self._copy(array.buffer, shared, 0, start, array.buffer.size)
                if array.writes:
                    moved.append((shared, array.buffer, start))
                start += array.buffer.size
            bound = [b for b in bound if b not in group] + [Bound(group[0].kind, shared, group[0].writes)]
        self._dispatch(name, code, bound, {**params, **starts}, groups)
        for shared, own, start in moved:
            self._copy(shared, own, start, 0, own.size)

    def _copy(self, source: GpuBuffer, target: GpuBuffer, source_start: int, target_start: int, count: int) -> None:
        starts = {"source_start": source_start, "target_start": target_start}
        body = "  target_[P.target_start + i] = source[P.source_start + i];"
        self.each("merge", body, {"source": source}, {"target_": target}, count, starts)

    def _dispatch(self, name: str, code: str, bound: list[Bound], params: Params, groups: int) -> None:
        program = self.kernels.program(name, code, bound, params)
        raws = [b.buffer.raw for b in bound]
        if params:
            raws.append(self.kernels.uniform(program, params))
        group = self.kernels.group(program, raws)
        self.stream.dispatch(name, program.pipeline, group, raws, groups)

    @contextmanager
    def timed(self) -> Iterator[list[KernelTime]]:
        """Times of the kernels dispatched inside, by the device's own clock; the list is filled at the end.

        Raises DeviceError where the device has no timestamps.
        """
        if not self.info.timestamps:
            raise DeviceError(f"{self.info.name} ({self.info.api}): has no timestamps, so kernels cannot be timed")
        with self.lock, self.stream.timed() as times:
            yield times

    @_alone
    def each(
        self,
        name: str,
        body: str,
        reads: Mapping[str, GpuBuffer],
        writes: Mapping[str, GpuBuffer],
        count: int,
        params: Params | None = None,
        functions: str = "",
        always: bool = False,
    ) -> None:
        """Run ``body`` once for each ``i`` below ``count``; unless ``always``, not at all inside :meth:`overwriting` if
        the run is spoiled.

        What it writes may be in the memory of what it reads, where each ``i`` reads at the places that it writes: the
        buffer is bound once, under the name it is written by.
        """
        guard = ""
        if self._overwriting and not always and (self.guesses.pending or self.faults.pending):
            guard, reads = "  if (spoiled[0] != 0) { return; }\n", {**reads, "spoiled": self.spoiled()}
        code = f"{functions}{_EACH}{guard}{body}\n}}\n"
        params = {"count": count, **(params or {})}
        self._bind_and_dispatch(name, code, reads, writes, params, groups_of(count))

    # --- runs ---------------------------------------------------------------------------------------------
    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a run: other threads wait. If it raises, what it has not come to is forgotten."""
        with self.lock:
            try:
                yield
            except BaseException:
                self.forget_run()
                raise

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Kernels dispatched inside by :meth:`each` change nothing if the run is spoiled."""
        self._overwriting = True
        try:
            yield
        finally:
            self._overwriting = False

    def spoiled(self) -> GpuBuffer:
        """A number on the device: 0 until a kernel finds that what this run makes cannot be used, because something did
        not fit or an operand is at fault. The host learns of that at the end of the run; kernels that overwrite what
        cannot be computed again ask it themselves."""
        if self._spoiled is None:
            self._spoiled = self._uploaded(np.zeros(1, np.int32))
        return self._spoiled

    def _make_board(self) -> GpuBuffer:
        board = self._uploaded(np.full(BOARD, UNTOUCHED, np.int32))
        board.wgsl = WRITTEN
        return board

    def _uploaded(self, words: Array) -> GpuBuffer:
        """Words that kernels will change, so that the host has no copy."""
        return GpuBuffer(self._written(words), words.shape, DType.I32)

    def forget_run(self) -> None:
        """Forget what was to be asked at the end of a run, and what it may have spoiled."""
        self.guesses.take_pending()
        self.faults.forget()
        self._spoiled = None

    def _tidy_up(self) -> None:
        """After a hand-over: memory that lay idle for long is dropped."""
        self.kernels.unbind(self.pool.tick())

    @_alone
    def wait(self) -> None:
        """Hand over, and wait until all of it is done: a read comes after everything before it."""
        if self._fence is None:
            self._fence = self.allocate((1,), DType.I32)
        self.download(self._fence)


def describe(info: AdapterInfo) -> str:
    """One line about a GPU."""
    abilities = [n for n, has in (("subgroups", info.subgroups), ("timestamps", info.timestamps)) if has]
    kind = "software" if info.type == "CPU" else info.type
    return f"{info.name}, {kind}, {info.api}; " + ", ".join(
        [*abilities, f"buffers up to {info.largest_buffer >> 20} MB"]
    )


def _shared(reads: Mapping[str, GpuBuffer], writes: Mapping[str, GpuBuffer]) -> tuple[tuple[str, str], ...]:
    """Names under which the same memory is read and written."""
    names = {id(b.raw): n for n, b in writes.items()}
    return tuple((n, names[id(b.raw)]) for n, b in reads.items() if id(b.raw) in names)


_EACH = """
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
"""
