"""Random training steps: a few Gaussians, rendered, compared with weights, moved along their gradients."""

from __future__ import annotations

import math
import random

import numpy as np

from fuzz.oracle import REFERENCE, evaluate, from_array
from fuzz.scenario import Round, Scenario
from fuzz.spans import ANYTHING
from stipple import ir

WIDTH, HEIGHT = 7, 5


def random_step(seed: int) -> Scenario:
    """A graph that renders, and its rounds; the number of Gaussians changes between them, to 0 and 1 too."""
    rng = random.Random(seed)
    graph, shapes = _graph(rng)
    rounds: list[Round] = []
    arrays: dict[str, np.ndarray] = {}
    for k in range(rng.choice((1, 2, 3))):
        made = Round()
        if k == 0 or rng.random() < 0.3:
            count = rng.choice((0, 1, 2, 3, 3, 4))
            made.params = {n: _values(rng, n, count, shapes[n]) for n in graph.params}
            arrays |= made.params
        count = len(arrays["means"])
        made.feeds = {n: _values(rng, n, count, shapes[n]) for n in graph.inputs}
        _forget_unsafe(graph, made, arrays)
        rounds.append(made)
        params = {n: from_array(a, "f32", REFERENCE) for n, a in arrays.items()}
        feeds = {n: from_array(a, "f32", REFERENCE) for n, a in made.feeds.items()}
        after = evaluate(graph, feeds, params, REFERENCE).params
        for name, tensor in after.items():
            middles = [(s[0] + s[1]) / 2 for s in tensor.spans]
            arrays[name] = np.array(middles, np.float32).reshape(tensor.shape)
        if not all(np.isfinite(a).all() for a in arrays.values()):
            break
    return Scenario(graph, rounds)


def _graph(rng: random.Random) -> tuple[ir.Graph, dict[str, tuple[int, ...]]]:
    graph = ir.Graph("step")
    degree = rng.choice((-1, -1, 0, 1))
    projection = rng.choice(("ewa", "ewa", "ray"))
    colors = (3,) if degree < 0 else ((degree + 1) ** 2, 3)
    per_gaussian = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "colors": colors}
    shapes: dict[str, tuple[int, ...]] = dict(per_gaussian)
    values = {}
    for name, rest in per_gaussian.items():
        is_param = name == "means" or rng.random() < 0.6
        values[name] = (graph.param if is_param else graph.input)(name, ["N", *rest])
    for name, shape in (("viewmat", (4, 4)), ("intrinsics", (3, 3)), ("background", (3,))):
        values[name] = graph.input(name, shape)
        shapes[name] = shape
    weights = [graph.input("w_rgba", [HEIGHT, WIDTH, 4]), graph.input("w_depth", [HEIGHT, WIDTH])]
    shapes |= {"w_rgba": (HEIGHT, WIDTH, 4), "w_depth": (HEIGHT, WIDTH)}
    scales, opacities = ir.exp(values["scales"]), ir.sigmoid(values["opacities"])
    image = ir.splat_render(
        values["means"], values["quats"], scales, opacities, values["colors"],
        values["viewmat"], values["intrinsics"], values["background"],
        width=WIDTH, height=HEIGHT, sh_degree=degree, projection=projection, tile_size=rng.choice((4, 16)),
        antialiased=projection == "ewa" and rng.random() < 0.3, max_splat_steps=rng.choice((0, 0, 2)),
        alpha_cutoff=rng.choice((1 / 255, 0.05)),
    )  # fmt: skip
    graph.output("rgba", image.rgba)
    if rng.random() < 0.7:
        graph.output("depth", image.depth)
    loss = ir.sum(image.rgba * weights[0]) + ir.sum(image.depth * weights[1])
    graph.output("loss", loss)
    wrt = [n for n in values if n in graph.params or rng.random() < 0.3]
    for name, gradient in zip(wrt, ir.grad(graph, loss, [values[n] for n in wrt]), strict=True):
        if rng.random() < 0.7:
            graph.output(f"v_{name}", gradient)
        if name in graph.params and rng.random() < 0.8:
            graph.update(values[name], values[name] - 0.01 * gradient)
            if rng.random() < 0.3:
                graph.output(f"old_{name}", values[name])
    if rng.random() < 0.5:
        graph.output("v_means2d", ir.splat_backward_node(graph).result("v_means2d"))
    return graph, shapes


def _values(rng: random.Random, name: str, count: int, shape: tuple[int, ...]) -> np.ndarray:
    per_gaussian = {"means", "quats", "scales", "opacities", "colors"}
    shape = (count, *shape) if name in per_gaussian else shape
    if name == "viewmat":
        angle = rng.uniform(-0.4, 0.4)
        c, s = math.cos(angle), math.sin(angle)
        rows = [[c, 0, s, rng.uniform(-0.3, 0.3)], [0, 1, 0, 0.1], [-s, 0, c, 0.2], [0, 0, 0, 1]]
        return np.array(rows, np.float32)
    if name == "intrinsics":
        return np.array([[6.5, 0, WIDTH / 2 + 0.3], [0, 7.0, HEIGHT / 2 - 0.2], [0, 0, 1]], np.float32)
    size = math.prod(shape)
    low, high = {
        "means": (-1.0, 1.0), "quats": (-1.0, 1.0), "scales": (-2.0, 0.0), "opacities": (-2.0, 2.5),
        "colors": (0.05, 1.0), "background": (0.0, 1.0),
    }.get(name, (-1.0, 1.0))  # fmt: skip
    made = np.array([rng.uniform(low, high) for _ in range(size)], np.float32).reshape(shape)
    if name == "means":
        made[:, 2] = [rng.uniform(1.5, 4) if rng.random() < 0.85 else -1.0 for _ in range(count)]
    if count and name in per_gaussian and rng.random() < 0.08:  # one that is culled
        made[rng.randrange(count)] = {"quats": 0.0, "means": np.nan}.get(name, made[0])
    return made


def _forget_unsafe(graph: ir.Graph, made: Round, params: dict[str, np.ndarray]) -> None:
    """No weight on pixels that a rounding error may change: a derivative says nothing about them."""
    feeds = {n: from_array(a, "f32", REFERENCE) for n, a in made.feeds.items()}
    tensors = {n: from_array(a, "f32", REFERENCE) for n, a in params.items()}
    depth = next(n for n in graph.nodes if n.op == "splat_render").outputs[1]
    found = evaluate(graph, feeds, tensors, REFERENCE, watch=depth).watched
    assert found is not None
    unsafe = np.array([s == ANYTHING for s in found.spans]).reshape(HEIGHT, WIDTH)
    made.feeds["w_rgba"][unsafe] = 0
    made.feeds["w_depth"][unsafe] = 0
