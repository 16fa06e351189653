"""Elementwise fusion: a tree of elementwise nodes of one shape becomes one ``fused`` node."""

from __future__ import annotations

from collections.abc import Sequence

from stipple.ir.graph import Graph, Node, Value
from stipple.ir.ops.fused import Step, program_step
from stipple.ir.passes.rewrite import PassResult, Rewriter, rebuild

MAX_STEPS = 256
"""The longest group: GPUs compile one kernel for each, in a time that grows faster than its length."""


class FuseElementwise:
    """Join elementwise nodes into groups that one kernel runs, of at most :data:`MAX_STEPS`.

    A node joins the group of its users when all of them are in one group and its shape is the group's: then nothing is
    computed twice and no intermediate result is stored.
    """

    name = "fuse-elementwise"

    def run(self, graph: Graph) -> PassResult:
        groups = _groups(graph)
        absorbed = {n.id for members in groups.values() for n in members[:-1]}
        if not absorbed:
            return PassResult(graph, 0)

        def visit(rw: Rewriter, node: Node) -> Sequence[Value] | None:
            if node.id in absorbed:
                return ()
            if node.id in groups:
                return [_emit(rw, groups[node.id])]
            return None

        rebuilt = rebuild(graph, visit)
        sizes = ", ".join(str(len(m)) for m in groups.values())
        return PassResult(rebuilt, len(absorbed), f"{len(groups)} groups of {sizes} nodes")


def _groups(graph: Graph) -> dict[int, list[Node]]:
    """Groups of at least two nodes, in order of creation, by the id of the last: the one others use."""
    uses = graph.uses()
    roots = set(graph.roots)
    group_of: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for node in reversed(graph.nodes):
        if not node.definition.elementwise:
            continue
        value = node.outputs[0]
        users = {group_of.get(user.id) for user in uses.get(value, [])}
        root = users.pop() if len(users) == 1 and value not in roots else None
        fits = root is not None and sizes[root] < MAX_STEPS and graph.nodes[root].outputs[0].shape == value.shape
        group_of[node.id] = joined = root if fits and root is not None else node.id
        sizes[joined] = sizes.get(joined, 0) + 1
    members: dict[int, list[Node]] = {}
    for node_id, root in sorted(group_of.items()):
        members.setdefault(root, []).append(graph.nodes[node_id])
    return {root: nodes for root, nodes in members.items() if len(nodes) > 1}


def _emit(rw: Rewriter, members: list[Node]) -> Value:
    """Add the fused node for a group."""
    inside = {n.id for n in members}
    operands: list[Value] = []
    for node in members:
        for value in node.inputs:
            if value.node.id not in inside and value not in operands:
                operands.append(value)
    position = {value: i for i, value in enumerate(operands)}
    steps: list[Step] = []
    for node in members:
        steps.append(program_step(node.op, [position[v] for v in node.inputs], dict(node.attrs)))
        position[node.outputs[0]] = len(operands) + len(steps) - 1
    return rw.new.add("fused", [rw[v] for v in operands], {"program": tuple(steps)}).outputs[0]
