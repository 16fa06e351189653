"""The memory plan: which values share storage, when storage dies, and what may be overwritten in place.

One liveness analysis decides all of it. A storage is needed by every node that reads a value in it, and at the end of
the run by every output and update that is read from it: only then are outputs returned and updates applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from stipple.ir.graph import Graph, Node, Value

_END = 1 << 60
"""The position after the last node."""


@dataclass(frozen=True)
class Step:
    """One node in order of execution.

    ``inplace`` maps an output to the operand whose buffer it takes; ``dead`` are the storages that nothing uses after
    this step, ``forgotten`` their values.
    """

    node: Node
    inplace: Mapping[int, int]
    dead: tuple[int, ...]
    forgotten: tuple[Value, ...]


@dataclass(frozen=True)
class Plan:
    """``steps`` compute values, then ``commits`` overwrite parameters; nothing reads what a commit writes.

    ``storage`` is the number of the storage that holds each value.
    """

    steps: tuple[Step, ...]
    commits: tuple[Step, ...]
    storage: Mapping[Value, int]


@dataclass(frozen=True)
class _Liveness:
    """The position at which each storage is last read, for one order of execution; storage that is never freed is read
    at the end."""

    storage: Mapping[Value, int]
    last: Mapping[int, int]

    def may_overwrite(self, node: Node, out: int, operand: int, position: int) -> bool:
        """Whether an output may take an operand's memory: the types agree, nothing reads the old value later, and the
        node itself reads it only where it writes."""
        value = node.inputs[operand]
        mine = self.storage[value]
        if value.type != node.outputs[out].type or self.last[mine] > position:
            return False
        others = [v for i, v in enumerate(node.inputs) if i != operand and self.storage[v] == mine]
        return not others or (node.definition.elementwise and all(v.type == value.type for v in others))


def make_plan(graph: Graph) -> Plan:
    """Plan a graph's memory.

    Parameters are overwritten only by nodes that compute nothing but next parameter values, and those run last: a run
    that fails before them leaves every parameter unchanged. A candidate that may not overwrite is an ordinary node.
    """
    storage = _storages(graph)
    order = [n for n in graph.nodes if not n.definition.source and n.op != "constant"]
    commits = _commit_candidates(graph)
    while True:
        ordinary = [n for n in order if n.id not in commits]
        last_ones = [n for n in order if n.id in commits]
        live = _liveness(graph, storage, [*ordinary, *last_ones], commits)
        allowed = {
            node.id: commits[node.id]
            for position, node in enumerate(last_ones, len(ordinary))
            if all(live.may_overwrite(node, o, k, position) for o, k in commits[node.id].items())
        }
        if len(allowed) == len(commits):
            break
        commits = allowed
    return Plan(*_steps(graph, storage, ordinary, last_ones, commits), storage)


def _storages(graph: Graph) -> dict[Value, int]:
    """A storage number for each value; a view shares its operand's."""
    storage: dict[Value, int] = {}
    for node in graph.nodes:
        for value in node.outputs:
            storage[value] = storage[node.inputs[0]] if node.definition.view else len(storage)
    return storage


def _commit_candidates(graph: Graph) -> dict[int, dict[int, int]]:
    """Nodes whose results are only the next values of parameters that are their own operands; with the outputs that may
    take the parameter's memory."""
    read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs.values())
    taken = list(graph.updates.values())
    next_of = {v: graph.params[name] for name, v in graph.updates.items() if taken.count(v) == 1}
    found: dict[int, dict[int, int]] = {}
    for node in graph.nodes:
        inplace = {o: k for o, k in node.definition.inplace.items() if next_of.get(node.outputs[o]) is node.inputs[k]}
        placed = all(o in inplace for o, v in enumerate(node.outputs) if v in taken)
        if inplace and placed and read.isdisjoint(node.outputs):
            found[node.id] = inplace
    return found


def _liveness(
    graph: Graph, storage: Mapping[Value, int], order: Sequence[Node], commits: Mapping[int, Mapping[int, int]]
) -> _Liveness:
    last: dict[int, int] = {}
    for position, node in enumerate(order):
        for value in (*node.inputs, *node.outputs):
            last[storage[value]] = position
    for value in _read_at_the_end(graph, commits):
        last[storage[value]] = _END
    return _Liveness(storage, last)


def _read_at_the_end(graph: Graph, commits: Mapping[int, Mapping[int, int]]) -> list[Value]:
    """Outputs, and the updates that are not in their parameter's memory by then."""
    in_place = {graph.nodes[i].outputs[o] for i, outputs in commits.items() for o in outputs}
    return [*graph.outputs.values(), *(v for v in graph.updates.values() if v not in in_place)]


def _steps(
    graph: Graph,
    storage: Mapping[Value, int],
    ordinary: Sequence[Node],
    last_ones: Sequence[Node],
    commits: Mapping[int, Mapping[int, int]],
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The ordinary steps and the commits, with what dies at each."""
    live = _liveness(graph, storage, [*ordinary, *last_ones], commits)
    kept = {storage[v] for n in graph.nodes if n.definition.source or n.op == "constant" for v in n.outputs}
    kept |= {storage[v] for v in graph.roots}
    members: dict[int, list[Value]] = {}
    for value, number in storage.items():
        members.setdefault(number, []).append(value)
    steps = []
    for position, node in enumerate([*ordinary, *last_ones]):
        touched = {storage[v] for v in (*node.inputs, *node.outputs)}
        dies = {s for s in touched if s not in kept and live.last[s] == position}
        inplace = commits[node.id] if node.id in commits else _temporaries_in_place(node, live, dies, position)
        taken = {storage[node.inputs[k]] for k in inplace.values()}
        forgotten = tuple(v for s in sorted(dies) for v in members[s])
        steps.append(Step(node, inplace, tuple(sorted(dies - taken)), forgotten))
    return tuple(steps[: len(ordinary)]), tuple(steps[len(ordinary) :])


def _temporaries_in_place(node: Node, live: _Liveness, dies: Set[int], position: int) -> dict[int, int]:
    """Outputs that may take over the buffer of an operand that dies here."""
    return {
        out: operand
        for out, operand in node.definition.inplace.items()
        if live.storage[node.inputs[operand]] in dies and live.may_overwrite(node, out, operand, position)
    }


__all__ = ["Plan", "Step", "make_plan"]
