"""Reverse-mode differentiation from graph to graph.

The gradient of every op is defined next to the op, as a function that adds nodes. Cotangents from several consumers of
a value are summed once, when the node that produces the value is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stipple.errors import GraphError
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import VjpContext
from stipple.ir.ops.structure import full_like, known_value, zeros_like


def grad(graph: Graph, loss: Value, wrt: Sequence[Value]) -> list[Value]:
    """Extend ``graph`` by the gradients of the scalar ``loss`` with respect to each value of ``wrt``.

    ``wrt`` may be inputs, parameters or values inside the graph; one that the loss does not depend on gets zeros.
    Raises GraphError if the loss is not a float scalar, or if a gradient would have to flow through an op or a result
    that has no gradient.
    """
    for what, value in (("the loss", loss), *(("wrt", v) for v in wrt)):
        known_value(f"grad: {what}", value)
    if loss.graph is not graph:
        raise GraphError("grad: the loss belongs to another graph")
    if loss.shape.rank != 0 or not loss.dtype.is_float:
        raise GraphError(f"grad: the loss must be a float scalar, got {loss.type}")
    return pullback([(loss, full_like(loss, 1.0))], wrt)


def pullback(seeds: Sequence[tuple[Value, Value]], wrt: Sequence[Value], *, independent: bool = False) -> list[Value]:
    """Gradients with respect to ``wrt``, given the cotangents of some values as (value, cotangent) pairs.

    With ``independent``, values of ``wrt`` count as inputs even where one is computed from another: they get partial
    derivatives, as needed for the gradient of a single node. Otherwise the gradient of one is also propagated to those
    it depends on.
    """
    graph = seeds[0][0].graph
    for value in wrt:
        if value.graph is not graph:
            raise GraphError("grad: a value of wrt belongs to another graph")
        if not value.dtype.is_float:
            raise GraphError(f"grad: %{value.name} is {value.type}; only float values have gradients")
    cotangents: dict[Value, list[Value]] = {}
    for value, cotangent in seeds:
        if cotangent.type != value.type:
            raise GraphError(f"grad: cotangent of %{value.name}: expected {value.type}, got {cotangent.type}")
        cotangents.setdefault(value, []).append(cotangent)
    path = _dependents(graph, wrt, max(value.node.id for value, _ in seeds))
    on_path = {node.id for node in path}
    targets = set(wrt)
    results: dict[Value, Value] = {}
    for node in reversed(path):
        totals = [_total(cotangents.pop(v, [])) for v in node.outputs]
        for value, total in zip(node.outputs, totals, strict=True):
            if total is not None and value in targets:
                results[value] = total
        if independent:
            totals = [None if v in targets else total for v, total in zip(node.outputs, totals, strict=True)]
        if any(total is not None for total in totals):
            leading = [i for i, v in enumerate(node.inputs) if v.node.id in on_path]
            _spread(node, totals, leading, cotangents)
    return [results[v] if v in results else zeros_like(v) for v in wrt]


def _dependents(graph: Graph, wrt: Iterable[Value], last: int) -> list[Node]:
    """Nodes up to ``last`` that produce a value of ``wrt`` or depend on one, in order."""
    sources = {v.node.id for v in wrt}
    reached: set[int] = set()
    for node in graph.nodes[: last + 1]:
        if node.id in sources or any(v.node.id in reached for v in node.inputs):
            reached.add(node.id)
    return [graph.nodes[i] for i in sorted(reached)]


def _total(parts: list[Value]) -> Value | None:
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _spread(node: Node, totals: list[Value | None], leading: list[int], cotangents: dict[Value, list[Value]]) -> None:
    """Send a node's cotangents to the operands (by position) that lead to ``wrt``."""
    if not leading:
        return
    definition = node.definition
    if not definition.carries_gradients:
        raise GraphError(f"grad: op {node.op} (node {node.id}) has no gradient")
    for name, total in zip(definition.results, totals, strict=True):
        if total is not None and definition.differentiable is not None and name not in definition.differentiable:
            raise GraphError(f"grad: result {name!r} of {node.op} (node {node.id}) carries no gradient")
    gradients = _through_expansion(node, totals) if definition.vjp is None else definition.vjp(VjpContext(node, totals))
    assert len(gradients) == len(node.inputs), node.op
    for i in leading:
        part, operand = gradients[i], node.inputs[i]
        if part is not None and operand.dtype.is_float:
            assert part.type == operand.type, (node.op, i, part.type, operand.type)
            cotangents.setdefault(operand, []).append(part)


def _through_expansion(node: Node, totals: Sequence[Value | None]) -> list[Value | None]:
    """The gradients of a composite's operands, through the nodes that it stands for.

    Those are added to the graph again; merging common subexpressions later unifies them with the expanded composite.
    """
    assert node.definition.expand is not None, node.op
    results = node.definition.expand(node.graph, node.operands, node.attrs)
    seeds = [(value, total) for value, total in zip(results, totals, strict=True) if total is not None]
    floats = list(dict.fromkeys(v for v in node.inputs if v.dtype.is_float))
    gradients = dict(zip(floats, pullback(seeds, floats, independent=True), strict=True))
    return [gradients.pop(v, None) for v in node.inputs]  # only once if one value is used for several operands
