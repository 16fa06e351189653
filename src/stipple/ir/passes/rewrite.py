"""Shared by passes: rebuilding a graph node by node, and the record of what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stipple.ir.attributes import AttrValue
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.shape import Dim, Shape, TensorType, is_generated


@dataclass(frozen=True)
class PassResult:
    """A pass's outcome: the new graph (the same object if nothing changed), how many changes, and which."""

    graph: Graph
    changes: int
    detail: str = ""


class Pass(Protocol):
    """A graph-to-graph transformation that preserves what the graph computes."""

    @property
    def name(self) -> str: ...

    def run(self, graph: Graph) -> PassResult: ...


Visit = Callable[["Rewriter", Node], "Sequence[Value] | None"]


class Rewriter:
    """Builds a new graph from an old one. Types are inferred again, so shapes follow the changes.

    Symbols that nodes generate get new names on the way; attributes and types that mention one are
    translated.
    """

    def __init__(self, old: Graph) -> None:
        self.old = old
        self.new = Graph(old.name)
        self._values: dict[Value, Value] = {}
        self._renamed: dict[str, Dim] = {}

    def __getitem__(self, value: Value) -> Value:
        """The new value for an old one."""
        return self._values[value]

    def operands(self, node: Node) -> list[Value]:
        return [self._values[v] for v in node.inputs]

    def attrs(self, node: Node) -> dict[str, AttrValue]:
        """A node's attributes in terms of the new graph's symbols."""
        return {
            a.name: node.attrs[a.name].substitute(self._renamed) if a.kind in ("dim", "shape") else node.attrs[a.name]
            for a in node.definition.attrs
        }

    def type_of(self, old: Value) -> TensorType:
        """An old value's type in terms of the new graph's symbols."""
        return TensorType(old.shape.substitute(self._renamed), old.dtype)

    def copy(self, node: Node) -> Sequence[Value]:
        """The same node in the new graph."""
        if node.definition.source:
            build = self.new.input if node.op == "input" else self.new.param
            return (build(node.attrs["name"], node.attrs["shape"], node.attrs["dtype"]),)
        return self.new.add(node.op, self.operands(node), self.attrs(node)).outputs

    def put(self, node: Node, values: Sequence[Value]) -> None:
        """Set the new values that replace a node's results; fewer than all if the rest is never used."""
        for old, new in zip(node.outputs, values, strict=False):
            self.bind(old, new)

    def bind(self, old: Value, new: Value) -> None:
        """Set the new value that replaces an old one."""
        self._values[old] = new
        for before, after in zip(old.shape, new.shape, strict=True):
            if before.symbol is not None and is_generated(before.symbol):
                self._renamed[before.symbol] = after

    def name_symbols(self, shape: Shape) -> None:
        """Give generated symbols in a shape plain names, as inputs must have."""
        for symbol in shape.symbols:
            if is_generated(symbol):
                self._renamed.setdefault(symbol, Dim.of(symbol.replace(".", "_")))

    def finish(self) -> Graph:
        for name, value in self.old.outputs.items():
            self.new.output(name, self._values[value])
        for name, value in self.old.updates.items():
            self.new.update(self.new.params[name], self._values[value])
        for name, array in self.old.param_values.items():
            self.new.set_init(name, array)
        return self.new


def rebuild(graph: Graph, visit: Visit) -> Graph:
    """A new graph in which ``visit`` chooses each node's replacement values.

    ``visit`` returns None to copy the node, or the values that stand for it (an empty sequence drops it).
    """
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        values = None if node.definition.source else visit(rewriter, node)
        rewriter.put(node, rewriter.copy(node) if values is None else values)
    return rewriter.finish()


def tally(names: Sequence[str]) -> str:
    """``add x3, mul`` for a list of names."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(n if c == 1 else f"{n} x{c}" for n, c in sorted(counts.items()))
