"""Passes that remove what is not needed: dead nodes, repeated nodes, constant work, neutral arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stipple.errors import InputError
from stipple.ir.attributes import attr_key
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.ops.elementwise import square
from stipple.ir.ops.structure import narrow, reshape
from stipple.ir.passes.rewrite import PassResult, Rewriter, rebuild, tally

Evaluate = Callable[[Node, Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Computes a node's results from its operands' arrays; a backend provides it."""


class RemoveDeadNodes:
    """Drop nodes that no output and no update depends on. Inputs and parameters stay."""

    name = "remove-dead-nodes"

    def run(self, graph: Graph) -> PassResult:
        live = graph.live_nodes()
        dead = [n.op for n in graph.nodes if n.id not in live and not n.definition.source]
        if not dead:
            return PassResult(graph, 0)
        rebuilt = rebuild(graph, lambda rw, node: None if node.id in live else ())
        return PassResult(rebuilt, len(dead), f"dropped {tally(dead)}")


class MergeCommonSubexpressions:
    """Compute once what several nodes with the same op, operands and attributes would compute."""

    name = "merge-common-subexpressions"

    def run(self, graph: Graph) -> PassResult:
        known: dict[Any, Sequence[Value]] = {}
        merged: list[str] = []

        def visit(rw: Rewriter, node: Node) -> Sequence[Value]:
            operands = tuple((v.node.id, v.index) for v in rw.operands(node))
            key = (node.op, operands, tuple((k, attr_key(v)) for k, v in sorted(rw.attrs(node).items())))
            if key in known:
                merged.append(node.op)
            else:
                known[key] = rw.copy(node)
            return known[key]

        rebuilt = rebuild(graph, visit)
        return PassResult(rebuilt, len(merged), f"merged {tally(merged)}") if merged else PassResult(graph, 0)


class FoldConstants:
    """Compute nodes whose operands are all constants, where the result is small enough to store."""

    name = "fold-constants"

    def __init__(self, evaluate: Evaluate, max_elements: int = 4096) -> None:
        self.evaluate = evaluate
        self.max_elements = max_elements

    def run(self, graph: Graph) -> PassResult:
        folded: list[str] = []

        def visit(rw: Rewriter, node: Node) -> Sequence[Value] | None:
            results = self._fold(node, rw.operands(node))
            if results is None:
                return None
            folded.append(node.op)
            return [rw.new.constant(a, v.dtype) for a, v in zip(results, node.outputs, strict=True)]

        rebuilt = rebuild(graph, visit)
        return PassResult(rebuilt, len(folded), f"computed {tally(folded)}") if folded else PassResult(graph, 0)

    def _fold(self, node: Node, operands: Sequence[Value]) -> Sequence[np.ndarray] | None:
        if not operands or not all(self._small(v) for v in (*operands, *node.outputs)) or _depends_on_sizes(node):
            return None
        arrays = [_constant_array(v) for v in operands]
        if any(a is None for a in arrays):
            return None
        try:
            return self.evaluate(node, [a for a in arrays if a is not None])
        except InputError:
            return None  # the same error, with the node's name, is raised when the graph runs

    def _small(self, value: Value) -> bool:
        size = value.shape.size.value
        return size is not None and size <= self.max_elements


def _depends_on_sizes(node: Node) -> bool:
    """Whether a node's work depends on a symbol, which has a value only when the graph runs."""
    shaped = [node.attrs[a.name] for a in node.definition.attrs if a.kind in ("dim", "shape")]
    return any(attr.symbols for attr in shaped)


def _constant_array(value: Value) -> np.ndarray | None:
    """The array of a ``constant``, or of a ``full`` with a known shape; else None."""
    node = value.node
    if node.op == "constant":
        array: np.ndarray = node.attrs["value"]
        return array
    if node.op == "full" and value.shape.static is not None:
        return np.full(value.shape.static, node.attrs["value"], dtype=value.dtype.numpy)
    return None


def _uniform(value: Value) -> float | None:
    """The one number that a constant holds everywhere (all zeros of one sign), or None."""
    node = value.node
    if node.op == "full":
        return float(node.attrs["value"])
    if node.op == "constant" and node.attrs["value"].size:
        array = node.attrs["value"]
        first = array.flat[0]
        if (array == first).all() and (first != 0 or len(set(np.signbit(array).flat)) == 1):
            return float(first)
    return None


def _is(value: Value, neutral: float) -> bool:
    """Whether a value is this number everywhere; 0 and -0 differ."""
    number = _uniform(value)
    return number is not None and number == neutral and math.copysign(1, number) == math.copysign(1, neutral)


