"""One graph cut in two: the part that can run immediately, and the part that waits for inputs that come later."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from stipple.errors import GraphError
from stipple.ir.graph import Graph, Value
from stipple.ir.passes.rewrite import Rewriter


def split(graph: Graph, late: Collection[str]) -> tuple[Graph, Graph]:
    """Cut a graph at its ``late`` inputs: (first, second).

    ``first`` has the other inputs, the outputs that depend on no late one, and also, as outputs named ``kept.*``, the
    values that ``second`` uses; there they are inputs of the same names. ``second`` has the other outputs, and those of
    the inputs that it needs. A forward and backward pass are cut like this: the gradients of the results are the late
    inputs. Graphs that update parameters cannot be split.
    """
    unknown = set(late) - graph.inputs.keys()
    if unknown:
        raise GraphError(f"split: the graph has no inputs {', '.join(sorted(unknown))}")
    if graph.updates:
        raise GraphError(f"split: the graph updates parameters ({', '.join(graph.updates)})")
    waits = _dependents(graph, late)
    outputs = {name: v for name, v in graph.outputs.items() if v.node.id not in waits}
    later = {name: v for name, v in graph.outputs.items() if v.node.id in waits}
    inputs = [v for name, v in graph.inputs.items() if name not in late]
    early = _computed_from(graph, [*outputs.values(), *inputs])
    rest, crossing = _after(graph, later.values(), early)
    return _first(graph, early, outputs, crossing), _second(graph, rest, later, crossing)


def _name(value: Value) -> str:
    return f"kept.{value.node.id}.{value.index}"


def _dependents(graph: Graph, late: Collection[str]) -> set[int]:
    """Nodes that depend on a late input, those inputs included."""
    found = {graph.inputs[name].node.id for name in late}
    for node in graph.nodes:
        if any(v.node.id in found for v in node.inputs):
            found.add(node.id)
    return found


def _computed_from(graph: Graph, values: Iterable[Value]) -> set[int]:
    """Nodes that some values are computed from."""
    found = {v.node.id for v in values}
    for node in reversed(graph.nodes):
        if node.id in found:
            found.update(v.node.id for v in node.inputs)
    return found


def _after(graph: Graph, later: Iterable[Value], early: set[int]) -> tuple[set[int], dict[Value, None]]:
    """The nodes of the second part, and the values that the first part passes to it."""
    found: set[int] = set()
    crossing: dict[Value, None] = {}

    def reach(value: Value) -> None:
        node = value.node
        if node.id in early and not node.definition.source and node.op != "constant":
            crossing[value] = None
        else:
            found.add(node.id)

    for value in later:
        reach(value)
    for node in reversed(graph.nodes):
        if node.id in found:
            for value in node.inputs:
                reach(value)
    return found, crossing


def _first(graph: Graph, early: set[int], outputs: Mapping[str, Value], crossing: Iterable[Value]) -> Graph:
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        if node.id in early:
            rewriter.put(node, rewriter.copy(node))
    for name, value in outputs.items():
        rewriter.new.output(name, rewriter[value])
    for value in crossing:
        rewriter.new.output(_name(value), rewriter[value])
    return rewriter.new


def _second(graph: Graph, rest: set[int], outputs: Mapping[str, Value], crossing: Collection[Value]) -> Graph:
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        if node.id in rest:
            rewriter.put(node, rewriter.copy(node))
        for value in node.outputs:
            if value in crossing:
                rewriter.name_symbols(value.shape)
                type_ = rewriter.type_of(value)
                rewriter.bind(value, rewriter.new.input(_name(value), type_.shape, type_.dtype))
    for name, value in outputs.items():
        rewriter.new.output(name, rewriter[value])
    return rewriter.new
