"""The memory plan: which values share storage, when storage dies, and what may be overwritten in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stipple.ir.graph import Graph, Node, Value

_FOREVER = 1 << 60


@dataclass(frozen=True)
class Step:
    """One node in order of execution.

    ``inplace`` maps an output to the operand whose buffer it takes; ``dead`` are the storages that nothing
    uses after this step, ``forgotten`` the values in them.
    """

    node: Node
    inplace: Mapping[int, int]
    dead: tuple[int, ...]
    forgotten: tuple[Value, ...]


@dataclass(frozen=True)
class Plan:
    """Steps in order, and for each value the number of the storage that holds it. From ``first_commit`` on, steps
    overwrite parameters."""

    steps: tuple[Step, ...]
    storage: Mapping[Value, int]
    first_commit: int


def make_plan(graph: Graph) -> Plan:
    """Plan a graph's memory.

    Parameters are overwritten in place only by nodes that do nothing but make next parameter values, and
    those run last: a run that fails before them leaves every parameter as it was.
    """
    storage = _storages(graph)
    commits = _commit_nodes(graph)
    computing = [n for n in graph.nodes if not n.definition.source and n.op != "constant"]
    order = [n for n in computing if n.id not in commits] + [n for n in computing if n.id in commits]
    kept = _kept(graph, storage)
    members: dict[int, list[Value]] = {}
    for value, number in storage.items():
        members.setdefault(number, []).append(value)
    last: dict[int, int] = {}
    for position, node in enumerate(order):
        for value in (*node.inputs, *node.outputs):
            last[storage[value]] = max(last.get(storage[value], -1), position)
    steps = []
    for position, node in enumerate(order):
        touched = {storage[v] for v in (*node.inputs, *node.outputs)}
        dies = {s for s in touched if s not in kept and last[s] == position}
        if node.id in commits:
            inplace = commits[node.id]
            if any(last[storage[node.inputs[i]]] > position for i in inplace.values()):
                inplace = {}
        else:
            inplace = _temporaries_in_place(node, storage, dies)
        taken = {storage[node.inputs[i]] for i in inplace.values()}
        forgotten = tuple(v for s in sorted(dies) for v in members[s])
        steps.append(Step(node, inplace, tuple(sorted(dies - taken)), forgotten))
    return Plan(tuple(steps), storage, len([n for n in computing if n.id not in commits]))


def _storages(graph: Graph) -> dict[Value, int]:
    """A storage number for each value; a view shares its operand's."""
    storage: dict[Value, int] = {}
    for node in graph.nodes:
        for value in node.outputs:
            storage[value] = storage[node.inputs[0]] if node.definition.view else len(storage)
    return storage


def _kept(graph: Graph, storage: Mapping[Value, int]) -> set[int]:
    """Storages that live through the run: feeds, parameters, constants, and what the run returns."""
    held = [v for n in graph.nodes if n.definition.source or n.op == "constant" for v in n.outputs]
    return {storage[v] for v in (*held, *graph.roots)}


def _commit_nodes(graph: Graph) -> dict[int, dict[int, int]]:
    """Nodes whose only effect is parameters' next values, with the outputs they may write in place."""
    uses = graph.uses()
    next_of = {value: graph.params[name] for name, value in graph.updates.items()}
    twice = {v for v in next_of if list(graph.updates.values()).count(v) > 1}
    found: dict[int, dict[int, int]] = {}
    for node in graph.nodes:
        inplace = {
            out: operand
            for out, operand in node.definition.inplace.items()
            if next_of.get(node.outputs[out]) is node.inputs[operand]
            and node.outputs[out] not in twice
            and node.outputs[out].type == node.inputs[operand].type
        }
        if inplace and not any(uses.get(v) for v in node.outputs):
            found[node.id] = inplace
    return found


def _temporaries_in_place(node: Node, storage: Mapping[Value, int], dies: set[int]) -> dict[int, int]:
    """Outputs that may take over the buffer of an operand that dies here."""
    made: dict[int, int] = {}
    for out, operand in node.definition.inplace.items():
        value = node.inputs[operand]
        mine = storage[value]
        shared = [i for i, v in enumerate(node.inputs) if storage[v] == mine]
        if out in made or mine not in dies or value.type != node.outputs[out].type:
            continue
        same_view = all(node.inputs[i].type == value.type for i in shared)
        if shared == [operand] or (node.definition.elementwise and same_view):
            made[out] = operand
    return made
