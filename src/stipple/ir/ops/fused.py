"""Groups of elementwise ops that run as one kernel.

A program is a tuple of steps (op, references, attributes): reference i < n_operands is an operand, the rest
are earlier steps; attributes are (name, JSON value) pairs. The last step is the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stipple.errors import GraphError
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import InferContext, OpDef, Operand, lookup, register
from stipple.ir.shape import Dim, TensorType

Step = tuple[str, tuple[int, ...], tuple[tuple[str, Any], ...]]


def program_step(op: str, refs: Sequence[int], attrs: dict[str, AttrValue]) -> Step:
    """One step of a fused program for a node's op, operand references and attributes."""
    definition = lookup(op)
    return (op, tuple(refs), tuple((n, definition.attr(n).to_json(v)) for n, v in sorted(attrs.items())))


def step_attrs(step: Step) -> dict[str, AttrValue]:
    """A step's attributes in canonical form."""
    return lookup(step[0]).normalise_attrs(dict(step[2]))


class ProgramStep(NamedTuple):
    """One op of a program: its references (operand i, then earlier steps), its attributes, its result's dtype."""

    op: str
    refs: tuple[int, ...]
    attrs: Mapping[str, AttrValue]
    dtype: DType


Program = tuple[ProgramStep, ...]


def program_of(node: Node) -> Program:
    """A node's steps: its own op, or those of a fused group."""
    if node.op != "fused":
        return (ProgramStep(node.op, tuple(range(len(node.inputs))), node.attrs, node.outputs[0].dtype),)
    types = [v.type for v in node.inputs]
    steps = []
    for op, refs, given in node.attrs["program"]:
        attrs = lookup(op).normalise_attrs(dict(given))
        types += lookup(op).infer_types([types[r] for r in refs], attrs, _no_fresh)
        steps.append(ProgramStep(op, refs, attrs, types[-1].dtype))
    return tuple(steps)


def _infer_fused(c: InferContext) -> list[TensorType]:
    types = list(c.types)
    for i, step in enumerate(c.attrs["program"]):
        if not (
            isinstance(step, tuple)
            and len(step) == 3
            and isinstance(step[0], str)
            and isinstance(step[1], tuple)
            and isinstance(step[2], tuple)
            and all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) for p in step[2])
        ):
            c.fail(f"program step {i}: expected (op, operands, attributes), got {step!r}")
        if len({name for name, _ in step[2]}) < len(step[2]):
            c.fail(f"program step {i}: an attribute is given twice")
        definition = lookup(step[0])
        if not definition.elementwise or definition.name == "fused":
            c.fail(f"program step {i}: {step[0]} is not an elementwise op")
        if not all(isinstance(r, int) and 0 <= r < len(types) for r in step[1]):
            c.fail(f"program step {i}: operands {step[1]} do not all exist")
        types.extend(definition.infer_types([types[r] for r in step[1]], step_attrs(step), _no_fresh))
    if len(types) == len(c.types):
        c.fail("program: expected at least one step")
    return [types[-1]]


def _no_fresh(base: str) -> Dim:
    raise GraphError("elementwise ops create no new dimensions")


def expand_fused(graph: Graph, operands: Sequence[Value], program: Sequence[Step]) -> Value:
    """The nodes that a fused program stands for; returns the result."""
    values = list(operands)
    for step in program:
        values.append(graph.add(step[0], [values[r] for r in step[1]], step_attrs(step)).outputs[0])
    return values[-1]


register(
    OpDef(
        "fused",
        (Operand("x", dtype="any"),),
        ("out",),
        _infer_fused,
        "A group of elementwise ops run as one kernel.",
        attrs=(Attr("program", "program", required=True),),
        variadic=True,
        expand=lambda graph, operands, attrs: [expand_fused(graph, operands, attrs["program"])],
    )
)