class Simplify:
    """Algebra that needs no numbers: neutral elements, double negation, chained reshapes and transposes."""

    name = "simplify"

    def run(self, graph: Graph) -> PassResult:
        total: list[str] = []
        current = graph
        while True:
            changed: list[str] = []

            def visit(rw: Rewriter, node: Node, changed: list[str] = changed) -> Sequence[Value] | None:
                rule = _RULES.get(node.op)
                found = rule(rw, node) if rule else None
                if found is None:
                    return None
                changed.append(node.op)
                return [found]

            rebuilt = rebuild(current, visit)
            if not changed:
                break
            current = rebuilt
            total += changed
        return PassResult(current, len(total), f"simplified {tally(total)}" if total else "")


Rule = Callable[[Rewriter, Node], "Value | None"]


def _same_type(rw: Rewriter, node: Node, value: Value) -> Value | None:
    return value if value.type == rw.type_of(node.outputs[0]) else None


def _neutral(left: float | None, right: float | None) -> Rule:
    """Rule for a binary op: drop a left or right operand that is the neutral number."""

    def rule(rw: Rewriter, node: Node) -> Value | None:
        a, b = rw.operands(node)
        if right is not None and _is(b, right) and (kept := _same_type(rw, node, a)) is not None:
            return kept
        if left is not None and _is(a, left):
            return _same_type(rw, node, b)
        return None

    return rule


def _add(rw: Rewriter, node: Node) -> Value | None:
    """x + -0 is x for every float; x + 0 is not, for x = -0. Integers have one zero."""
    zero = -0.0 if node.outputs[0].dtype.is_float else 0.0
    return _neutral(zero, zero)(rw, node)


def _inverse_of(op: str) -> Rule:
    def rule(rw: Rewriter, node: Node) -> Value | None:
        inner = rw[node.inputs[0]].node
        return inner.inputs[0] if inner.op == op else None

    return rule


def _pow(rw: Rewriter, node: Node) -> Value | None:
    base, power = rw.operands(node)
    kept = _same_type(rw, node, base)
    if kept is None or _uniform(power) not in (1.0, 2.0):
        return None
    return kept if _uniform(power) == 1.0 else square(kept)


def _reshape(rw: Rewriter, node: Node) -> Value | None:
    source = rw[node.inputs[0]]
    if source.node.op == "reshape":
        return reshape(source.node.inputs[0], rw.type_of(node.outputs[0]).shape)
    return _same_type(rw, node, source)


def _transpose(rw: Rewriter, node: Node) -> Value | None:
    source, axes = rw[node.inputs[0]], node.attrs["axes"]
    unmoved = tuple(range(len(axes)))
    if axes == unmoved:
        return source
    if source.node.op == "transpose" and tuple(source.node.attrs["axes"][a] for a in axes) == unmoved:
        return source.node.inputs[0]
    return None


def _unchanged(rw: Rewriter, node: Node) -> Value | None:
    return _same_type(rw, node, rw[node.inputs[0]])


def _narrow(rw: Rewriter, node: Node) -> Value | None:
    """The whole axis, or a range inside one part of a concat; a symbolic start is checked only by the run."""
    attrs = rw.attrs(node)
    axis, start, length = attrs["axis"], attrs["start"].value, attrs["length"].value
    if start == 0 and (whole := _unchanged(rw, node)) is not None:
        return whole
    source = rw[node.inputs[0]].node
    if source.op != "concat" or source.attrs["axis"] != axis or start is None or length is None:
        return None
    begin = 0
    for part in source.inputs:
        size = part.shape[axis].value
        if size is None or begin > start:
            return None
        if start + length <= begin + size:
            return narrow(part, axis, start - begin, length)
        begin += size
    return None


def _pad(rw: Rewriter, node: Node) -> Value | None:
    attrs = rw.attrs(node)
    return _unchanged(rw, node) if attrs["before"].value == 0 == attrs["after"].value else None


def _single(rw: Rewriter, node: Node) -> Value | None:
    return rw[node.inputs[0]] if len(node.inputs) == 1 else None


def _no_axes(rw: Rewriter, node: Node) -> Value | None:
    return rw[node.inputs[0]] if not node.attrs["axes"] else None


_RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _neutral(None, 0.0),
    "mul": _neutral(1.0, 1.0),
    "div": _neutral(None, 1.0),
    "pow": _pow,
    "neg": _inverse_of("neg"),
    "logical_not": _inverse_of("logical_not"),
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _unchanged,
    "narrow": _narrow,
    "pad": _pad,
    "cast": _unchanged,
    "concat": _single,
    "sum": _no_axes,
    "mean": _no_axes,
}
