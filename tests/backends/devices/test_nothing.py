"""Arrays without elements, and too many of them, on every device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from backends.devices.held_to_reference import gradients, render_on, rounded
from scenes import loss_weights, random_scene, render
from stipple import ir
from stipple.errors import DeviceError
from stipple.runtime import Session


def ids(x: ir.Value, *rows: int) -> ir.Value:
    return x.graph.constant(np.array(rows, np.int32))


CASES: dict[str, tuple[Callable[..., ir.Value], Sequence[tuple[int, ...]]]] = {
    "exp": (ir.exp, [(0, 3)]),
    "add": (lambda a, b: a + b, [(0, 3), (1, 3)]),
    "mul": (lambda a, b: a * b, [(3, 0), (1, 1)]),
    "where": (lambda a, b: ir.where(a < b, a, b), [(0, 3), (3,)]),
    "full": (lambda x: ir.full_like(x, 1.0), [(0, 3)]),
    "sum of rows": (lambda x: ir.sum(x, 0), [(0, 3)]),
    "sums of nothing": (lambda x: ir.sum(x, 1), [(0, 3)]),
    "sum": (ir.sum, [(0, 3)]),
    "mean": (lambda x: ir.mean(x, 0), [(0, 3)]),
    "reduce_max": (lambda x: ir.reduce_max(x, 1), [(0, 3)]),
    "reduce_min": (lambda x: ir.reduce_min(x, 0), [(3, 0)]),
    "matmul without rows": (lambda a, b: a @ b, [(0, 3), (3, 2)]),
    "matmul without terms": (lambda a, b: a @ b, [(2, 0), (0, 2)]),
    "matmul without columns": (lambda a, b: a @ b, [(2, 3), (3, 0)]),
    "transpose": (ir.transpose, [(0, 3)]),
    "reshape": (lambda x: ir.reshape(x, [3, 0]), [(0, 3)]),
    "broadcast": (lambda x: ir.broadcast_to(x, [4, 0, 3]), [(1, 3)]),
    "narrow": (lambda x: ir.narrow(x, 0, 1, 0), [(4, 3)]),
    "pad": (lambda x: ir.pad(x, 0, 1, 2), [(0, 3)]),
    "pad without columns": (lambda x: ir.pad(x, 0, 1, 2), [(3, 0)]),
    "concat": (lambda a, b: ir.concat([a, b], 0), [(0, 3), (2, 3)]),
    "gather nothing": (lambda x: ir.gather(x, ids(x)), [(4, 3)]),
    "gather from nothing": (lambda x: ir.gather(x, ids(x)), [(0, 3)]),
    "gather empty rows": (lambda x: ir.gather(x, ids(x, 1, 2)), [(4, 0)]),
    "scatter_add of nothing": (lambda a, b: ir.scatter_add(a, ids(a), b), [(4, 3), (0, 3)]),
    "scatter_add to nothing": (lambda a, b: ir.scatter_add(a, ids(a), b), [(0, 3), (0, 3)]),
    "scatter_add of empty rows": (lambda a, b: ir.scatter_add(a, ids(a, 1, 2), b), [(4, 0), (2, 0)]),
}


@pytest.mark.parametrize("name", CASES)
def test_ops_on_nothing(name: str, session: Session) -> None:
    build, shapes = CASES[name]
    graph = ir.Graph("t")
    values = [graph.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    out = build(*values)
    graph.output("out", out)
    for i, v in enumerate(ir.grad(graph, ir.sum(out), values)):
        graph.output(f"v{i}", v)
    feeds = {f"x{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}
    given, wanted = (s.compile(graph, passes=[]).run(feeds) for s in (session, Session("reference")))
    for key, array in wanted.items():
        np.testing.assert_array_equal(given[key], array, err_msg=key)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("missing", ["gaussians", "channels"])
def test_rendering_nothing(missing: str, fused: bool, session: Session) -> None:
    """No Gaussians, or Gaussians of no colour: depth and coverage are drawn."""
    scene = rounded(random_scene(3, count=4))
    arrays = scene.arrays
    if missing == "channels":
        scene = scene.with_(colors=arrays["colors"][:, :0], background=np.zeros(0))
    else:
        scene = scene.with_(**{n: arrays[n][:0] for n in ("means", "quats", "scales", "opacities", "colors")})
    weights = loss_weights(scene)
    given = gradients(scene, session, "f32", weights, fused)
    for name, wanted in gradients(scene, Session("reference"), "f64", weights).items():
        np.testing.assert_allclose(given[name], wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_more_features_than_the_gpu_draws(gpu_session: Session) -> None:
    scene = random_scene(3, count=4, channels=2000)
    for fused in (False, True):
        with pytest.raises(
            DeviceError, match=r"splat_\w+: each Gaussian has 2001 features, the GPU draws at most 512 at once"
        ):
            gradients(scene, gpu_session, "f32", loss_weights(scene), fused)


def test_as_many_features_as_the_gpu_draws(gpu_session: Session) -> None:
    scene = rounded(random_scene(3, count=4, channels=511, width=10, height=10))
    given, wanted = render_on(scene, gpu_session), render(scene)
    np.testing.assert_allclose(given["rgba"], wanted["rgba"], atol=1e-4)
