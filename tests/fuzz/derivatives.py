"""Gradients that ``ir.grad`` makes, held to differences of the oracle's own values: no device takes part."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from fuzz.generate import Generator, Program, Unfit
from fuzz.oracle import REFERENCE, Run, evaluate, from_array
from fuzz.scenario import random_rounds
from fuzz.tensors import Tensor
from stipple import ir

_STEP = 2.0**-14
_NOT_SMOOTH = ("stop_gradient", "adam", "adam_visible")


@dataclass
class Comparison:
    """A directional derivative: the gradient's, and what a difference says; None where there is a kink."""

    program: Program
    gradient: float
    difference: float | None

    @property
    def agrees(self) -> bool:
        if self.difference is None:
            return True
        size = 1 + abs(self.gradient) + abs(self.difference)
        return abs(self.gradient - self.difference) <= 1e-3 * size


def compare(seed: int) -> Comparison | None:
    """A random loss of a random graph, along a random direction; None if the draw has no gradient to speak of."""
    rng = random.Random(seed)
    generator = Generator(rng, calm=True)
    generator.sources()
    for _ in range(rng.choice((3, 6, 10))):
        generator.step()
    graph = generator.graph
    try:
        value = generator.value(lambda v: v.dtype.value == generator.float and not v.node.definition.source)
    except Unfit:
        return None
    loss = ir.sum(ir.square(value)) if rng.random() < 0.3 else ir.sum(value)
    wrt = [v for v in (*graph.inputs.values(), *graph.params.values()) if v.dtype.value == generator.float]
    if any(n.op in _NOT_SMOOTH or n.op.endswith("_backward") for n in graph.nodes) or not wrt:
        return None
    for k, gradient in enumerate(ir.grad(graph, loss, wrt)):
        graph.output(f"v{k}", gradient)
    graph.output("loss", loss)
    given = random_rounds(generator.program, rng, 1)[0]
    point = {n: from_array(a, graph_value(graph, n).dtype.value, REFERENCE) for n, a in (given.params | given.feeds).items()}
    run = _run(graph, point)
    if run is None:
        return None
    direction = {v.name: [rng.uniform(-1, 1) for _ in point[v.name].spans] for v in wrt}
    gradient = 0.0
    for k, v in enumerate(wrt):
        gradient += math.fsum(_middle(s) * d for s, d in zip(run.outputs[f"v{k}"].spans, direction[v.name], strict=True))
    return Comparison(generator.program, gradient, _difference(graph, point, direction))


def graph_value(graph: ir.Graph, name: str) -> ir.Value:
    return graph.params.get(name) or graph.inputs[name] if name not in graph.params else graph.params[name]


def _middle(span: tuple[float, float, bool]) -> float:
    return math.nan if span[0] > span[1] or span[2] else (span[0] + span[1]) / 2


def _run(graph: ir.Graph, values: Mapping[str, Tensor]) -> Run | None:
    feeds = {n: values[n] for n in graph.inputs}
    run = evaluate(graph, feeds, {n: values[n] for n in graph.params}, REFERENCE)
    return None if run.must_fail or run.may_fail else run


def _difference(graph: ir.Graph, point: Mapping[str, Tensor], direction: Mapping[str, list[float]]) -> float | None:
    """The derivative along a direction, where it is the same from both sides and at two steps."""
    slopes = []
    for step in (_STEP, _STEP / 4):
        values = []
        for sign in (-1, 0, 1):
            moved = dict(point)
            for name, along in direction.items():
                old = point[name]
                spans = [
                    (s[0] + sign * step * d, s[1] + sign * step * d, s[2])
                    for s, d in zip(old.spans, along, strict=True)
                ]
                moved[name] = Tensor(old.shape, old.dtype, spans)
            run = _run(graph, moved)
            if run is None:
                return None
            low, high, nan = run.outputs["loss"].spans[0]
            if nan or not high - low <= step * 1e-5 * (1 + abs(low)):
                return None
            values.append((low + high) / 2)
        slopes += [(values[1] - values[0]) / step, (values[2] - values[1]) / step, (values[2] - values[0]) / (2 * step)]
    size = 1 + abs(slopes[-1])
    return slopes[-1] if all(abs(s - slopes[-1]) <= 0.02 * size for s in slopes) else None
