"""Random graphs of one small splat op: its results, and its gradients along weights."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzz.oracle import REFERENCE, evaluate, from_array
from fuzz.scenario import Round, Scenario
from fuzz.spans import ANYTHING
from fuzz.splat_programs import HEIGHT, LENSES, WIDTH, camera_values, uniform
from fuzz.tensors import Tensor
from stipple import ir

Draw = Callable[[int], np.ndarray]


@dataclass
class Sketch:
    """A graph under construction, and how the values of each input are drawn for a number of Gaussians."""

    rng: random.Random
    graph: ir.Graph
    draws: dict[str, Draw]

    def input(self, name: str, shape: list[Any], draw: Draw, dtype: str = "f32") -> ir.Value:
        self.draws[name] = draw
        return self.graph.input(name, shape, dtype)

    def rows(self, name: str, rest: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> ir.Value:
        return self.input(name, ["N", *rest], lambda n: uniform(self.rng, low, high, (n, *rest)))


def random_small_op(seed: int) -> Scenario:
    """One of splat_project, splat_sh, splat_bin and splat_rasterize, and its gradients."""
    rng = random.Random(seed)
    sketch = Sketch(rng, ir.Graph("small"), {})
    results, carry, wrt = rng.choice((_project, _sh, _rasterize, _rasterize, _bin))(sketch)
    graph = sketch.graph
    for name, value in results.items():
        if rng.random() < 0.7 or not graph.outputs:
            graph.output(name, value)
    weighted: dict[str, ir.Value] = {n: results[n] for n in carry if rng.random() < 0.8}
    if weighted and rng.random() < 0.9:
        _back(sketch, weighted, wrt)
    else:
        weighted = {}
    rounds = []
    for _ in range(rng.choice((1, 2, 3))):
        count = rng.choice((0, 1, 2, 3, 4))
        made = Round(feeds={n: draw(count) for n, draw in sketch.draws.items()})
        _forget_uncertain(graph, made, weighted)
        rounds.append(made)
    return Scenario(graph, rounds)


def _back(sketch: Sketch, weighted: Mapping[str, ir.Value], wrt: list[str]) -> None:
    graph, rng = sketch.graph, sketch.rng
    seeds = []
    for name, value in weighted.items():
        rest = tuple(d.value for d in value.shape if d.symbol is None)
        is_rows = any(d.symbol is not None for d in value.shape)
        draw = (lambda n, rest=rest: uniform(rng, -1, 1, (n, *rest))) if is_rows else (
            lambda n, rest=rest: uniform(rng, -1, 1, rest)
        )  # fmt: skip
        seeds.append((value, sketch.input(f"w_{name}", list(value.shape), draw)))
    chosen = [n for n in wrt if rng.random() < 0.7] or wrt[:1]
    for name, gradient in zip(chosen, ir.pullback(seeds, [graph.inputs[n] for n in chosen]), strict=True):
        graph.output(f"v_{name}", gradient)
    if rng.random() < 0.4 and any(n.op == "splat_rasterize_backward" for n in graph.nodes):
        graph.output("v_means2d_abs", ir.splat_backward_node(graph).result("v_means2d_abs"))


def _forget_uncertain(graph: ir.Graph, made: Round, weighted: Mapping[str, ir.Value]) -> None:
    """No weight on what a rounding error may change."""
    feeds = {n: from_array(a, graph.inputs[n].dtype.value, REFERENCE) for n, a in made.feeds.items()}
    for name, value in weighted.items():
        found = evaluate(graph, feeds, {}, REFERENCE, watch=value).watched
        if isinstance(found, Tensor):
            unsafe = np.array([s == ANYTHING for s in found.spans], bool).reshape(found.shape)
            made.feeds[f"w_{name}"][unsafe] = 0


# --- the ops ----------------------------------------------------------------------------------------------
Built = tuple[dict[str, ir.Value], list[str], list[str]]
"""Results by name, those that carry gradients, and the inputs that have them."""


def _camera(s: Sketch, lens: str) -> list[ir.Value]:
    length = {"distorted": 8, "fisheye": 4}.get(lens, 0)
    shapes = {"viewmat": [4, 4], "intrinsics": [3, 3], "distortion": [length]}
    return [
        s.input(name, shape, lambda n, name=name: camera_values(s.rng, name, lens, length))  # type: ignore[misc]
        for name, shape in shapes.items()
    ]


def _means(s: Sketch) -> tuple[ir.Value, list[np.ndarray]]:
    """Means before the camera and behind it, and what was drawn for them."""
    drawn: list[np.ndarray] = []

    def draw(count: int) -> np.ndarray:
        made = uniform(s.rng, -1.3, 1.3, (count, 3))
        made[:, 2] = [s.rng.uniform(1.2, 4) if s.rng.random() < 0.85 else -1.0 for _ in range(count)]
        drawn.append(_spoiled(s.rng, made, (math.nan, math.inf)))
        return drawn[-1]

    return s.input("means", ["N", 3], draw), drawn


def _spoiled(rng: random.Random, array: np.ndarray, values: tuple[float, ...]) -> np.ndarray:
    """Now and then one element is something else."""
    if array.size and rng.random() < 0.1:
        array.flat[rng.randrange(array.size)] = rng.choice(values)
    return array


def _project(s: Sketch) -> Built:
    lens = s.rng.choice(LENSES)
    rays = s.rng.random() < 0.4 and lens in ("pinhole", "ortho")
    means, _ = _means(s)
    quats = s.input("quats", ["N", 4], lambda n: _spoiled(s.rng, uniform(s.rng, -1, 1, (n, 4)), (math.nan, 0.0)))
    scales = s.input("scales", ["N", 3], lambda n: _spoiled(s.rng, uniform(s.rng, 0.1, 0.9, (n, 3)), (math.inf, 0.0)))
    opacities = s.input("opacities", ["N"], lambda n: _spoiled(s.rng, uniform(s.rng, 0.1, 1, (n,)), (0.0, -1.0, 0.001)))
    viewmat, intrinsics, distortion = _camera(s, lens)
    clip = s.input("clip", [2], lambda n: np.array([s.rng.choice((0.01, 1.5)), s.rng.choice((3.0, 1e10))], np.float32))
    made = ir.splat_project(
        means, quats, scales, opacities, viewmat, intrinsics, clip, distortion,
        width=WIDTH, height=HEIGHT, camera_model="pinhole" if lens == "distorted" else lens,
        projection="ray" if rays else "ewa", antialiased=not rays and s.rng.random() < 0.4,
        eps2d=s.rng.choice((0.3, 0.05)), alpha_cutoff=s.rng.choice((1 / 255, 0.05, 0.0)),
    )  # fmt: skip
    carry = ["means2d", "conics", "depths", "compensation"]
    return made._asdict(), carry, ["means", "quats", "scales", "viewmat", "intrinsics", "distortion"]


def _sh(s: Sketch) -> Built:
    degree, channels = s.rng.choice((0, 1, 2)), s.rng.choice((1, 2, 3, 5))
    count = (degree + 1) ** 2 + s.rng.choice((0, 0, 2))
    means, drawn = _means(s)
    wrong = (math.nan, math.inf, -math.inf)
    sh = s.input(
        "sh", ["N", count, channels], lambda n: _spoiled(s.rng, uniform(s.rng, -0.9, 0.9, (n, count, channels)), wrong)
    )
    viewmat = s.input("viewmat", [4, 4], lambda n: camera_values(s.rng, "viewmat", "pinhole", 0))

    def radii(count: int) -> np.ndarray:
        """Visible or not; never visible where splat_project would not have it."""
        finite = np.isfinite(drawn[-1]).all(axis=1)
        made = np.array([s.rng.choice((0, 3, 9)) for _ in range(count)], np.int32) * finite
        return np.column_stack([made, made]).astype(np.int32)

    given = s.input("radii", ["N", 2], radii, "i32")
    return {"colors": ir.splat_sh(means, sh, viewmat, given, degree)}, ["colors"], ["means", "sh", "viewmat"]


def _footprints(s: Sketch, projection: str, cutoff: float) -> list[ir.Value]:
    """means2d, conics and opacities that a projection could have made, and now and then what it could not."""
    wrong = (math.nan, math.inf, -1.0)
    means2d = s.input(
        "means2d", ["N", 2], lambda n: _spoiled(s.rng, uniform(s.rng, -1, WIDTH + 1, (n, 2)), (math.nan, 1e4))
    )

    def conics(count: int) -> np.ndarray:
        made = uniform(s.rng, 0.1, 0.6, (count, 3))
        made[:, 1] = [s.rng.uniform(-0.7, 0.7) * math.sqrt(a * c) for a, _, c in made.tolist()]
        if projection == "ray":
            rest = uniform(s.rng, -0.01, 0.01, (count, 5))
            rest[:, [2, 4]] = np.abs(rest[:, [2, 4]])
            made = np.concatenate([made, rest], axis=1)
        return _spoiled(s.rng, made, wrong)

    conic = s.input("conics", ["N", 3 if projection == "ewa" else 8], conics)
    odd = (*wrong, 1.0, 0.0 if cutoff else -0.5)  # without a cutoff, the derivative at 0 is another on either side
    opacities = s.input("opacities", ["N"], lambda n: _spoiled(s.rng, uniform(s.rng, 0.1, 1, (n,)), odd))
    return [means2d, conic, opacities]


def _rasterize(s: Sketch) -> Built:
    projection, features = s.rng.choice(("ewa", "ewa", "ray")), s.rng.choice((1, 2, 3, 4, 5, 6))
    size, cutoff = s.rng.choice((3, 4, 16)), s.rng.choice((1 / 255, 0.05, 0.0))
    tiles = ir.tile_count(WIDTH, HEIGHT, size)
    footprints = _footprints(s, projection, cutoff)
    colors = s.input(
        "features", ["N", features],
        lambda n: _spoiled(s.rng, uniform(s.rng, -1, 1, (n, features)), (math.nan, math.inf, -math.inf)),
    )  # fmt: skip
    background = s.input("background", [features], lambda n: uniform(s.rng, 0, 1, (features,)))
    lists: list[list[int]] = []

    def ranges(count: int) -> np.ndarray:
        """Each tile's list, a few Gaussians in any order; the ids are drawn next, and join them."""
        lists[:] = [s.rng.sample(range(count), s.rng.randint(0, count)) for _ in range(tiles)]
        ends = np.cumsum([len(ids) for ids in lists])
        return np.column_stack([np.concatenate([[0], ends[:-1]]), ends]).astype(np.int32)

    def ids(count: int) -> np.ndarray:
        made = np.array([i for own in lists for i in own], np.int32)
        if made.size and s.rng.random() < 0.04:
            made[s.rng.randrange(made.size)] = s.rng.choice((-1, count, 2**31 - 1))
        return made

    tile_ranges = s.input("tile_ranges", [tiles, 2], ranges, "i32")
    sorted_ids = s.input("sorted_ids", ["E"], ids, "i32")
    made = ir.splat_rasterize(
        *footprints, colors, background, tile_ranges, sorted_ids, width=WIDTH, height=HEIGHT, tile_size=size,
        projection=projection, alpha_cutoff=cutoff,
        transmittance_threshold=s.rng.choice((1e-4, 0.3, 0.0)), max_splat_steps=s.rng.choice((0, 0, 1, 2)),
    )  # fmt: skip
    wrt = ["means2d", "conics", "opacities", "features", "background"]
    return made._asdict(), ["image", "alpha"], wrt


