"""The backend protocol: everything that the runtime requires of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from stipple.errors import UnsupportedOpError
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.passes import Pass

Buffer = Any
"""A tensor in a backend's memory, opaque to everything but the backend."""


class Kernel(Protocol):
    """One node of a graph, ready to run on a device."""

    @property
    def name(self) -> str:
        """The kernel's name in the dispatch report."""
        ...

    @property
    def owns_outputs(self) -> bool:
        """Whether the kernel allocates its results itself: the runtime then passes it no buffers to write."""
        ...

    def check(self, inputs: Sequence[Buffer], dims: Mapping[str, int]) -> None:
        """Raise InputError for operands that the op does not accept; changes nothing.

        Called before every call of the kernel, and for kernels that overwrite parameters before the first of them runs:
        an op with ``inplace`` in its definition raises only here. A device that finds out later may raise in
        :meth:`Backend.collect`.
        """
        ...

    def __call__(
        self, inputs: Sequence[Buffer], outputs: Sequence[Buffer | None], dims: Mapping[str, int]
    ) -> Sequence[Buffer | None]:
        """Run the node.

        ``outputs`` are buffers to write; None where the shape is known only afterwards, for views, and for results that
        nothing uses. An output may be one of the inputs where the op's definition says so. Returns the buffers that
        hold the results: those of ``outputs`` that are not None, else new ones of the declared dtype, (for views) an
        input with another shape, or (for what nothing uses) None. ``Session(..., debug=True)`` checks that.
        """
        ...


class Backend(Protocol):
    """A device that runs graphs."""

    @property
    def name(self) -> str:
        """The device's name for ``Session(name)`` and in reports."""
        ...

    @property
    def dtypes(self) -> Set[DType]:
        """The dtypes that the device's memory can hold."""
        ...

    def kernel(self, node: Node) -> Kernel | None:
        """The kernel for a node, or None if the backend cannot run it."""
        ...

    def passes(self) -> Sequence[Pass]:
        """Passes of the device's own, run over every graph after all others; none for most devices."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> Buffer:
        """An uninitialised buffer."""
        ...

    def upload(self, array: np.ndarray, dtype: DType) -> Buffer:
        """A buffer with a copy of the array."""
        ...

    def borrow(self, array: np.ndarray, dtype: DType) -> Buffer:
        """A buffer with the array's contents for one run, which only reads it: it may be the array itself."""
        ...

    def download(self, buffer: Buffer, dtype: DType) -> np.ndarray:
        """A fresh array with the buffer's contents."""
        ...

    def copy(self, buffer: Buffer, dtype: DType, into: Buffer | None = None) -> Buffer:
        """A buffer with the same contents: ``into``, which has the same shape and dtype, or a new one."""
        ...

    def shape(self, buffer: Buffer) -> tuple[int, ...]:
        """A buffer's shape: how sizes that depend on data reach the runtime."""
        ...

    def holds(self, buffer: Buffer, dtype: DType) -> bool:
        """Whether a buffer is dense and of the element type that this device keeps a dtype in."""
        ...

    def overlap(self, first: Buffer, second: Buffer) -> bool:
        """Whether two buffers share memory."""
        ...

    def running(self) -> AbstractContextManager[None]:
        """Around a whole run, from the first upload to :meth:`collect`. A device that can do only one thing at a time
        makes other threads wait here. If the run raises, its unfinished work is discarded."""
        ...

    def overwriting(self) -> AbstractContextManager[None]:
        """Around kernels that overwrite parameters: they must leave them unchanged if :meth:`collect` will raise or
        request another run, even if only the device knows that yet."""
        ...

    def stage(self, requested: Sequence[tuple[Buffer, DType, bool]]) -> Any:
        """The argument of :meth:`collect` for a run's results (buffer, dtype, whether the buffer is given away):
        copies, on devices that copy immediately. A buffer that is given away may itself become the result.

        Called before parameters are overwritten, so that an allocation that fails does so before that.
        """
        ...

    def collect(self, staged: Any) -> list[np.ndarray] | None:
        """Fresh arrays with a run's results, or None: the run must be repeated. Raises InputError for faults that only
        the device could detect.

        A device whose kernels estimate sizes that depend on data checks the estimates here, waiting once for all
        results, and increases its capacity. Called at the end of every run.
        """
        ...

    def synchronize(self) -> None:
        """Return when all work that kernels started is done, so that times are meaningful."""
        ...


def evaluate(backend: Backend, node: Node, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run one node on host arrays. All its shapes must be known. Raises what the kernel raises."""
    kernel = backend.kernel(node)
    if kernel is None:
        raise UnsupportedOpError(f"{backend.name}: no kernel for {node.op}")
    with backend.running():
        inputs = [backend.upload(a, v.dtype) for a, v in zip(arrays, node.inputs, strict=True)]
        outputs = [
            None if node.definition.view or kernel.owns_outputs else backend.allocate(v.shape.resolve({}), v.dtype)
            for v in node.outputs
        ]
        while True:
            kernel.check(inputs, {})
            results = kernel(inputs, outputs, {})
            collected = backend.collect(
                backend.stage([(b, v.dtype, False) for b, v in zip(results, node.outputs, strict=True)])
            )
            if collected is not None:
                return collected
