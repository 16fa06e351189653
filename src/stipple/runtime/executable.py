"""A compiled graph: parameters, kernels and a memory plan; it can be run any number of times."""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple.errors import FeedError, InputError
from stipple.ir.graph import Graph, Value
from stipple.ir.passes import PassRecord
from stipple.runtime.backend import Backend, Buffer, Kernel
from stipple.runtime.feeds import Bindings, as_array, check_finite, check_names, describe, finite_users
from stipple.runtime.handles import DeviceArray
from stipple.runtime.memory import Key, MemoryUse, pool_of
from stipple.runtime.outputs import Outputs
from stipple.runtime.params import Params
from stipple.runtime.plan import Plan, Step
from stipple.runtime.reports import Dispatch, Timing, dispatches, report_text


@dataclass(frozen=True)
class _Prepared:
    """A step with the buffers it reads and writes (None where the kernel allocates them)."""

    step: Step
    kernel: Kernel
    inputs: Sequence[Buffer]
    outputs: Sequence[Buffer | None]


class _Run:
    """The state of one run: the buffer of each value, handles among the feeds, the dimensions, and the buffers that it
    owns and has to return.

    ``keep`` names the outputs that stay in the device's memory.
    """

    def __init__(
        self,
        buffers: dict[Value, Buffer],
        fed: Mapping[Value, DeviceArray],
        bindings: Bindings,
        timed: bool,
        keep: Collection[str],
    ) -> None:
        self.buffers = buffers
        self.fed = fed
        self.bindings = bindings
        self.timed = timed
        self.keep = keep
        self.owned: dict[int, tuple[Key, Buffer]] = {}


