"""Session: the way in to a device."""

from __future__ import annotations

from collections.abc import Sequence

from stipple.errors import UnsupportedOpError
from stipple.ir.graph import Graph, Node
from stipple.ir.passes import Pass, PassManager, standard_passes
from stipple.ir.passes.rewrite import rebuild
from stipple.ir.verify import verify
from stipple.runtime.backend import Backend, Kernel, evaluate
from stipple.runtime.debug import WatchedKernel
from stipple.runtime.executable import Executable
from stipple.runtime.plan import make_plan
from stipple.runtime.registry import open_device


class Session:
    """Compiles graphs for one device.

    ``device`` is a device's name (see :func:`stipple.runtime.devices`), ``"auto"`` for the best one that this
    machine has, or a backend object. With ``debug``, every call of a kernel is checked for what the backend protocol
    forbids, which is slow: for tests, and for those who write a backend.
    """

    def __init__(self, device: str | Backend = "auto", *, debug: bool = False) -> None:
        self.backend: Backend = open_device(device) if isinstance(device, str) else device
        self.debug = debug

    @property
    def device(self) -> str:
        return self.backend.name

    def compile(self, graph: Graph, passes: Sequence[Pass] | None = None) -> Executable:
        """Verify, optimise and plan a graph. The graph itself is not changed, and may be changed afterwards.

        ``passes`` replaces the standard ones; an empty sequence runs the graph as it is. Raises
        UnsupportedOpError, naming every op that the device has no kernel for, or a value that it cannot hold.
        """
        verify(graph)
        self._check_dtypes(graph)
        chosen = standard_passes(lambda n, a: evaluate(self.backend, n, a)) if passes is None else passes
        manager = PassManager(chosen)
        optimised = manager.run(graph)
        if optimised is graph:
            optimised = rebuild(graph, lambda rewriter, node: None)  # the caller's graph stays the caller's
        plan = make_plan(optimised)
        nodes = [step.node for step in (*plan.steps, *plan.commits)]
        kernels = {node.id: self._kernel(node) for node in nodes}
        missing = sorted({optimised.nodes[i].op for i, kernel in kernels.items() if kernel is None})
        if missing:
            raise UnsupportedOpError(f"device {self.device!r} has no kernel for: {', '.join(missing)}")
        ready = {i: kernel for i, kernel in kernels.items() if kernel is not None}
        return Executable(optimised, self.backend, plan, ready, manager.records)

    def _check_dtypes(self, graph: Graph) -> None:
        for node in graph.nodes:
            for value in node.outputs:
                if value.dtype not in self.backend.dtypes:
                    raise UnsupportedOpError(
                        f"device {self.device!r} has no {value.dtype.value}: %{value.name} of {node.op} is {value.type}"
                    )

    def _kernel(self, node: Node) -> Kernel | None:
        kernel = self.backend.kernel(node)
        return WatchedKernel(kernel, node, self.backend) if kernel is not None and self.debug else kernel
