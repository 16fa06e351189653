"""Session: the entry point to a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple.backends.registry import open_device
from stipple.errors import InputError, UnsupportedOpError
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node
from stipple.ir.passes import ExpandComposites, Pass, PassManager, standard_passes
from stipple.ir.passes.rewrite import rebuild
from stipple.ir.shape import Shape, TensorType
from stipple.ir.verify import verify
from stipple.runtime.backend import Backend, Kernel, evaluate
from stipple.runtime.debug import WatchedKernel
from stipple.runtime.executable import Executable
from stipple.runtime.feeds import as_array
from stipple.runtime.handles import DeviceArray
from stipple.runtime.params import Params
from stipple.runtime.plan import make_plan


class Session:
    """Compiles graphs for one device.

    ``device`` is a device's name (see :func:`stipple.runtime.devices`), ``"auto"`` for the best one that this machine
    has, or a backend object. With ``debug``, every call of a kernel is checked against the backend protocol, which is
    slow: for tests and for authors of backends.
    """

    def __init__(self, device: str | Backend = "auto", *, debug: bool = False) -> None:
        is_backend = all(hasattr(device, method) for method in ("kernel", "upload", "download", "name"))
        self.backend: Backend = device if is_backend else open_device(device)  # type: ignore[assignment, arg-type]
        self.debug = arguments.flag("debug", debug)

    @property
    def device(self) -> str:
        return self.backend.name

    def upload(self, array: ArrayLike, dtype: DType | str = DType.F32) -> DeviceArray:
        """A copy of an array in this device's memory, to be fed to executables of this session."""
        held = DType.of(dtype)
        given = as_array("array", array, TensorType(Shape(np.shape(array)), held))
        return DeviceArray(self.backend, self.backend.upload(given, held), held)

    def params(self) -> Params:
        """A new store of parameters on this device, for executables that share them."""
        return Params(self.backend)

    def compile(self, graph: Graph, passes: Sequence[Pass] | None = None, params: Params | None = None) -> Executable:
        """Verify, optimise and plan a graph. The graph itself is not changed, and may be changed afterwards.

        ``passes`` replaces the standard ones; with an empty sequence the graph runs as it is, except that composite ops
        without a kernel on the device are always expanded. ``params`` is the store that holds the graph's parameters,
        shared with other executables; initial values stored with the graph are used where the store has none. Without
        it the executable has a store of its own. Raises UnsupportedOpError, naming every op that the device has no
        kernel for, or a value that it cannot hold.
        """
        verify(arguments.instance("graph", graph, Graph))
        if passes is not None and not (isinstance(passes, Sequence) and all(hasattr(p, "run") for p in passes)):
            raise InputError(f"passes: expected a list of passes, got {arguments.shown(passes)}")
        if params is not None and arguments.instance("params", params, Params).backend is not self.backend:
            raise InputError("params: expected a store of this session's device, created by Session.params()")
        self._check_dtypes(graph)
        chosen = standard_passes(lambda n, a: evaluate(self.backend, n, a)) if passes is None else passes
        manager = PassManager([ExpandComposites(keep=self._runs), *chosen, *self.backend.passes()])
        optimised = manager.run(graph)
        if optimised is graph:
            optimised = rebuild(graph, lambda rewriter, node: None)  # the caller's graph must not be shared
        plan = make_plan(optimised)
        nodes = [step.node for step in (*plan.steps, *plan.commits)]
        kernels = {node.id: self._kernel(node) for node in nodes}
        missing = sorted({optimised.nodes[i].op for i, kernel in kernels.items() if kernel is None})
        if missing:
            raise UnsupportedOpError(f"device {self.device!r} has no kernel for: {', '.join(missing)}")
        ready = {i: kernel for i, kernel in kernels.items() if kernel is not None}
        store = Params(self.backend) if params is None else params
        return Executable(optimised, self.backend, plan, ready, manager.records, store)

    def _check_dtypes(self, graph: Graph) -> None:
        for node in graph.nodes:
            for value in node.outputs:
                if value.dtype not in self.backend.dtypes:
                    raise UnsupportedOpError(
                        f"device {self.device!r} has no {value.dtype.value}: %{value.name} of {node.op} is {value.type}"
                    )

    def _runs(self, node: Node) -> bool:
        return self.backend.kernel(node) is not None

    def _kernel(self, node: Node) -> Kernel | None:
        kernel = self.backend.kernel(node)
        return WatchedKernel(kernel, node, self.backend) if kernel is not None and self.debug else kernel