class Executable:
    """A graph compiled for one device by :meth:`stipple.runtime.Session.compile`.

    It must not be used by several threads at once: parameters change in place.
    """

    def __init__(
        self,
        graph: Graph,
        backend: Backend,
        plan: Plan,
        kernels: Mapping[int, Kernel],
        pass_records: Sequence[PassRecord],
        params: Params,
    ) -> None:
        self.graph = graph
        self.backend = backend
        self.pass_records = list(pass_records)
        self.timings: list[Timing] = []
        self._plan = plan
        self._kernels = kernels
        self._finite = finite_users(graph)
        self.params = params
        self.memory = MemoryUse()
        self._pool = pool_of(backend)
        weakref.finalize(self, self._pool.forget, id(self))
        self._constants = {
            node.outputs[0]: backend.upload(node.attrs["value"], node.outputs[0].dtype)
            for node in graph.nodes
            if node.op == "constant"
        }
        for name, array in graph.param_values.items():
            if name not in params:
                self.set_param(name, array)

    # --- parameters ---------------------------------------------------------------------------------------
    def set_param(self, name: str, value: ArrayLike) -> None:
        """Set a parameter's value. A symbolic dimension may change from one call to the next."""
        type_ = self._param(name).type
        what = f"parameter {name!r}"
        array = as_array(what, value, type_)
        Bindings().bind(what, type_, array.shape)
        if name in self._finite:
            check_finite(what, array, self._finite[name])
        self.params.put(name, self.backend.upload(array, type_.dtype), type_.dtype)

    def get_param(self, name: str) -> np.ndarray:
        """A copy of a parameter's current value."""
        self._param(name)
        return self.params.get(name)

    def _param(self, name: str) -> Value:
        if not isinstance(name, str) or name not in self.graph.params:
            known = ", ".join(sorted(self.graph.params)) or "none"
            raise FeedError(f"the graph has no parameter {arguments.shown(name)}; it has: {known}")
        return self.graph.params[name]

    # --- running ------------------------------------------------------------------------------------------
    def run(
        self, feeds: Mapping[str, Any] | None = None, *, timings: bool = False, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run the graph once: returns the outputs by name, and updates the parameters.

        ``feeds`` holds an array (NumPy, anything with DLPack on the CPU, or a :class:`DeviceArray` of this session) or
        Python number for each input. Outputs are NumPy arrays; those named in ``keep`` stay in the device's memory, as
        :class:`DeviceArray`. An array with the value of one that stays, or of a :class:`DeviceArray` in ``feeds``, is
        read-only. With ``timings``, :attr:`timings` holds each node's time afterwards. Raises FeedError for a wrong
        name, dtype, shape or value, InputError for operands that an op refuses, MemoryError naming the op that ran out
        of memory; a run that raises leaves the parameters as they were.
        """
        given = {} if feeds is None else feeds
        if not isinstance(given, Mapping):
            raise FeedError(f"feeds: expected a dict of arrays by name, got {arguments.shown(feeds)}")
        timed = arguments.flag("timings", timings)
        several = isinstance(keep, (Sequence, Set)) and not isinstance(keep, (str, bytes))
        if not several or not all(isinstance(name, str) and name in self.graph.outputs for name in keep):
            outputs = ", ".join(self.graph.outputs)
            raise FeedError(f"keep: expected names of outputs ({outputs}), got {arguments.shown(keep)}")
        results = None
        with self.backend.running():
            while results is None:
                results = self._try(given, timed, keep)
        return {name: results[name] for name in self.graph.outputs}

    def _try(self, feeds: Mapping[str, Any], timed: bool, keep: Collection[str]) -> dict[str, Any] | None:
        """Run once: the outputs, or None if the device had too little capacity and must try again.

        Everything that can fail happens before the first kernel that overwrites a parameter.
        """
        bindings = Bindings()
        buffers = self._sources(feeds, bindings)
        fed = {v: feeds[n] for n, v in self.graph.inputs.items() if isinstance(feeds[n], DeviceArray)}
        run = _Run(buffers, fed, bindings, timed, keep)
        self.memory = MemoryUse()
        self._pool.begin(id(self), tuple(sorted(bindings.dims.items())))
        self.timings = []
        for step in self._plan.steps:
            self._execute(self._prepare(step, run), run)
        with self.backend.overwriting():
            commits = [self._prepare(step, run) for step in self._plan.commits]
            copies = self._copies(run)
            with _enough_memory(self.backend, "the graph's outputs"):
                outputs = self._outputs(run)
                staged = outputs.stage()
            for prepared in commits:
                self._execute(prepared, run)
        fetched = self.backend.collect(staged)
        if fetched is None:
            return None
        self._commit(run, copies)
        return outputs.results(fetched)

    def _outputs(self, run: _Run) -> Outputs:
        """Hand out the outputs: the first of each storage as it is, if nothing else needs that storage, all others as
        copies."""
        free = self._exclusive()
        outputs = Outputs(self.backend, self._pool, self.memory, run.fed)
        for name in sorted(self.graph.outputs, key=lambda name: name not in run.keep):
            value = self.graph.outputs[name]
            if outputs.shares(value):
                outputs.share(name, value, keep=name in run.keep)
                continue
            number = self._plan.storage[value]
            given = number in free
            free.discard(number)
            owned = run.owned.pop(number, None) if given else None
            come_back = None if owned is None else self._pool.lend(*owned, self.memory)
            add = outputs.keep if name in run.keep else outputs.fetch
            add(name, value, run.buffers[value], given, come_back)
        return outputs

    def _exclusive(self) -> set[int]:
        """Storages of outputs that do not hold a feed, parameter or constant, or a parameter's next value."""
        storage = self._plan.storage
        needed = {storage[v] for v in self.graph.updates.values()}
        needed |= {storage[v] for n in self.graph.nodes if n.definition.source or n.op == "constant" for v in n.outputs}
        return {storage[v] for v in self.graph.outputs.values()} - needed

    def _sources(self, feeds: Mapping[str, Any], bindings: Bindings) -> dict[Value, Buffer]:
        """Buffers of parameters, constants and feeds, with all symbols bound."""
        check_names(feeds, self.graph.inputs)
        buffers = dict(self._constants)
        for name, value in self.graph.params.items():
            buffers[value] = self.params.buffer(name, value.dtype)
            _bind_param(bindings, value, self.params.shape(name))
        for name, value in self.graph.inputs.items():
            buffers[value] = self._fed(name, value, feeds[name], bindings)
        return buffers

    def _fed(self, name: str, value: Value, given: Any, bindings: Bindings) -> Buffer:
        """The buffer of a feed, checked."""
        what = describe(value)
        if isinstance(given, DeviceArray):
            given.fit(what, value.type, self.backend)
            bindings.bind(what, value.type, given.shape)
            return given.buffer
        array = as_array(what, given, value.type)
        bindings.bind(what, value.type, array.shape)
        if name in self._finite:
            check_finite(what, array, self._finite[name])
        return self.backend.borrow(array, value.dtype)

    def _prepare(self, step: Step, run: _Run) -> _Prepared:
        """Check a step's operands, and find or allocate the buffers of its results."""
        node, storage = step.node, self._plan.storage
        kernel = self._kernels[node.id]
        inputs = [run.buffers[v] for v in node.inputs]
        kernel.check(inputs, run.bindings.dims)
        outputs: list[Buffer | None] = []
        for i, value in enumerate(node.outputs):
            shape = _known_shape(value, run.bindings.dims)
            if i in step.inplace:
                outputs.append(inputs[step.inplace[i]])
                taken = run.owned.pop(storage[node.inputs[step.inplace[i]]], None)
                if taken is not None:
                    run.owned[storage[value]] = taken
                self.memory.in_place += 1
            elif kernel.owns_outputs or node.definition.view or shape is None or storage[value] in step.dead:
                outputs.append(None)
            else:
                with _enough_memory(self.backend, f"{node.op} (node {node.id}): an array of {list(shape)}"):
                    outputs.append(self._pool.take(self.backend, (shape, value.dtype), self.memory))
                run.owned[storage[value]] = ((shape, value.dtype), outputs[-1])
        return _Prepared(step, kernel, inputs, outputs)

    def _execute(self, prepared: _Prepared, run: _Run) -> None:
        """Run a step's kernel, then free the buffers that it was the last to use."""
        node = prepared.step.node
        if run.timed:
            self.backend.synchronize()
        started = time.perf_counter() if run.timed else 0.0
        with _enough_memory(self.backend, f"{node.op} (node {node.id})"):
            results = prepared.kernel(prepared.inputs, prepared.outputs, run.bindings.dims)
        if run.timed:
            self.backend.synchronize()
            self.timings.append(Timing(node.id, node.op, prepared.kernel.name, time.perf_counter() - started))
        for value, buffer in zip(node.outputs, results, strict=True):
            run.buffers[value] = buffer
            if not value.shape.symbols <= run.bindings.dims.keys():
                run.bindings.bind(f"result of {node.op}", value.type, self.backend.shape(buffer))
        for number in prepared.step.dead:
            if number in run.owned:
                self._pool.give(*run.owned.pop(number), self.memory)
        for value in prepared.step.forgotten:
            run.buffers.pop(value, None)

    def _copies(self, run: _Run) -> dict[str, Buffer]:
        """Copies of next values that are also a feed, a constant, a view, another parameter, or the next value of
        another parameter."""
        copies: dict[str, Buffer] = {}
        moved: set[int] = set()
        for name, value in self.graph.updates.items():
            if value not in run.buffers or run.buffers[value] is self.params.buffer(name, value.dtype):
                continue  # a commit writes it, or the parameter keeps its value
            number = self._plan.storage[value]
            if number not in moved and number in run.owned and run.owned[number][1] is run.buffers[value]:
                moved.add(number)
            else:
                with _enough_memory(self.backend, f"the next value of parameter {name!r}"):
                    copies[name] = self.backend.copy(run.buffers[value], value.dtype)
        return copies

    def _commit(self, run: _Run, copies: Mapping[str, Buffer]) -> None:
        """Set parameters to their next values, then free the buffers that were kept only for outputs."""
        kept = {self._plan.storage[v] for name, v in self.graph.updates.items() if name not in copies}
        for name, value in self.graph.updates.items():
            self.params.put(name, copies[name] if name in copies else run.buffers[value], value.dtype)
        for number, (key, buffer) in run.owned.items():
            if number not in kept:
                self._pool.give(key, buffer, self.memory)

    # --- reports ------------------------------------------------------------------------------------------
    @property
    def dispatch(self) -> list[Dispatch]:
        """Which kernel runs each node, in order of execution."""
        return dispatches((*self._plan.steps, *self._plan.commits), self._kernels, self.backend.name)

    def report(self) -> str:
        """Passes, dispatch and, after a timed run, times: as text."""
        return report_text(self.pass_records, self.dispatch, self.timings, self.backend.name)


def _bind_param(bindings: Bindings, value: Value, shape: tuple[int, ...]) -> None:
    """Match a parameter's shape, which another executable with the same store may have changed."""
    if len(shape) != value.shape.rank:
        raise FeedError(f"{describe(value)}: expected shape {value.shape}, its value has {list(shape)}")
    bindings.bind(describe(value), value.type, shape)


def _known_shape(value: Value, dims: Mapping[str, int]) -> tuple[int, ...] | None:
    """A result's shape, or None while a symbol in it has no value; raises InputError for negative sizes."""
    if not value.shape.symbols <= dims.keys():
        return None
    shape = value.shape.resolve(dims)
    if any(n < 0 for n in shape):
        sizes = ", ".join(f"{s} = {dims[s]}" for s in sorted(value.shape.symbols))
        raise InputError(f"{value.node.op}: a result of shape {value.shape} would be {list(shape)} with {sizes}")
    return shape


@contextmanager
def _enough_memory(backend: Backend, what: str) -> Iterator[None]:
    """Turn NumPy's error about an array that is too large into one sentence."""
    try:
        yield
    except MemoryError as error:
        reported = f" ({str(error).rstrip('.')})" if str(error) else ""
        raise MemoryError(
            f"{backend.name}: out of memory in {what}{reported}; use fewer Gaussians or a smaller image, or free memory"
        ) from None
