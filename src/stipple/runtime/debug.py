"""Watched kernels: every call is checked against the backend protocol. For tests and for writing backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.errors import DeviceError
from stipple.ir.graph import Node
from stipple.runtime.backend import Backend, Buffer, Kernel


class WatchedKernel:
    """A kernel whose every call is checked: it changes no operand except those it may overwrite; it returns the
    buffers it was given; no result shares memory with an operand, unless its op is a view, or with another result; and
    results have the declared dtype and shape. Raises DeviceError, naming the kernel and the operand or result."""

    def __init__(self, kernel: Kernel, node: Node, backend: Backend) -> None:
        self._kernel = kernel
        self._node = node
        self._backend = backend
        self.name = kernel.name
        self.owns_outputs = kernel.owns_outputs

    def check(self, inputs: Sequence[Buffer], dims: Mapping[str, int]) -> None:
        before = self._contents(inputs)
        self._kernel.check(inputs, dims)
        self._compare(inputs, before, frozenset())

    def __call__(
        self, inputs: Sequence[Buffer], outputs: Sequence[Buffer | None], dims: Mapping[str, int]
    ) -> Sequence[Buffer | None]:
        before = self._contents(inputs)
        results = self._kernel(inputs, outputs, dims)
        overwritten = frozenset(
            i for i, x in enumerate(inputs) for o in outputs if o is not None and self._backend.overlap(x, o)
        )
        self._compare(inputs, before, overwritten)
        if len(results) != len(self._node.outputs):
            self._fail(f"returned {len(results)} results of {len(self._node.outputs)}")
        for i, (buffer, planned) in enumerate(zip(results, outputs, strict=True)):
            if buffer is None and planned is None and not self._node.used()[i]:
                continue
            self._check_result(i, buffer, planned, inputs, dims)
            if not self._node.definition.view:
                self._check_apart(i, results)
        return results

    def _contents(self, inputs: Sequence[Buffer]) -> list[np.ndarray]:
        return [self._backend.download(b, v.dtype) for b, v in zip(inputs, self._node.inputs, strict=True)]

    def _compare(self, inputs: Sequence[Buffer], before: Sequence[np.ndarray], overwritten: frozenset[int]) -> None:
        for i, (old, new) in enumerate(zip(before, self._contents(inputs), strict=True)):
            if i not in overwritten and old.tobytes() != new.tobytes():
                self._fail(f"changed its operand {self._node.definition.operand(i).name!r}")

    def _check_result(
        self, index: int, buffer: Buffer, planned: Buffer | None, inputs: Sequence[Buffer], dims: Mapping[str, int]
    ) -> None:
        value, backend = self._node.outputs[index], self._backend
        name = f"result {self._node.definition.results[index]!r}"
        if planned is not None and buffer is not planned:
            self._fail(f"{name} is not in the buffer that was planned for it")
        if not backend.holds(buffer, value.dtype):
            self._fail(f"{name} is not held as dense {value.dtype.value}")
        shape = backend.shape(buffer)
        if len(shape) != value.shape.rank or (
            value.shape.symbols <= dims.keys() and shape != value.shape.resolve(dims)
        ):
            self._fail(f"{name} has shape {list(shape)}, declared as {value.shape}")
        if planned is None and not self._node.definition.view:
            for i, operand in enumerate(inputs):
                if backend.overlap(operand, buffer):
                    self._fail(f"{name} shares memory with operand {self._node.definition.operand(i).name!r}")

    def _check_apart(self, index: int, results: Sequence[Buffer | None]) -> None:
        for other in range(index):
            if results[other] is not None and self._backend.overlap(results[other], results[index]):
                names = self._node.definition.results
                self._fail(f"results {names[other]!r} and {names[index]!r} share memory")

    def _fail(self, what: str) -> None:
        raise DeviceError(f"{self._backend.name}: kernel {self.name}: {what}; this is a bug in the backend")
