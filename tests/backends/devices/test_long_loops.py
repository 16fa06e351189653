"""Loops that go further than some devices let them (Mesa's software device: 65,535 rounds of a thread)."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import session_on
from scenes import OPERANDS, Scene, random_scene
from stipple import ir
from stipple.backends.gpu import reduction
from stipple.backends.gpu.device import Gpu
from stipple.errors import DeviceError
from stipple.runtime import Session

Results = dict[str, np.ndarray]
LEARNED = ("means", "scales", "opacities", "colors")


def crowded(count: int, channels: int, projection: str) -> Scene:
    """Faint Gaussians, all of them in one tile."""
    rng = np.random.default_rng(3)
    scene = random_scene(3, count=count, width=16, height=16, channels=channels, projection=projection)
    spread = np.column_stack([rng.uniform(-0.1, 0.1, (count, 2)), rng.uniform(3.9, 4.1, count)])
    return scene.with_(
        means=spread, quats=np.tile([1.0, 0, 0, 0], (count, 1)), scales=np.full((count, 3), 0.3),
        opacities=np.full(count, 0.0045), viewmat=np.eye(4), intrinsics=[[30, 0, 8], [0, 30, 8], [0, 0, 1]],
    )  # fmt: skip


def drawn(session: Session, scene: Scene, gradients: bool = True) -> Results:
    """Image, depth and gradients."""
    graph = ir.Graph("t")
    values = {n: graph.input(n, scene.arrays[n].shape) for n in OPERANDS}
    image = ir.splat_render(*values.values(), **scene.attrs)
    graph.output("rgba", image.rgba)
    graph.output("depth", image.depth)
    if gradients:
        shape = (scene.attrs["height"], scene.attrs["width"], scene.arrays["background"].size + 1)
        weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        loss = ir.sum(image.rgba * graph.constant(weights)) + ir.mean(image.depth)
        for name, value in zip(LEARNED, ir.grad(graph, loss, [values[n] for n in LEARNED]), strict=True):
            graph.output(name, value)
    return session.compile(graph).run(scene.feeds(np.float32))


def assert_close(got: Results, wanted: Results, tolerance: float) -> None:
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("channels", [3, 7])
@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_gradients_of_a_crowded_tile(projection: str, channels: int, gpu_session: Session) -> None:
    scene = crowded(6000, channels, projection)
    assert_close(drawn(gpu_session, scene), drawn(session_on("cpu"), scene), 2e-5)


def test_an_image_of_a_crowded_tile(gpu_session: Session) -> None:
    scene = crowded(70_000, 3, "ewa")
    assert_close(drawn(gpu_session, scene, False), drawn(session_on("cpu"), scene, False), 1e-5)


@pytest.mark.filterwarnings("ignore::stipple.errors.LimitWarning")
@pytest.mark.parametrize("most_steps", [0, 3])
@pytest.mark.parametrize("tile_size", [1, 16, 20])
def test_parts_make_what_the_whole_does(
    tile_size: int, most_steps: int, gpu_session: Session, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = random_scene(5, count=60, width=40, height=12, tile_size=tile_size, max_splat_steps=most_steps)
    monkeypatch.setattr(gpu, "loop_limit", 0)
    whole = drawn(gpu_session, scene)
    monkeypatch.setattr(gpu, "loop_limit", 200)
    in_parts = drawn(gpu_session, scene)
    assert_close(in_parts, whole, 1e-6)


def test_too_many_tiles_are_refused(gpu_session: Session, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "loop_limit", 40)
    with pytest.raises(
        DeviceError, match="ends loops after 40 iterations, too few for 40 x 12 tiles; use larger tiles"
    ):
        drawn(gpu_session, random_scene(5, width=40, height=12, tile_size=1), False)


@pytest.mark.parametrize("count", [0, 1, 16_384, 16_385, 70_000])
def test_long_sums_by_index(count: int, gpu_session: Session) -> None:
    graph = ir.Graph("t")
    base, ids = graph.input("base", [2, 3]), graph.input("ids", ["N"], "i32")
    graph.output("sums", ir.scatter_add(base, ids, graph.input("rows", ["N", 3])))
    feeds = {"base": np.ones((2, 3), np.float32), "ids": np.ones(count, np.int32)}
    sums = gpu_session.compile(graph).run({**feeds, "rows": np.ones((count, 3), np.float32)})["sums"]
    np.testing.assert_array_equal(sums, [[1] * 3, [count + 1] * 3])


def test_long_products(gpu_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "LONGEST", 1000)
    graph = ir.Graph("t")
    graph.output("c", ir.matmul(graph.input("a", [2, 3500]), graph.input("b", [3500, 3])))
    a, b = np.ones((2, 3500), np.float32), np.ones((3500, 3), np.float32)
    np.testing.assert_array_equal(gpu_session.compile(graph).run({"a": a, "b": b})["c"], np.full((2, 3), 3500))
