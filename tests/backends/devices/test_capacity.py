"""Capacities that are estimated: after an overflow the run is repeated, nothing is lost, and nobody waits to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from backends.devices.stepping import stepper_on
from scenes import Scene, random_scene
from stipple import ir
from stipple.backends.gpu.capacity import Capacity
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.readback import batches
from stipple.errors import InputError
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Value
from stipple.ir.op import REGISTRY
from stipple.runtime import Executable, Session

SPLATS = ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "background")
COUNT, WIDTH, HEIGHT = 300, 90, 70


@contextmanager
def collected(session: Session, report: Callable[[bool], None]) -> Iterator[None]:
    """Tells, for each run tried inside, whether it was right."""
    original = session.backend.collect

    def collect(wanted: Any) -> Any:
        arrays = original(wanted)
        report(arrays is not None)
        return arrays

    session.backend.collect = collect  # type: ignore[method-assign]
    try:
        yield
    finally:
        del session.backend.collect  # type: ignore[method-assign]


def underestimate(gpu: Gpu) -> None:
    """Expect almost nothing, so that the next run overflows."""
    estimates = gpu.runs.capacity.estimates
    assert estimates
    estimates.update(dict.fromkeys(estimates, 1))


def rendered(graph: Graph, scene: Scene) -> tuple[dict[str, Value], Value]:
    values = {n: graph.input(n, scene.arrays[n].shape) for n in SPLATS}
    rgba, _ = ir.splat_render(*(values[n] for n in SPLATS), width=WIDTH, height=HEIGHT)
    return values, ir.mean(ir.square(rgba))


def test_capacity_grows(gpu_session: Session) -> None:
    """A frame with more entries than estimated is rendered again."""
    scene = random_scene(10, count=COUNT, width=WIDTH, height=HEIGHT)
    graph = Graph("t")
    values, loss = rendered(graph, scene)
    kept = graph.param("kept", [COUNT, 3], "f32", np.zeros((COUNT, 3), np.float32))
    graph.output("loss", loss)
    graph.update(kept, kept + ir.grad(graph, loss, [values["means"]])[0])
    executables = [s.compile(graph) for s in (gpu_session, Session("cpu"))]
    tried: list[bool] = []
    with collected(gpu_session, tried.append):
        for factor in (0.3, 0.3, 4.0, 4.0, 0.1):
            feeds = {**scene.feeds(np.float32), "scales": (factor * scene.arrays["scales"]).astype(np.float32)}
            given, wanted = (float(e.run(feeds)["loss"]) for e in executables)
            assert given == pytest.approx(wanted, rel=1e-4)
    assert tried == [True, True, False, True, True, True], "the first large frame ran twice"
    given_kept, wanted_kept = (e.get_param("kept") for e in executables)
    np.testing.assert_allclose(given_kept, wanted_kept, rtol=1e-3, atol=1e-3 * np.abs(wanted_kept).max())


def overwriting_graph(scene: Scene) -> Graph:
    """A render's gradient goes into parameters by every op that may overwrite them."""
    graph, rng = Graph("t"), np.random.default_rng(0)
    values, loss = rendered(graph, scene)
    grad = ir.grad(graph, loss, [values["means"]])[0]

    def param(name: str, shape: tuple[int, ...]) -> Value:
        return graph.param(name, shape, "f32", rng.normal(size=shape).astype(np.float32))

    step = graph.input("step", [])
    for name, visible in (("adam", None), ("adam_visible", ir.less(0.5, values["opacities"]))):
        state = [param(f"{name}_{n}", (COUNT, 3)) for n in ("param", "m", "v")]
        update = ir.adam(state[0], grad, state[1], state[2], 0.1, step, visible=visible)
        for old, new in zip(state, update, strict=True):
            graph.update(old, new)
    moved = param("splat_noise", (COUNT, 3))
    key = graph.input("key", [2], "i32")
    amount = 1e3 * ir.sum(ir.abs(grad))
    graph.update(moved, ir.splat_noise(moved, values["quats"], values["scales"], values["opacities"], amount, key))
    table = param("scatter_add", (5, 3))
    graph.update(table, ir.scatter_add(table, graph.input("ids", [COUNT], "i32"), grad))
    summed = param("elementwise", (COUNT, 3))
    graph.update(summed, summed + grad)
    graph.output("loss", loss)
    return graph


def test_no_overwriting_op_was_forgotten() -> None:
    """The graph of the next test has every op that may write over an operand."""
    overwriting = {name for name, op in REGISTRY.items() if op.inplace and not op.elementwise}
    assert overwriting == {"adam", "adam_visible", "splat_noise", "scatter_add"}


