"""What a process asks of wgpu while it runs: every dispatch with its program and arrays, every copy.

It is observed where Stipple calls wgpu, so it works with any kernels and with earlier versions of the backend. Of the
backend itself it needs two places: where kernels' texts are compiled, and where memory is taken from the pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock
from weakref import WeakKeyDictionary

from stipple.backends.gpu import pipelines
from stipple.backends.gpu.adapters import import_wgpu
from stipple.backends.gpu.pool import Pool

_STORAGE = re.compile(r"@binding\((\d+)\)\s+var<storage(?:,\s*(\w+))?>")
Call = Callable[..., Any]


class Dispatch(NamedTuple):
    """A kernel by name, the index of its program, its workgroups, whether it has to wait for earlier work, and the
    bytes of the arrays bound to it, by binding."""

    kernel: str
    program: int
    workgroups: int
    waits: bool
    arrays: dict[int, int]


class Watch:
    """``programs`` are the texts (WGSL) that dispatches refer to. ``dispatches``, ``copies`` (bytes of each) and
    ``uploads`` (bytes of each) are what was observed since :meth:`clear`."""

    def __init__(self) -> None:
        self.programs: list[str] = []
        self.clear()
        self._modules: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._pipelines: WeakKeyDictionary[Any, tuple[str, int]] = WeakKeyDictionary()
        self._groups: WeakKeyDictionary[Any, list[tuple[int, Any]]] = WeakKeyDictionary()
        self._sizes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._uses: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._pipeline: Any = None
        self._group: Any = None

    def clear(self) -> None:
        """Forget what was observed; programs and memory stay known."""
        self.dispatches: list[Dispatch] = []
        self.copies: list[int] = []
        self.uploads: list[int] = []

    def compiled(self, call: Call, device: Any, label: str, code: str) -> Any:
        module = call(device, label, code)
        self._modules[module] = code
        return module

    def pipeline_made(self, call: Call, device: Any, **options: Any) -> Any:
        pipeline = call(device, **options)
        code = self._modules.get(options["compute"]["module"])
        if code is not None:
            self._pipelines[pipeline] = (options["label"], self._number(code))
        return pipeline

    def _number(self, code: str) -> int:
        if code not in self.programs:
            self.programs.append(code)
        return self.programs.index(code)

    def group_made(self, call: Call, device: Any, **options: Any) -> Any:
        group = call(device, **options)
        self._groups[group] = [(e["binding"], e["resource"]["buffer"]) for e in options["entries"]]
        return group

    def taken(self, call: Call, pool: Any, size: int, *more: Any, **named: Any) -> Any:
        block = call(pool, size, *more, **named)
        self._sizes[block.raw] = size  # the pool rounds up; this is what was asked for
        return block

    def pipeline_set(self, call: Call, encoder: Any, pipeline: Any) -> None:
        self._pipeline = pipeline
        call(encoder, pipeline)

    def group_set(self, call: Call, encoder: Any, index: int, group: Any, *more: Any) -> None:
        self._group = group
        call(encoder, index, group, *more)

    def dispatched(self, call: Call, encoder: Any, *counts: int) -> None:
        call(encoder, *counts)
        workgroups = 1
        for number in counts:
            workgroups *= number
        label, program = self._pipelines[self._pipeline]
        bound = dict(self._groups[self._group])
        uses, arrays = {}, {}
        for binding, access in _STORAGE.findall(self.programs[program]):
            buffer = bound[int(binding)]
            uses[buffer] = "write" if access == "read_write" else "read"
            arrays[int(binding)] = self._sizes.get(buffer, buffer.size)
        waits = [self._has_to_wait(buffer, use) for buffer, use in uses.items()]
        self.dispatches.append(Dispatch(label, program, workgroups, any(waits), arrays))

    def _has_to_wait(self, buffer: Any, use: str) -> bool:
        """Whether wgpu puts a barrier before a use: unless it is the first one, or both it and the last one only read
        (wgpu-core's track/mod.rs, skip_barrier)."""
        last = self._uses.get(buffer)
        self._uses[buffer] = use
        return last is not None and not (last == use and use in ("read", "copied from"))

    def dispatched_indirectly(self, call: Call, encoder: Any, *options: Any, **named: Any) -> None:
        raise RuntimeError("an indirect dispatch: how many workgroups it has is known only on the device")

    def copied(self, call: Call, encoder: Any, *given: Any) -> None:
        source, _, target, _, size = given
        call(encoder, *given)
        self._has_to_wait(source, "copied from")
        self._has_to_wait(target, "copied to")
        self.copies.append(size)

    def uploaded(self, call: Call, queue: Any, *given: Any) -> None:
        call(queue, *given)
        self.uploads.append(memoryview(given[2]).nbytes)


@contextmanager
def watching() -> Iterator[Watch]:
    """Observe everything that is done on devices that are opened inside. Raises DeviceError without wgpu."""
    import_wgpu()  # or a sentence that says how to install it
    from wgpu.backends import wgpu_native

    watch = Watch()
    observed: list[tuple[Any, str, Call]] = [
        (pipelines, "shader_module", watch.compiled),
        (Pool, "take", watch.taken),
        (wgpu_native.GPUDevice, "create_compute_pipeline", watch.pipeline_made),
        (wgpu_native.GPUDevice, "create_bind_group", watch.group_made),
        (wgpu_native.GPUComputePassEncoder, "set_pipeline", watch.pipeline_set),
        (wgpu_native.GPUComputePassEncoder, "set_bind_group", watch.group_set),
        (wgpu_native.GPUComputePassEncoder, "dispatch_workgroups", watch.dispatched),
        (wgpu_native.GPUComputePassEncoder, "dispatch_workgroups_indirect", watch.dispatched_indirectly),
        (wgpu_native.GPUCommandEncoder, "copy_buffer_to_buffer", watch.copied),
        (wgpu_native.GPUQueue, "write_buffer", watch.uploaded),
    ]
    with ExitStack() as stack:
        for owner, name, observer in observed:
            stack.enter_context(mock.patch.object(owner, name, _through(observer, getattr(owner, name))))
        yield watch


def _through(observer: Call, call: Call) -> Call:
    """A call that its observer makes, with what it was given."""

    def observed(*given: Any, **named: Any) -> Any:
        return observer(call, *given, **named)

    return observed
