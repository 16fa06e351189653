"""Random training steps: a few Gaussians, rendered, compared with weights, moved along their gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzz.oracle import REFERENCE, evaluate, from_array
from fuzz.scenario import Round, Scenario
from fuzz.spans import ANYTHING
from stipple import ir

WIDTH, HEIGHT = 7, 5
LENSES = ("pinhole", "pinhole", "distorted", "fisheye", "ortho")
PER_GAUSSIAN = ("means", "quats", "scales", "opacities", "colors")


@dataclass
class Step:
    """A graph, the shapes of what it takes, and the image whose uncertain pixels get no weight."""

    graph: ir.Graph
    shapes: dict[str, tuple[int, ...]]
    lens: str
    image: ir.Value
    weights: tuple[str, ...]


def random_step(seed: int) -> Scenario:
    """A graph that renders, and its rounds; the number of Gaussians changes between them, to 0 and 1 too."""
    rng = random.Random(seed)
    step = _step(rng)
    graph, shapes = step.graph, step.shapes
    rounds: list[Round] = []
    arrays: dict[str, np.ndarray] = {}
    for k in range(rng.choice((1, 2, 3))):
        made = Round()
        if k == 0 or rng.random() < 0.3:
            count = rng.choice((0, 1, 2, 3, 3, 4))
            made.params = {n: _values(rng, step, n, count, shapes[n]) for n in graph.params}
            arrays |= made.params
        count = len(arrays["means"])
        made.feeds = {n: _values(rng, step, n, count, shapes[n]) for n in graph.inputs}
        forget_unsafe(step, made, arrays)
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


def _step(rng: random.Random) -> Step:
    """Declare a scene, render it in one of several ways, and go back through it."""
    graph = ir.Graph("step")
    lens, degree = rng.choice(LENSES), rng.choice((-1, -1, 0, 1, 2))
    features = rng.random() < 0.6
    channels = rng.choice((1, 2, 3, 4, 5, 6) if features else (3, 3, 1, 4)) if degree < 1 else 3
    shapes: dict[str, tuple[int, ...]] = {
        "means": (3,), "quats": (4,), "scales": (3,), "opacities": (),
        "colors": (channels,) if degree < 0 else ((degree + 1) ** 2, channels),
    }  # fmt: skip
    values = {}
    for name, rest in shapes.items():
        is_param = name == "means" or rng.random() < 0.6
        values[name] = (graph.param if is_param else graph.input)(name, ["N", *rest])
    distortion = {"distorted": 8, "fisheye": 4}.get(lens, 0)
    camera = {"viewmat": (4, 4), "intrinsics": (3, 3), "distortion": (distortion,), "background": (channels,)}
    values |= {name: graph.input(name, shape) for name, shape in camera.items()}
    shapes |= camera
    rays = rng.random() < 0.33 and lens in ("pinhole", "ortho")
    attrs = {
        "width": WIDTH, "height": HEIGHT, "sh_degree": degree, "projection": "ray" if rays else "ewa",
        "camera_model": "pinhole" if lens == "distorted" else lens, "tile_size": rng.choice((3, 4, 16)),
        "antialiased": not rays and rng.random() < 0.3, "max_splat_steps": rng.choice((0, 0, 2)),
        "alpha_cutoff": rng.choice((1 / 255, 0.05)), "transmittance_threshold": rng.choice((1e-4, 0.3)),
        "eps2d": rng.choice((0.3, 0.3, 0.05)),
    }  # fmt: skip
    operands = _operands(graph, values)
    build = _features if features else _render
    return build(rng, Step(graph, shapes, lens, values["means"], ()), values, operands, attrs)


def _operands(graph: ir.Graph, values: Mapping[str, ir.Value]) -> list[ir.Value]:
    """The operands of a render in their order."""
    activated = {**values, "scales": ir.exp(values["scales"]), "opacities": ir.sigmoid(values["opacities"])}
    activated["clip"] = ir.clip_planes(graph)
    return [activated[o.name] for o in ir.REGISTRY["splat_render"].operands]


def _render(
    rng: random.Random, step: Step, values: Mapping[str, ir.Value], operands: list[ir.Value], attrs: dict[str, Any]
) -> Step:
    """splat_render itself where nothing goes back through it."""
    graph, back = step.graph, rng.random() < 0.85
    node = graph.add("fuzz_render" if back else "splat_render", operands, attrs)
    rgba, depth = node.outputs
    graph.output("rgba", rgba)
    if rng.random() < 0.7:
        graph.output("depth", depth)
    weights = {"w_rgba": rgba, "w_depth": depth}
    loss = _loss(step, weights)
    if back:
        _gradients(rng, step, values, loss)
    return Step(graph, step.shapes, step.lens, depth, tuple(weights))


def _features(
    rng: random.Random, step: Step, values: Mapping[str, ir.Value], operands: list[ir.Value], attrs: dict[str, Any]
) -> Step:
    """Any number of features, and what else the rasterizer says of a pixel."""
    graph = step.graph
    node = graph.add("fuzz_features", operands, attrs)
    for name in ("image", "alpha", "transmittance", "median_ids", "counts", "depths"):
        if rng.random() < 0.6 or name == "image":
            graph.output(name, node.result(name))
    weights = {"w_image": node.result("image"), "w_alpha": node.result("alpha")}
    if rng.random() < 0.5:
        graph.output("median", ir.splat_median_depth(node.result("depths"), node.result("median_ids")))
    loss = _loss(step, weights)
    if rng.random() < 0.4:
        loss = loss + ir.sum(ir.square(node.result("depths"))) * 0.1
    _gradients(rng, step, values, loss)
    return Step(graph, step.shapes, step.lens, node.result("alpha"), tuple(weights))


def _loss(step: Step, weighted: Mapping[str, ir.Value]) -> ir.Value:
    parts = []
    for name, value in weighted.items():
        step.shapes[name] = value.shape.static
        parts.append(ir.sum(value * step.graph.input(name, value.shape)))
    loss = parts[0] + parts[1]
    step.graph.output("loss", loss)
    return loss


def _gradients(rng: random.Random, step: Step, values: Mapping[str, ir.Value], loss: ir.Value) -> None:
    graph = step.graph
    wrt = [n for n in values if n in graph.params or rng.random() < 0.3]
    for name, gradient in zip(wrt, ir.grad(graph, loss, [values[n] for n in wrt]), strict=True):
        if rng.random() < 0.7:
            graph.output(f"v_{name}", gradient)
        if name in graph.params and rng.random() < 0.8:
            graph.update(values[name], values[name] - 0.01 * gradient)
            if rng.random() < 0.3:
                graph.output(f"old_{name}", values[name])
    backward = next(n for n in graph.nodes if n.op in ("fuzz_render_backward", "fuzz_features_backward"))
    for name in ("v_means2d", "v_means2d_abs"):
        if rng.random() < 0.4:
            graph.output(name, backward.result(name))


def _values(rng: random.Random, step: Step, name: str, count: int, shape: tuple[int, ...]) -> np.ndarray:
    if name in ("viewmat", "intrinsics", "distortion"):
        return camera_values(rng, name, step.lens, len(step.shapes["distortion"]) and step.shapes["distortion"][0])
    shape = (count, *shape) if name in PER_GAUSSIAN else shape
    low, high = {
        "means": (-1.0, 1.0), "quats": (-1.0, 1.0), "scales": (-2.0, 0.0), "opacities": (-2.0, 2.5),
        "colors": (0.05, 1.0), "background": (0.0, 1.0),
    }.get(name, (-1.0, 1.0))  # fmt: skip
    made = uniform(rng, low, high, shape)
    if name == "means":
        made[:, 2] = [rng.uniform(1.5, 4) if rng.random() < 0.85 else -1.0 for _ in range(count)]
    if count and name in PER_GAUSSIAN and rng.random() < 0.08:  # one that is culled, or skipped
        row = rng.randrange(count)
        if name == "colors":
            made[row].flat[rng.randrange(made[row].size)] = rng.choice((np.nan, np.inf, -np.inf))
        else:
            made[row] = {"quats": 0.0, "means": np.nan}.get(name, made[0])
    return made


def uniform(rng: random.Random, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.array([rng.uniform(low, high) for _ in range(math.prod(shape))], np.float32).reshape(shape)


def camera_values(rng: random.Random, name: str, lens: str, coefficients: int) -> np.ndarray:
    """A camera that looks along +z, near the origin; a lens that is bent a little, now and then too much."""
    if name == "viewmat":
        angle = rng.uniform(-0.4, 0.4)
        c, s = math.cos(angle), math.sin(angle)
        rows = [[c, 0, s, rng.uniform(-0.3, 0.3)], [0, 1, 0, 0.1], [-s, 0, c, 0.2], [0, 0, 0, 1]]
        return np.array(rows, np.float32)
    if name == "intrinsics":
        scale = 0.45 if lens == "ortho" else 1.0
        rows = [[6.5 * scale, 0, WIDTH / 2 + 0.3], [0, 7.0 * scale, HEIGHT / 2 - 0.2], [0, 0, 1]]
        return np.array(rows, np.float32)
    made = uniform(rng, -0.04, 0.04, (coefficients,))
    if coefficients == 8:
        made[:6] *= 4
    if coefficients and rng.random() < 0.15:
        made[0] = -0.6  # points far from the axis would fold back
    return made


def forget_unsafe(step: Step, made: Round, params: Mapping[str, np.ndarray]) -> None:
    """No weight on pixels that a rounding error may change: a derivative says nothing about them."""
    feeds = {n: from_array(a, step.graph.inputs[n].dtype.value, REFERENCE) for n, a in made.feeds.items()}
    tensors = {n: from_array(a, "f32", REFERENCE) for n, a in params.items()}
    found = evaluate(step.graph, feeds, tensors, REFERENCE, watch=step.image).watched
    if found is None:
        return
    unsafe = np.array([s == ANYTHING for s in found.spans]).reshape(found.shape)
    for name in step.weights:
        made.feeds[name][unsafe] = 0
