"""Session: the way in to a device."""

from __future__ import annotations

from collections.abc import Sequence

from stipple.errors import UnsupportedOpError
from stipple.ir.graph import Graph
from stipple.ir.passes import Pass, PassManager, standard_passes
from stipple.ir.verify import verify
from stipple.runtime.backend import Backend, evaluate
from stipple.runtime.executable import Executable
from stipple.runtime.plan import make_plan
from stipple.runtime.registry import open_device


class Session:
    """Compiles graphs for one device.

    ``device`` is a device's name (see :func:`stipple.runtime.devices`), ``"auto"`` for the best one that this
    machine has, or a backend object.
    """

    def __init__(self, device: str | Backend = "auto") -> None:
        self.backend: Backend = open_device(device) if isinstance(device, str) else device

    @property
    def device(self) -> str:
        return self.backend.name

    def compile(self, graph: Graph, passes: Sequence[Pass] | None = None) -> Executable:
        """Verify, optimise and plan a graph. The graph itself is not changed.

        ``passes`` replaces the standard ones; an empty sequence runs the graph as it is. Raises
        UnsupportedOpError, naming every op that the device has no kernel for.
        """
        verify(graph)
        chosen = standard_passes(lambda n, a: evaluate(self.backend, n, a)) if passes is None else passes
        manager = PassManager(chosen)
        optimised = manager.run(graph)
        plan = make_plan(optimised)
        kernels = {step.node.id: self.backend.kernel(step.node) for step in plan.steps}
        missing = sorted({optimised.nodes[i].op for i, kernel in kernels.items() if kernel is None})
        if missing:
            raise UnsupportedOpError(f"device {self.device!r} has no kernel for: {', '.join(missing)}")
        ready = {i: kernel for i, kernel in kernels.items() if kernel is not None}
        return Executable(optimised, self.backend, plan, ready, manager.records)
