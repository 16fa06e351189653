"""Making a failing graph small: without outputs, updates, rounds, rows and nodes that it can fail without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fuzz.scenario import Round
from stipple import ir
from stipple.errors import StippleError

Case = tuple[ir.Graph, list[Round]]
Fails = Callable[[ir.Graph, list[Round]], bool]


def shrink(graph: ir.Graph, rounds: list[Round], fails: Fails, most_tries: int = 1500) -> Case:
    """A smaller case that still fails. ``fails`` must be true for the one given."""
    case = (graph, rounds)
    tries = 0
    progress = True
    while progress:
        progress = False
        for candidate in _smaller(*case):
            tries += 1
            if tries > most_tries:
                return case
            if fails(*candidate):
                case, progress = candidate, True
                break
    return case


def _smaller(graph: ir.Graph, rounds: list[Round]) -> Iterator[Case]:
    """Simpler cases, the boldest first."""
    for k in range(len(rounds)):
        if len(rounds) > 1:
            left = rounds[:k] + rounds[k + 1 :]
            if k == 0:  # parameters need a first value
                left[0] = Round({**rounds[0].params, **left[0].params}, left[0].feeds)
            yield graph, left
    if len(graph.outputs) + len(graph.updates) > 1 or len(graph.live_nodes()) < len(graph):
        for node in graph.nodes:
            for value in node.outputs:
                yield from _cut(graph, rounds, outputs={"out": value}, drop_updates=set(graph.updates))
    for keeps_dead in (False, True):  # what is dead may be what it fails for
        yield from _fewer_nodes(graph, rounds, keeps_dead)
    for symbol in sorted({s for n in graph.nodes for v in n.outputs for s in v.shape.symbols}):
        for size in (1, 2):
            yield from _resized(graph, rounds, symbol, size)
    yield from _simpler_values(graph, rounds)


def _fewer_nodes(graph: ir.Graph, rounds: list[Round], keeps_dead: bool) -> Iterator[Case]:
    if not keeps_dead and len(graph.live_nodes()) < len(graph):
        yield from _cut(graph, rounds)
    for name in graph.outputs:
        yield from _cut(graph, rounds, drop_outputs={name}, keeps_dead=keeps_dead)
    for name in graph.updates:
        yield from _cut(graph, rounds, drop_updates={name}, keeps_dead=keeps_dead)
    for node in reversed(graph.nodes):
        for result in node.outputs:
            for operand in node.inputs:
                if operand.type == result.type:
                    yield from _cut(graph, rounds, replace={result: operand}, keeps_dead=keeps_dead)
        if not node.definition.source and node.op != "constant" and node.inputs:
            yield from _cut(graph, rounds, make_input=node, keeps_dead=keeps_dead)
        if keeps_dead:
            yield from _cut(graph, rounds, drop_node=node, keeps_dead=True)


def _cut(
    graph: ir.Graph,
    rounds: list[Round],
    outputs: Mapping[str, ir.Value] | None = None,
    drop_outputs: frozenset[str] | set[str] = frozenset(),
    drop_updates: frozenset[str] | set[str] = frozenset(),
    replace: Mapping[ir.Value, ir.Value] | None = None,
    make_input: ir.Node | None = None,
    keeps_dead: bool = False,
    drop_node: ir.Node | None = None,
) -> Iterator[Case]:
    """The graph rebuilt with a change, if that is possible."""
    new = ir.Graph(graph.name)
    made: dict[ir.Value, ir.Value] = {}
    replace = replace or {}
    kept = {n: v for n, v in (outputs or graph.outputs).items() if n not in drop_outputs}
    updates = {n: v for n, v in graph.updates.items() if n not in drop_updates}
    live = _live(graph, [*kept.values(), *updates.values()], replace)
    named = (
        {v for n in graph.nodes if n.id in live or keeps_dead for v in n.inputs}
        | set(kept.values())
        | set(updates.values())
    )
    fed: dict[str, ir.Value] = {}
    try:
        for node in graph.nodes:
            updated = node.op == "param" and node.attrs["name"] in updates
            if node is drop_node or not (node.id in live or keeps_dead or updated):
                continue
            if node is make_input:
                for value in node.outputs:
                    if value in named:
                        name = f"from{node.id}_{value.index}"
                        made[value] = new.input(name, value.shape, value.dtype)
                        fed[name] = value
                continue
            if node.definition.source:
                build = new.input if node.op == "input" else new.param
                results = (build(node.attrs["name"], node.attrs["shape"], node.attrs["dtype"]),)
            else:
                results = new.add(node.op, [made[v] for v in node.inputs], node.attrs).outputs
            for old, value in zip(node.outputs, results, strict=True):
                made[old] = made[replace[old]] if old in replace else value
        for name, value in kept.items():
            new.output(name, made[value])
        for name, value in updates.items():
            new.update(new.params[name], made[value])
        ir.verify(new)
        given = [
            Round(
                {n: a for n, a in r.params.items() if n in new.params},
                {n: a for n, a in r.feeds.items() if n in new.inputs} | _feeds_for(graph, r, fed),
            )
            for r in rounds
        ]
    except (StippleError, KeyError):
        return
    if new.outputs or new.updates:
        yield new, given


def _live(graph: ir.Graph, roots: list[ir.Value], replace: Mapping[ir.Value, ir.Value]) -> set[int]:
    live = {replace.get(v, v).node.id for v in roots}
    for node in reversed(graph.nodes):
        if node.id in live:
            live.update(replace.get(v, v).node.id for v in node.inputs)
    return live


def _feeds_for(graph: ir.Graph, given: Round, fed: Mapping[str, ir.Value]) -> dict[str, np.ndarray]:
    """Plain arrays for values that have become inputs: 1, 2, 3, ... in small steps."""
    dims: dict[str, int] = {}
    for table, arrays in ((graph.params, given.params), (graph.inputs, given.feeds)):
        for name, value in table.items():
            for dim, size in zip(value.shape, arrays[name].shape if name in arrays else (), strict=False):
                if dim.symbol is not None:
                    dims.setdefault(dim.symbol, size)
    found = {}
    for name, value in fed.items():
        shape = value.shape.resolve({**dict.fromkeys(value.shape.symbols, 1), **dims})
        found[name] = (np.arange(int(np.prod(shape))) % 4).reshape(shape).astype(value.dtype.numpy)
    return found


def _resized(graph: ir.Graph, rounds: list[Round], symbol: str, size: int) -> Iterator[Case]:
    """Every array with at most ``size`` rows along a symbol's axes."""

    def cut(table: Mapping[str, ir.Value], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            n: a[tuple(slice(0, size) if d.symbol == symbol else slice(None) for d in table[n].shape)].copy()
            for n, a in arrays.items()
        }

    made = [Round(cut(graph.params, r.params), cut(graph.inputs, r.feeds)) for r in rounds]
    before = [a.shape for r in rounds for a in (*r.params.values(), *r.feeds.values())]
    if before != [a.shape for r in made for a in (*r.params.values(), *r.feeds.values())]:
        yield graph, made


def _simpler_values(graph: ir.Graph, rounds: list[Round]) -> Iterator[Case]:
    for k, given in enumerate(rounds):
        for table in ("params", "feeds"):
            arrays: dict[str, np.ndarray] = getattr(given, table)
            for name, array in arrays.items():
                plain = np.ones_like(array)
                if array.size and array.tobytes() != plain.tobytes():
                    new = Round(dict(given.params), dict(given.feeds))
                    getattr(new, table)[name] = plain
                    yield graph, [*rounds[:k], new, *rounds[k + 1 :]]
