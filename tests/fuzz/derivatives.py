"""Gradients that ``ir.grad`` makes, held to differences of the oracle's own values: no device takes part."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fuzz.generate import Generator, Program, UnfitError
from fuzz.oracle import REFERENCE, Run, evaluate, from_array
from fuzz.scenario import random_rounds
from fuzz.spans import Span
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
    except UnfitError:
        return None
    loss = ir.sum(ir.square(value)) if rng.random() < 0.3 else ir.sum(value)
    wrt = [v for v in (*graph.inputs.values(), *graph.params.values()) if v.dtype.value == generator.float]
    if any(n.op in _NOT_SMOOTH or n.op.endswith("_backward") for n in graph.nodes) or not wrt:
        return None
    for k, gradient in enumerate(ir.grad(graph, loss, wrt)):
        graph.output(f"v{k}", gradient)
    graph.output("loss", loss)
    given = random_rounds(generator.program, rng, 1)[0]
    sources = {**graph.params, **graph.inputs}
    point = {n: from_array(a, sources[n].dtype.value, REFERENCE) for n, a in (given.params | given.feeds).items()}
    found = _compare_at(generator.program, wrt, point, rng)
    if found is None or found.agrees:
        return found
    moved = {n: _moved(t, [rng.uniform(-0.01, 0.01) for _ in t.spans]) for n, t in point.items()}
    return _compare_at(generator.program, wrt, moved, rng)  # ties, which share a gradient by convention, are gone here


def _compare_at(
    program: Program, wrt: Sequence[ir.Value], point: Mapping[str, Tensor], rng: random.Random
) -> Comparison | None:
    graph = program.graph
    run = _run(graph, point)
    if run is None:
        return None
    direction = {v.name: [rng.uniform(-1, 1) for _ in point[v.name].spans] for v in wrt}
    gradient = 0.0
    for k, v in enumerate(wrt):
        for span, along in zip(run.outputs[f"v{k}"].spans, direction[v.name], strict=True):
            slope = _known(span)
            if slope is None:
                return None
            gradient += slope * along
    return Comparison(program, gradient, _difference(graph, point, direction))


def _known(span: Span) -> float | None:
    """A value that its span tells to six digits. (NaN is none: what is not chosen by a ``where`` may give 0 * inf.)"""
    low, high, nan = span
    return None if nan or not high - low <= 1e-6 * (1 + abs(low)) else (low + high) / 2


def _moved(x: Tensor, by: Sequence[float]) -> Tensor:
    """Floats moved a little; other dtypes as they are."""
    if x.dtype not in ("f32", "f64"):
        return x
    return Tensor(x.shape, x.dtype, [(s[0] + d, s[1] + d, s[2]) for s, d in zip(x.spans, by, strict=True)])


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
                moved[name] = _moved(point[name], [sign * step * d for d in along])
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
