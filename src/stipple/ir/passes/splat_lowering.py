"""Splat lowering and its reverse: render <-> prepare + rasterize, forward and backward.

Lowering followed by merging of common subexpressions is what lets a backward use the forward's prepare and
rasterize: nothing about it is special-cased.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stipple.ir.graph import Graph, Node, Value
from stipple.ir.ops import splat
from stipple.ir.passes.rewrite import PassResult, Rewriter, rebuild, tally

_PREPARE_INPUTS = 8


class LowerRender:
    """Replace splat_render and splat_render_backward by prepare, rasterize and their backwards."""

    name = "lower-render"

    def run(self, graph: Graph) -> PassResult:
        lowered: list[str] = []

        def visit(rw: Rewriter, node: Node) -> Sequence[Value] | None:
            if node.op not in ("splat_render", "splat_render_backward"):
                return None
            lowered.append(node.op)
            if node.op == "splat_render":
                return _lower_forward(rw.new, rw.operands(node), node)[1].outputs[:2]
            return _lower_backward(rw.new, rw.operands(node), node)

        made = rebuild(graph, visit)
        return PassResult(made, len(lowered), f"lowered {tally(lowered)}") if lowered else PassResult(graph, 0)


def _lower_forward(graph: Graph, inputs: Sequence[Value], node: Node) -> tuple[Node, Node]:
    """The prepare and rasterize nodes of a render with these operands."""
    prepare = graph.add("splat_prepare", inputs[:_PREPARE_INPUTS], splat.select_attrs(splat.PREPARE_ATTRS, node.attrs))
    means2d, conics, colors, opacities, depths, _, ranges, ids = prepare.outputs
    rasterize = graph.add(
        "splat_rasterize",
        [means2d, conics, colors, opacities, depths, inputs[_PREPARE_INPUTS], ranges, ids],
        splat.select_attrs(splat.RASTERIZE_ATTRS, node.attrs),
    )
    return prepare, rasterize


def _lower_backward(graph: Graph, inputs: Sequence[Value], node: Node) -> Sequence[Value]:
    prepare, rasterize = _lower_forward(graph, inputs, node)
    v_rgba, v_depth = inputs[-2:]
    raster = graph.add(
        "splat_rasterize_backward", [*rasterize.inputs, *rasterize.outputs, v_rgba, v_depth], rasterize.attrs
    )
    v_means2d, v_conics, v_colors, v_opacities, v_depths, v_background, v_abs = raster.outputs
    back = graph.add(
        "splat_prepare_backward",
        [*prepare.inputs, prepare.result("radii"), v_means2d, v_conics, v_colors, v_opacities, v_depths],
        prepare.attrs,
    )
    return [*back.outputs, v_background, v_means2d, v_abs]


@dataclass
class _Chain:
    """A prepare and the nodes that a fused render and its backward replace."""

    prepare: Node
    rasterize: Node
    raster_backward: Node | None = None
    prepare_backward: Node | None = None


class FuseRender:
    """Join prepare + rasterize (and their backwards) into render where nothing else needs the rest."""

    name = "fuse-render"

    def run(self, graph: Graph) -> PassResult:
        chains = _chains(graph)
        if not chains:
            return PassResult(graph, 0)
        by_node: dict[int, _Chain] = {}
        for chain in chains:
            for node in (chain.prepare, chain.rasterize, chain.raster_backward, chain.prepare_backward):
                if node is not None:
                    by_node[node.id] = chain

        def visit(rw: Rewriter, node: Node) -> Sequence[Value] | None:
            chain = by_node.get(node.id)
            return None if chain is None else _emit(rw, node, chain)

        fused = sum(2 if c.raster_backward is not None else 1 for c in chains)
        return PassResult(rebuild(graph, visit), fused, f"fused {len(chains)} renders")


def _emit(rw: Rewriter, node: Node, chain: _Chain) -> Sequence[Value]:
    attrs = {**chain.prepare.attrs, **chain.rasterize.attrs}
    operands = [rw[v] for v in (*chain.prepare.inputs, chain.rasterize.operand("background"))]
    if node is chain.rasterize:
        return rw.new.add("splat_render", operands, attrs).outputs
    if node is chain.raster_backward:
        v_rgba, v_depth = (rw[v] for v in node.inputs[-2:])
        made = rw.new.add("splat_render_backward", [*operands, v_rgba, v_depth], attrs)
        assert chain.prepare_backward is not None
        rw.put(chain.prepare_backward, made.outputs[:7])
        rw.made[node.result("v_background")] = made.result("v_background")
        rw.made[node.result("v_means2d")] = made.result("v_means2d")
        rw.made[node.result("v_means2d_abs")] = made.result("v_means2d_abs")
    return ()


def _chains(graph: Graph) -> list[_Chain]:
    uses = graph.uses()
    roots = set(graph.roots)

    def users(value: Value) -> set[Node]:
        return set(uses.get(value, []))

    found = []
    for prepare in (n for n in graph.nodes if n.op == "splat_prepare"):
        around = set().union(*(users(v) for v in prepare.outputs))
        chain = _match(prepare, around)
        if chain is not None and _private(chain, users, roots):
            found.append(chain)
    return found


def _match(prepare: Node, around: set[Node]) -> _Chain | None:
    """The chain around a prepare node, if its users are exactly one of each kind and fit together."""
    by_op: dict[str, list[Node]] = {}
    for node in around:
        by_op.setdefault(node.op, []).append(node)
    kinds = ("splat_rasterize", "splat_rasterize_backward", "splat_prepare_backward")
    if not set(by_op) <= set(kinds) or any(len(nodes) > 1 for nodes in by_op.values()):
        return None
    rasterize, raster_backward, prepare_backward = (by_op.get(k, [None])[0] for k in kinds)
    if rasterize is None or (raster_backward is None) != (prepare_backward is None):
        return None
    prepared = [prepare.outputs[i] for i in (0, 1, 2, 3, 4, 6, 7)]
    if [v for i, v in enumerate(rasterize.inputs) if i != 5] != prepared or _attrs_differ(prepare, rasterize):
        return None
    if raster_backward is not None and prepare_backward is not None:
        if raster_backward.inputs[:12] != (*rasterize.inputs, *rasterize.outputs):
            return None
        expected = (*prepare.inputs, prepare.result("radii"), *raster_backward.outputs[:5])
        if prepare_backward.inputs != expected:
            return None
        if raster_backward.attrs != rasterize.attrs or prepare_backward.attrs != prepare.attrs:
            return None
    return _Chain(prepare, rasterize, raster_backward, prepare_backward)


def _attrs_differ(prepare: Node, rasterize: Node) -> bool:
    return any(rasterize.attrs[k] != v for k, v in prepare.attrs.items() if k in rasterize.attrs)


def _private(chain: _Chain, users: Callable[[Value], set[Node]], roots: set[Value]) -> bool:
    """Whether nothing outside the chain uses what a fused render does not return."""
    hidden = [*chain.prepare.outputs, *chain.rasterize.outputs[2:]]
    inside = {chain.rasterize, chain.raster_backward, chain.prepare_backward}
    if chain.raster_backward is not None:
        hidden += chain.raster_backward.outputs[1:5]
    return all(value not in roots and users(value) <= inside for value in hidden)
