"""The verifier: checks that a graph is well formed, however it was built.

``Graph.add`` checks each node when it is added; the verifier checks a whole graph again, from its nodes alone, after
loading and after every pass.
"""

from __future__ import annotations

from collections.abc import Set

from stipple.errors import GraphError
from stipple.ir.attributes import attr_key
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import REGISTRY
from stipple.ir.shape import Dim, is_generated


def verify(graph: Graph) -> None:
    """Raise GraphError, naming the node, unless the graph is well formed.

    Checked: node numbers and order (every operand exists before its use, so there is no cycle), operand
    counts, attribute ranges, every shape and dtype against fresh inference, names, that each output and each
    parameter is written once and with the right type, and that symbols can be bound when the graph runs.
    """
    fresh_count = 0

    def fresh(base: str) -> Dim:
        nonlocal fresh_count
        fresh_count += 1
        return Dim.of(f"{base}.{fresh_count}")

    for i, node in enumerate(graph.nodes):
        where = f"node {i} ({node.op})"
        if node.id != i or node.graph is not graph:
            raise GraphError(f"{where}: has number {node.id} or another graph")
        _check_order(graph, node, where)
        _check_attrs(node, where)
        types = node.definition.infer_types([v.type for v in node.inputs], node.attrs, fresh)
        if types != tuple(v.type for v in node.outputs):
            stored = ", ".join(str(v.type) for v in node.outputs)
            raise GraphError(f"{where}: stored types {stored} are not the inferred {', '.join(map(str, types))}")
    _check_sources(graph)
    _check_roots(graph)
    check_symbols(graph)


def _check_order(graph: Graph, node: Node, where: str) -> None:
    if REGISTRY.get(node.op) is not node.definition:
        raise GraphError(f"{where}: no such op")
    for value in node.inputs:
        if not _exists(graph, value) or value.node.id >= node.id:
            raise GraphError(f"{where}: uses %{value.name}, which does not exist before it")


def _exists(graph: Graph, value: Value) -> bool:
    made_by = value.node
    return (
        0 <= made_by.id < len(graph.nodes)
        and graph.nodes[made_by.id] is made_by
        and made_by.outputs[value.index] is value
    )


def _check_attrs(node: Node, where: str) -> None:
    again = node.definition.normalise_attrs(node.attrs)
    if {k: attr_key(v) for k, v in again.items()} != {k: attr_key(v) for k, v in node.attrs.items()}:
        raise GraphError(f"{where}: attributes are not in canonical form")


def _check_sources(graph: Graph) -> None:
    for op, table in (("input", graph.inputs), ("param", graph.params)):
        nodes = {n.attrs["name"]: n.outputs[0] for n in graph.nodes if n.op == op}
        if nodes != table or graph.count(op) != len(table):
            raise GraphError(f"the graph's {op}s are not its {op} nodes")
    both = graph.inputs.keys() & graph.params.keys()
    if both:
        raise GraphError(f"names used for an input and a parameter: {', '.join(sorted(both))}")


def _check_roots(graph: Graph) -> None:
    for kind, table in (("output", graph.outputs), ("update", graph.updates)):
        for name, value in table.items():
            if not _exists(graph, value):
                raise GraphError(f"{kind} {name!r}: its value is not in the graph")
    for name, value in graph.updates.items():
        if name not in graph.params:
            raise GraphError(f"update {name!r}: no such parameter")
        if not value.type.may_follow(graph.params[name].type):
            raise GraphError(f"update {name!r}: expected {graph.params[name].type}, got {value.type}")


def check_symbols(graph: Graph) -> None:
    """Raise GraphError for a dimension with a symbol that no input, parameter or earlier node binds."""
    known: set[str] = set()
    for node in graph.nodes:
        for value in node.outputs:
            bare = {d.symbol for d in value.shape if d.symbol is not None}
            if node.definition.source:
                known |= bare
            else:
                known |= {s for s in bare if is_generated(s)}
            _check_known(node, value.shape.symbols, known)
        for attr in node.definition.attrs:
            if attr.kind in ("dim", "shape"):
                _check_known(node, node.attrs[attr.name].symbols, known)


def _check_known(node: Node, symbols: Set[str], known: Set[str]) -> None:
    unbound = symbols - known
    if unbound:
        raise GraphError(
            f"node {node.id} ({node.op}): no input or parameter binds the symbol {', '.join(sorted(unbound))}"
        )
