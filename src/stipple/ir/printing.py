"""Graphs for people: text for the terminal, DOT for Graphviz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stipple.ir.attributes import AttrValue, attr_key
from stipple.ir.dtype import DType

if TYPE_CHECKING:
    from stipple.ir.graph import Graph, Node, Value

_COLUMN = 78
_MAX_EDGE_LABELS = 3


def to_text(graph: Graph) -> str:
    """The graph as readable text: one line per node, types on the right; scalar constants are written inline."""
    lines = [f"graph {graph.name} ({len(graph.nodes)} nodes)"]
    for title, table in (("inputs", graph.inputs), ("params", graph.params)):
        if table:
            lines.append(f"  {title}")
        for name, value in table.items():
            stored = "   (value stored)" if name in graph.param_values else ""
            lines.append(f"    %{name}: {value.type}{stored}")
    lines.append("  nodes")
    for node in graph.nodes:
        if not node.definition.source and not _is_scalar_constant(node):
            lines.extend(_node_lines(node))
    for title, table in (("outputs", graph.outputs), ("updates", graph.updates)):
        if table:
            lines.append(f"  {title}")
        for name, value in table.items():
            lines.append(f"    {name} = {operand_text(value)}: {value.type}")
    return "\n".join(lines)


def _node_lines(node: Node) -> list[str]:
    if node.op == "constant":
        call = f"constant {_array_text(node.attrs['value'])}"
    else:
        shown = [operand_text(v) for v in node.inputs]
        call = f"{node.op}({', '.join(shown + attrs_text(node))})"
    if len(node.outputs) == 1:
        return [_aligned(f"    %{node.id} = {call}", str(node.outputs[0].type))]
    width = max(len(r) for r in node.definition.results)
    results = [
        f"        .{i} {name:<{width}}  {value.type}"
        for i, (name, value) in enumerate(zip(node.definition.results, node.outputs, strict=True))
    ]
    return [f"    %{node.id} = {call}", *results]


def _aligned(left: str, right: str) -> str:
    return f"{left:<{_COLUMN}} {right}" if len(left) < _COLUMN else f"{left}  {right}"


def operand_text(value: Value) -> str:
    """How an operand is written: its name, or the number of a scalar constant."""
    if _is_scalar_constant(value.node):
        return _number(value.node.attrs["value"][()])
    return f"%{value.name}"


def attrs_text(node: Node) -> list[str]:
    """Attributes that differ from their defaults (sizes always), as ``name=value``."""
    shown = []
    for attr in node.definition.attrs:
        value = node.attrs[attr.name]
        if attr.kind == "program":
            shown.append("; ".join(_step_text(i, len(node.inputs), s) for i, s in enumerate(value)))
        elif attr.required or attr_key(value) != attr_key(attr.normalise(node.op, attr.default)):
            shown.append(f"{attr.name}={_attr_text(value)}")
    return shown


def _step_text(index: int, operands: int, step: tuple[str, tuple[int, ...], tuple[tuple[str, AttrValue], ...]]) -> str:
    op, refs, attrs = step
    named = [f"x{r}" if r < operands else f"t{r - operands}" for r in refs]
    settings = [f"{k}={v}" for k, v in attrs]
    return f"t{index} = {op}({', '.join(named + settings)})"


def _attr_text(value: AttrValue) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, DType):
        return value.value
    if isinstance(value, np.ndarray):
        return _array_text(value)
    return str(value)


def _number(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    return str(value).removesuffix(".0")  # the shortest text that reads back as the same number


def _array_text(array: np.ndarray) -> str:
    if array.size > 8:
        return f"<{array.size} elements>"
    return str(np.array2string(array, precision=6, separator=", ")).replace("\n", "")


def _is_scalar_constant(node: Node) -> bool:
    return node.op == "constant" and node.attrs["value"].ndim == 0


_COLOURS: Mapping[str, str] = {
    "splat": "#f6d6ad",
    "image": "#cfe3f5",
    "adam": "#d9ecc9",
    "source": "#e6e0f2",
    "other": "#f2f2f2",
}


def to_dot(graph: Graph) -> str:
    """The graph in Graphviz's DOT language: ``dot -Tsvg`` draws it."""
    lines = [
        f'digraph "{graph.name}" {{',
        '  rankdir=TB; node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=8, color="#666666"];',
    ]
    for node in graph.nodes:
        if _is_scalar_constant(node):
            continue
        lines.append(f'  n{node.id} [label="{_dot_label(node)}", fillcolor="{_COLOURS[_family(node)]}"];')
        lines.extend(_dot_edges(node))
    for kind, table in (("output", graph.outputs), ("update", graph.updates)):
        for i, (name, value) in enumerate(table.items()):
            lines.append(f'  {kind}{i} [label="{kind} {name}", shape=oval, fillcolor="#ffffff"];')
            lines.append(f'  n{value.node.id} -> {kind}{i} [label="{value.type}"];')
    return "\n".join([*lines, "}"])


def _dot_edges(node: Node) -> list[str]:
    """One arrow from each node whose values this one uses, labelled with them if they are few."""
    by_source: dict[int, list[str]] = {}
    for value in dict.fromkeys(node.inputs):
        if not _is_scalar_constant(value.node):
            several = len(value.node.outputs) > 1
            name = f"{value.node.definition.results[value.index]} " if several else ""
            by_source.setdefault(value.node.id, []).append(f"{name}{value.type}")
    return [f'  n{source} -> n{node.id} [label="{_few(labels)}"];' for source, labels in by_source.items()]


def _few(labels: list[str]) -> str:
    return "\\n".join(labels) if len(labels) <= _MAX_EDGE_LABELS else f"{len(labels)} values"


def _family(node: Node) -> str:
    if node.definition.source:
        return "source"
    head = node.op.split("_")[0]
    return head if head in _COLOURS else "other"


def _dot_label(node: Node) -> str:
    if node.definition.source:
        return f"{node.op} {node.attrs['name']}\\n{node.outputs[0].type}"
    scalars = [operand_text(v) for v in node.inputs if _is_scalar_constant(v.node)]
    notes = "\\n".join(scalars + [t for t in attrs_text(node) if len(t) < 60])
    return f"%{node.id} {node.op}" + (f"\\n{notes}" if notes else "")