def _bin(s: Sketch) -> Built:
    projection = s.rng.choice(("ewa", "ewa", "ray"))
    conic = 3 if projection == "ewa" else 8

    def conics(count: int) -> np.ndarray:
        made = np.zeros((count, conic), np.float32)
        made[:, [0, 2]] = uniform(s.rng, 0.1, 3, (count, 2))
        made[:, 1] = [s.rng.uniform(-0.8, 0.8) * math.sqrt(float(a * c)) for a, c in made[:, [0, 2]]]
        if projection == "ray":
            made[:, 3:] = uniform(s.rng, -0.01, 0.01, (count, 5))
        return made

    def radii(count: int) -> np.ndarray:
        """Both 0 where a Gaussian is culled."""
        made = uniform(s.rng, 1, 9, (count, 2)).astype(np.int32)
        return made * np.array([[s.rng.random() < 0.8] for _ in range(count)], np.int32).reshape(count, 1)

    values = [
        s.input("means2d", ["N", 2], lambda n: uniform(s.rng, -1, WIDTH + 1, (n, 2))),
        s.input("conics", ["N", conic], conics),
        s.rows("opacities", (), 0.1, 1.0),
        s.input("radii", ["N", 2], radii, "i32"),
        s.input("depths", ["N"], lambda n: np.array([s.rng.choice((1.0, 1.5, 2.25)) for _ in range(n)], np.float32)),
    ]
    made = ir.splat_bin(
        *values, width=WIDTH, height=HEIGHT, tile_size=s.rng.choice((1, 3, 4, 16)), projection=projection,
        alpha_cutoff=s.rng.choice((1 / 255, 0.05, 0.0)), max_list_entries=s.rng.choice((0, 0, 5)),
    )  # fmt: skip
    return made._asdict(), [], []
