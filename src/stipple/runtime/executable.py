"""A compiled graph: parameters, kernels and a memory plan, run as often as wanted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stipple.errors import FeedError
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Value
from stipple.ir.passes import PassRecord
from stipple.runtime.backend import Backend, Buffer, Kernel
from stipple.runtime.feeds import Bindings, as_array, check_finite, check_names, describe, finite_users
from stipple.runtime.plan import Plan, Step

_Key = tuple[tuple[int, ...], DType]
"""Shape and dtype: buffers are interchangeable where these are equal."""
_Owned = tuple[_Key, Buffer]


@dataclass(frozen=True)
class Dispatch:
    """Which kernel runs one node."""

    node: int
    op: str
    kernel: str
    results: str
    inplace: bool

    def __str__(self) -> str:
        note = "  (in place)" if self.inplace else ""
        return f"%{self.node:<5} {self.op:<28} {self.kernel:<36} {self.results}{note}"


@dataclass(frozen=True)
class Timing:
    """How long one node took in the last timed run."""

    node: int
    op: str
    kernel: str
    seconds: float


@dataclass
class MemoryUse:
    """Buffers of the last run: made new, taken over from dead values, written in place; peak in bytes."""

    allocated: int = 0
    reused: int = 0
    in_place: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0


class Executable:
    """A graph compiled for one device by :meth:`stipple.runtime.Session.compile`.

    Not for concurrent use: parameters change in place.
    """

    def __init__(
        self,
        graph: Graph,
        backend: Backend,
        plan: Plan,
        kernels: Mapping[int, Kernel],
        pass_records: Sequence[PassRecord],
    ) -> None:
        self.graph = graph
        self.backend = backend
        self.pass_records = list(pass_records)
        self.timings: list[Timing] = []
        self.memory = MemoryUse()
        self._plan = plan
        self._kernels = kernels
        self._finite = finite_users(graph)
        self._pool: dict[_Key, list[Buffer]] = {}
        self._pool_dims: dict[str, int] = {}
        self._params: dict[str, Buffer] = {}
        self._constants = {
            node.outputs[0]: backend.upload(node.attrs["value"], node.outputs[0].dtype)
            for node in graph.nodes
            if node.op == "constant"
        }
        for name, array in graph.param_values.items():
            self.set_param(name, array)

    # --- parameters ---------------------------------------------------------------------------------------
    def set_param(self, name: str, value: ArrayLike) -> None:
        """Give a parameter a value. A symbolic dimension may change from one call to the next."""
        type_ = self._param(name).type
        what = f"parameter {name!r}"
        array = as_array(what, value, type_)
        Bindings().bind(what, type_, array.shape)
        if name in self._finite:
            check_finite(what, array, self._finite[name])
        self._params[name] = self.backend.upload(array, type_.dtype)

    def get_param(self, name: str) -> np.ndarray:
        """A copy of a parameter's current value."""
        value = self._param(name)
        if name not in self._params:
            raise FeedError(f"parameter {name!r} has no value yet; call set_param({name!r}, ...)")
        return self.backend.download(self._params[name], value.dtype)

    def take_params(self, other: Executable) -> None:
        """Take over the values of the parameters that both graphs have, without copying; ``other`` loses them.

        For graphs that do the same at another size. Values whose shape does not fit here are left behind.
        """
        if other.backend is not self.backend:
            raise FeedError("take_params: both executables must be compiled by one session")
        for name, value in self.graph.params.items():
            buffer = other._params.get(name)
            if buffer is None or other.graph.params[name].dtype is not value.dtype:
                continue
            try:
                Bindings().bind(describe(value), value.type, self.backend.shape(buffer))
            except (FeedError, ValueError):
                continue
            self._params[name] = other._params.pop(name)
        other._pool.clear()

    def _param(self, name: str) -> Value:
        if name not in self.graph.params:
            known = ", ".join(sorted(self.graph.params)) or "none"
            raise FeedError(f"the graph has no parameter {name!r}; it has: {known}")
        return self.graph.params[name]

    # --- running ------------------------------------------------------------------------------------------
    def run(self, feeds: Mapping[str, Any] | None = None, *, timings: bool = False) -> dict[str, np.ndarray]:
        """Run the graph once: outputs by name, then parameters take their updates.

        ``feeds`` holds an array (NumPy, or anything with DLPack on the CPU) or Python number for each input.
        With ``timings``, :attr:`timings` holds each node's time afterwards. Raises FeedError for a wrong
        name, dtype, shape or value; a run that raises leaves the parameters as they were.
        """
        results = None
        while results is None:
            results = self._try(feeds or {}, timings)
        return dict(zip(self.graph.outputs, results, strict=True))

    def _try(self, feeds: Mapping[str, Any], timings: bool) -> list[np.ndarray] | None:
        """Run once: the outputs, or None if the device must make more room and try again."""
        bindings = Bindings()
        buffers = self._sources(feeds, bindings)
        if bindings.dims != self._pool_dims:
            self._pool.clear()
            self._pool_dims = dict(bindings.dims)
        self.memory = MemoryUse()
        self.timings = []
        owned: dict[int, _Owned] = {}
        first_commit = self._plan.first_commit
        for step in self._plan.steps[:first_commit]:
            self._run_step(step, buffers, owned, bindings, timings)
        with self.backend.overwriting():
            for step in self._plan.steps[first_commit:]:
                self._run_step(step, buffers, owned, bindings, timings)
        results = self.backend.collect([(buffers[v], v.dtype) for v in self.graph.outputs.values()])
        if results is not None:
            self._commit(buffers, owned)
        return results

    def _sources(self, feeds: Mapping[str, Any], bindings: Bindings) -> dict[Value, Buffer]:
        """Buffers of parameters, constants and feeds, with all symbols bound."""
        check_names(feeds, self.graph.inputs)
        buffers = dict(self._constants)
        for name, value in self.graph.params.items():
            if name not in self._params:
                raise FeedError(f"parameter {name!r} has no value yet; call set_param({name!r}, ...)")
            buffers[value] = self._params[name]
            bindings.bind(describe(value), value.type, self.backend.shape(self._params[name]))
        for name, value in self.graph.inputs.items():
            array = as_array(describe(value), feeds[name], value.type)
            bindings.bind(describe(value), value.type, array.shape)
            if name in self._finite:
                check_finite(describe(value), array, self._finite[name])
            buffers[value] = self.backend.upload(array, value.dtype)
        return buffers

    def _run_step(
        self,
        step: Step,
        buffers: dict[Value, Buffer],
        owned: dict[int, _Owned],
        bindings: Bindings,
        timed: bool,
    ) -> None:
        node, storage = step.node, self._plan.storage
        kernel = self._kernels[node.id]
        makes_own = kernel.owns_outputs
        inputs = [buffers[v] for v in node.inputs]
        outputs: list[Buffer | None] = []
        for i, value in enumerate(node.outputs):
            if i in step.inplace:
                outputs.append(inputs[step.inplace[i]])
                taken = owned.pop(storage[node.inputs[step.inplace[i]]], None)
                if taken is not None:
                    owned[storage[value]] = taken
                self.memory.in_place += 1
            elif makes_own or node.definition.view or not value.shape.symbols <= bindings.dims.keys():
                outputs.append(None)
            else:
                key = (value.shape.resolve(bindings.dims), value.dtype)
                outputs.append(self._take(key))
                owned[storage[value]] = (key, outputs[-1])
        if timed:
            self.backend.synchronize()
        started = time.perf_counter() if timed else 0.0
        made = kernel(inputs, outputs, bindings.dims)
        if timed:
            self.backend.synchronize()
            self.timings.append(Timing(node.id, node.op, kernel.name, time.perf_counter() - started))
        for value, buffer in zip(node.outputs, made, strict=True):
            buffers[value] = buffer
            if not value.shape.symbols <= bindings.dims.keys():
                bindings.bind(f"result of {node.op}", value.type, self.backend.shape(buffer))
        for number in step.dead:
            if number in owned:
                key, buffer = owned.pop(number)
                self._give(key, buffer)
        for value in step.forgotten:
            buffers.pop(value, None)

    def _take(self, key: _Key) -> Buffer:
        free = self._pool.get(key)
        self.memory.live_bytes += _bytes(key)
        self.memory.peak_bytes = max(self.memory.peak_bytes, self.memory.live_bytes)
        if free:
            self.memory.reused += 1
            return free.pop()
        self.memory.allocated += 1
        return self.backend.allocate(*key)

    def _give(self, key: _Key, buffer: Buffer) -> None:
        self._pool.setdefault(key, []).append(buffer)
        self.memory.live_bytes -= _bytes(key)

    def _commit(
        self,
        buffers: Mapping[Value, Buffer],
        owned: dict[int, _Owned],
    ) -> None:
        """Give parameters their next values, then free what outlived the run only to be returned."""
        kept: set[int] = set()
        for name, value in self.graph.updates.items():
            number = self._plan.storage[value]
            direct = number in owned and number not in kept and owned[number][1] is buffers[value]
            in_place = buffers[value] is self._params[name]
            if direct or in_place:
                self._params[name] = buffers[value]
            else:  # a feed, constant, view or other parameter: the parameter needs memory of its own
                copy = self.backend.download(buffers[value], value.dtype)
                self._params[name] = self.backend.upload(copy, value.dtype)
            kept.add(number)
        for number, (key, buffer) in owned.items():
            if number not in kept:
                self._give(key, buffer)

    # --- reports ------------------------------------------------------------------------------------------
    @property
    def dispatch(self) -> list[Dispatch]:
        """Which kernel runs each node, in order of execution."""
        return [
            Dispatch(
                s.node.id,
                s.node.op,
                f"{self.backend.name}:{self._kernels[s.node.id].name}",
                ", ".join(str(v.type) for v in s.node.outputs),
                bool(s.inplace),
            )
            for s in self._plan.steps
        ]

    def report(self) -> str:
        """Passes, dispatch and, after a timed run, times: as text."""
        lines = ["passes", *(f"  {r}" for r in self.pass_records)]
        lines += [f"kernels on {self.backend.name}", *(f"  {d}" for d in self.dispatch)]
        if self.timings:
            total = sum(t.seconds for t in self.timings)
            lines.append(f"times of the last timed run, {total * 1e3:.3f} ms in all")
            for t in sorted(self.timings, key=lambda t: -t.seconds):
                lines.append(f"  %{t.node:<5} {t.op:<28} {t.seconds * 1e3:10.3f} ms")
        return "\n".join(lines)


def _bytes(key: _Key) -> int:
    return math.prod(key[0]) * key[1].itemsize
