"""Composite ops replaced by the nodes that they stand for.

Expansion followed by merging of common subexpressions is what lets a gradient reuse the results of the forward pass:
nothing about it is special-cased.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stipple.ir.graph import Graph, Node, Value
from stipple.ir.passes.rewrite import PassResult, Rewriter, rebuild, tally


class ExpandComposites:
    """Replace composite ops by their definition, except those for which ``keep`` is true: the device has a kernel."""

    name = "expand-composites"

    def __init__(self, keep: Callable[[Node], bool] = lambda node: False) -> None:
        self._keep = keep

    def run(self, graph: Graph) -> PassResult:
        """Expand until no composite is left: a composite may expand to other composites."""
        expanded: list[str] = []

        def visit(rw: Rewriter, node: Node) -> Sequence[Value] | None:
            definition = node.definition
            if definition.expand is None or not self._expands(node):
                return None
            expanded.append(node.op)
            return definition.expand(rw.new, definition.named_operands(rw.operands(node)), rw.attrs(node))

        while any(self._expands(node) for node in graph.nodes):
            graph = rebuild(graph, visit)
        return PassResult(graph, len(expanded), f"expanded {tally(expanded)}" if expanded else "")

    def _expands(self, node: Node) -> bool:
        return node.definition.expand is not None and node.op != "fused" and not self._keep(node)
