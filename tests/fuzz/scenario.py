"""What happens to a graph: rounds of feeds whose sizes change, and now and then new parameters."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fuzz import feeds
from fuzz.generate import MOST_ELEMENTS, Program, random_program
from stipple import ir

SIZES = (0, 1, 1, 2, 3, 3, 5)


@dataclass
class Round:
    """One run: parameters that are set before it, and what is fed."""

    params: dict[str, np.ndarray] = field(default_factory=dict)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Scenario:
    """A graph, and what happens to it."""

    graph: ir.Graph
    rounds: list[Round]


def must_be_finite(graph: ir.Graph) -> set[str]:
    """Sources that an op wants finite: a wrong feed is refused before the run, a parameter when it is set."""
    return {
        value.name
        for node in graph.nodes
        for i, value in enumerate(node.inputs)
        if value.node.definition.source and node.definition.operand(i).finite
    }


def random_rounds(program: Program, rng: random.Random, count: int) -> list[Round]:
    """A random scenario. Sizes that parameters have last until parameters are set anew, or updates change them."""
    graph = program.graph
    finite = must_be_finite(graph)
    rounds: list[Round] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for k in range(count):
        dims = _sizes_of(graph, shapes)
        made = Round()
        if k == 0 or dims is None or rng.random() < 0.25:
            dims = {}
            for name, value in graph.params.items():
                _draw_sizes(value, dims, program, rng)
                kind = "tame" if name in finite else program.kinds[name]
                shape = value.shape.resolve(dims)
                made.params[name] = feeds.array(rng, shape, value.dtype.value, _resolved(kind, dims, program, rng))
                shapes[name] = shape
        for value in graph.inputs.values():
            _draw_sizes(value, dims, program, rng)
        for name, value in graph.inputs.items():
            kind = program.kinds[name]
            shape = value.shape.resolve(dims)
            if kind == "step":
                array = np.array(rng.choice((1, 2, 3, 4, 10, 100, 1, 2)), value.dtype.numpy)
                if rng.random() < 0.03:
                    array = np.array(rng.choice((0, -1, np.nan)), value.dtype.numpy)
            else:
                calm = name in finite and rng.random() < 0.9
                array = feeds.array(
                    rng, shape, value.dtype.value, _resolved("tame" if calm else kind, dims, program, rng)
                )
            made.feeds[name] = array
        rounds.append(made)
        for name, value in graph.updates.items():
            shapes[name] = _next_shape(value, dims)
    return rounds


def _next_shape(value: ir.Value, dims: Mapping[str, int]) -> tuple[int, ...]:
    return value.shape.resolve(dims)


def _sizes_of(graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
    """Sizes that parameters hold, or None if they contradict each other or have grown too large."""
    dims: dict[str, int] = {}
    for name, shape in shapes.items():
        for dim, size in zip(graph.params[name].shape, shape, strict=True):
            if size > MOST_ELEMENTS // 8 or (dim.symbol is not None and dims.setdefault(dim.symbol, size) != size):
                return None
    if any(_count(v, dims) > MOST_ELEMENTS * 4 for n in graph.nodes for v in n.outputs):
        return None
    return dims


def _count(value: ir.Value, dims: Mapping[str, int]) -> int:
    return int(value.shape.size.resolve({**dict.fromkeys(value.shape.symbols, 3), **dims}))


def _draw_sizes(value: ir.Value, dims: dict[str, int], program: Program, rng: random.Random) -> None:
    for axis, dim in enumerate(value.shape):
        if dim.symbol is not None and dim.symbol not in dims:
            kind = program.kinds[value.name]
            if kind.startswith("image:"):
                dims[dim.symbol] = int(kind[6:].split("x")[axis])
            else:
                dims[dim.symbol] = rng.choice(SIZES)


def _resolved(kind: str, dims: Mapping[str, int], program: Program, rng: random.Random) -> str:
    """A kind of values with its sizes known."""
    if kind.startswith("image:"):
        return "unit"
    if kind.startswith("ids:"):
        rows = ir.Dim.of(kind[4:])
        sizes = {**{s: rng.choice(SIZES) for s in sorted(rows.symbols)}, **dims}
        return f"ids:{max(0, rows.resolve(sizes))}"
    return kind


def random_scenario(seed: int) -> Scenario:
    """The graph of a seed and what happens to it."""
    program = random_program(seed)
    rng = random.Random(-seed - 1)
    return Scenario(program.graph, random_rounds(program, rng, rng.choice((1, 2, 3, 4))))