def test_parameters_wait_for_enough_capacity(gpu_session: Session, gpu: Gpu) -> None:
    """The device itself holds back what would overwrite parameters; the host hears of the overflow afterwards."""
    scene = random_scene(10, count=COUNT, width=WIDTH, height=HEIGHT)
    graph = overwriting_graph(scene)
    feeds = {
        **scene.feeds(np.float32), "step": np.float32(1), "key": np.array([1, 2], np.int32),
        "ids": (np.arange(COUNT) % 5).astype(np.int32),
    }  # fmt: skip

    def params(of: Executable) -> dict[str, np.ndarray]:
        return {n: of.get_param(n) for n in graph.params}

    wanted = gpu_session.compile(graph)
    started = params(wanted)
    wanted.run(feeds)
    wanted.run(feeds)
    given = gpu_session.compile(graph)
    given.run(feeds)
    before = params(given)
    tried: list[tuple[bool, dict[str, np.ndarray]]] = []
    underestimate(gpu)
    with collected(gpu_session, lambda right: tried.append((right, params(given)))):
        given.run(feeds)
    assert [right for right, _ in tried] == [False, True]
    held, overwritten = (values for _, values in tried)
    for name, array in before.items():
        np.testing.assert_array_equal(held[name], array, err_msg=f"{name} after the run that overflowed")
        assert (array != started[name]).any(), f"{name} does change"
        assert (overwritten[name] != array).any(), f"{name} is overwritten in place"
        np.testing.assert_array_equal(given.get_param(name), wanted.get_param(name), err_msg=name)


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_a_step_is_submitted_once_and_waited_for_once(gpu_session: Session, gpu: Gpu, strategy: str) -> None:
    stepper, frames = stepper_on(gpu_session, strategy, 100)
    for step in (1, 2):  # the first makes the sizes known
        stepper.run(step, step, frames[step])
    gpu.stream.pace.current = gpu.stream.pace.maximum  # as after some quick steps
    submits, waits = gpu.stream.submits, gpu.stream.waits
    for step in range(3, 9):
        stepper.run(step, step % 3, frames[step % 3])
    assert gpu.stream.waits - waits == 6
    assert gpu.stream.submits - submits == 6


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_steps_that_overflowed_leave_no_trace(gpu_session: Session, gpu: Gpu, strategy: str) -> None:
    ends = []
    for small in (False, True):
        stepper, frames = stepper_on(gpu_session, strategy, 100)
        tried: list[bool] = []
        with collected(gpu_session, tried.append):
            for step in range(1, 10):
                if small and step % 3 == 0:
                    underestimate(gpu)
                stepper.run(step, step % 4, frames[step % 4])
        assert tried.count(False) == (3 if small else 0)
        ends.append(stepper.arrays())
    for name, array in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], array, err_msg=name)


def test_more_entries_than_can_be_numbered(gpu_session: Session) -> None:
    """Found after the frame was submitted: an error, and the parameters are as they were."""
    count, size = 150_000, 2048
    graph = Graph("t")
    one = {"quats": [1, 0, 0, 0], "colors": [1, 1, 1], "means": [0, 0, 2]}
    arrays = {n: np.tile(np.array(row, np.float32), (count, 1)) for n, row in one.items()}
    arrays["opacities"] = np.full(count, 0.5, np.float32)
    intrinsics = [[500, 0, size / 2], [0, 500, size / 2], [0, 0, 1]]
    values = {n: graph.constant(a) for n, a in arrays.items()}
    values["viewmat"] = graph.constant(np.eye(4, dtype=np.float32))
    values["background"] = graph.constant(np.zeros(3, np.float32))
    values["intrinsics"] = graph.constant(np.array(intrinsics, np.float32))
    values["scales"] = ir.broadcast_to(graph.input("scales", []), [count, 3])
    rgba, _ = ir.splat_render(*(values[n] for n in SPLATS), width=size, height=size)
    runs = graph.param("runs", [], "f32", np.float32(0))
    graph.update(runs, runs + ir.reduce_max(rgba))
    executable = gpu_session.compile(graph)
    executable.run({"scales": np.float32(1e-6)})
    executable.run({"scales": np.float32(1e-6)})
    before = executable.get_param("runs")
    assert before > 0
    with pytest.raises(InputError, match="more tile entries than can be numbered"):
        executable.run({"scales": np.float32(100)})
    assert executable.get_param("runs") == before
    executable.run({"scales": np.float32(1e-6)})
    assert executable.get_param("runs") == pytest.approx(1.5 * before)


def test_estimates_have_a_surplus_where_the_device_can_hold_it() -> None:
    capacity = Capacity(largest=64_000_000)
    estimates = []
    for size in (0, 10_000, 10_100, 9_900, 10_000, 50_000, 10_000, 850_000, 10_000, 1_000_000, 1_200_000, 10_000):
        capacity.learn("key", size)
        estimates.append(capacity.estimates["key"])
        assert estimates[-1] >= size
    assert len(set(estimates[1:5])) == 1, "it does not follow every change"
    assert 1.25 * 50_000 <= estimates[5] <= 1.5 * 50_000
    assert estimates[6] == pytest.approx(estimates[5], rel=0.15), "it falls slowly"
    assert estimates[7:] == [1_000_000, 1_000_000, 1_000_000, 1_200_000, 1_000_000]
    for _ in range(500):
        capacity.learn("key", 10_000)
    assert capacity.estimates["key"] < 20_000


def test_results_come_together(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [np.arange(7, dtype=np.float32), np.zeros((0, 3), np.int32), np.array([True, False]), np.int32(-5)]
    dtypes = (DType.F32, DType.I32, DType.BOOL, DType.I32)
    wanted = [(gpu.memory.upload(np.asarray(a), d), d) for a, d in zip(arrays, dtypes, strict=True)]
    for largest, waits in ((gpu.memory.largest, 1), (32, 2)):
        monkeypatch.setattr(gpu.memory, "largest", largest)
        before = gpu.stream.waits
        for given, array in zip(gpu.memory.download_all(wanted), arrays, strict=True):
            np.testing.assert_array_equal(given, array)
            assert given.dtype == np.asarray(array).dtype
            assert given.flags.writeable
        assert gpu.stream.waits - before == waits
    assert gpu.memory.download_all([]) == []


def test_batches_hold_no_more_than_the_device_allows(gpu: Gpu) -> None:
    buffers = [gpu.memory.allocate((n,), DType.F32) for n in (10, 10, 5, 25, 1, 0)]
    made = batches(buffers, 100)
    assert [b.size for part in made for b in part] == [b.size for b in buffers]
    assert [sum(b.size for b in part) for part in made] == [25, 25, 1]
