"""Operands that an op does not accept, known to the device alone: one sentence, the host's, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from backends.devices.test_capacity import collected, underestimate
from scenes import OPERANDS, random_scene
from stipple import ir
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.faults import BOARD, UNTOUCHED, Faults
from stipple.backends.gpu.kernels import Kernel
from stipple.errors import InputError
from stipple.ir.dtype import DType
from stipple.runtime import Executable, Session

INF, NAN = float("inf"), float("nan")
Feeds = Mapping[str, Any]
Graphs = Callable[[], tuple[ir.Graph, Feeds, Feeds]]
"""A graph, feeds that it runs on, and feeds by which an op gets a bad operand."""


def computed(x: ir.Value, fed: ir.Value) -> ir.Value:
    """A value that the host does not know."""
    return ir.cast(ir.cast(x, "f32") + fed, x.dtype)


def gathering() -> tuple[ir.Graph, Feeds, Feeds]:
    graph = ir.Graph("t")
    ids = computed(graph.constant(np.array([[0, 3], [1, 2]], np.int32)), graph.input("by", []))
    graph.output("rows", ir.gather(graph.input("table", [4, 2]), ids))
    table = np.ones((4, 2), np.float32)
    return graph, {"table": table, "by": 0.0}, {"table": table, "by": 7.0}


def scattering() -> tuple[ir.Graph, Feeds, Feeds]:
    graph = ir.Graph("t")
    table = graph.param("table", [4, 2], "f32", np.ones((4, 2), np.float32))
    ids = computed(graph.constant(np.array([0, 2], np.int32)), graph.input("by", []))
    graph.update(table, ir.scatter_add(table, ids, graph.input("rows", [2, 2])))
    rows = np.ones((2, 2), np.float32)
    return graph, {"rows": rows, "by": 1.0}, {"rows": rows, "by": -1.0}


def long_list_of_ids() -> tuple[ir.Graph, Feeds, Feeds]:
    graph = ir.Graph("t")
    graph.output("rows", ir.gather(graph.input("table", ["V", 2]), graph.input("ids", ["N"], "i32")))
    ids = np.arange(5000, dtype=np.int32) % 4
    bad = ids.copy()
    bad[[17, 900, 4000]] = -2, 2**31 - 1, -(2**31)
    return graph, *({"table": np.ones((4, 2), np.float32), "ids": i} for i in (ids, bad))


def ids_of_no_rows() -> tuple[ir.Graph, Feeds, Feeds]:
    graph, good, _ = long_list_of_ids()
    return graph, good, {**good, "table": np.ones((0, 2), np.float32)}


def learning(lr: float, step: float, bad_lr: float, bad_step: float, rates: tuple[int, ...] = ()) -> Graphs:
    """Adam on two parameters of which the second is at fault; a third is overwritten as well."""

    def build() -> tuple[ir.Graph, Feeds, Feeds]:
        graph, rng = ir.Graph("t"), np.random.default_rng(0)
        zero = graph.input("zero", [])
        grad = graph.input("grad", [5, *rates])
        count = graph.input("count", [])
        count = ir.where(zero > 0.0, count, count * 1.0 + zero)
        rate = graph.input("lr", rates)
        given = [(ir.full_like(rate, lr), graph.constant(1.0, "f32")), (rate + zero, count)]
        for name, (r, s) in zip("ab", given, strict=True):
            state = [graph.param(f"{name}{k}", [5, *rates], "f32", rng.normal(size=(5, *rates)).astype(np.float32))
                     for k in range(3)]  # fmt: skip
            made = ir.adam(state[0], grad, state[1], ir.square(state[2]), r, s)
            for old, new in zip(state, made, strict=True):
                graph.update(old, new)
        total = graph.param("total", [5, *rates], "f32", np.zeros((5, *rates), np.float32))
        graph.update(total, total + grad)
        feeds = {"zero": 0.0, "grad": np.ones((5, *rates), np.float32)}
        bad = np.full(rates, lr, np.float32)
        bad[rates and (0,) * (len(rates) - 1) + (rates[-1] - 1,)] = bad_lr
        return (
            graph,
            {**feeds, "lr": np.full(rates, lr, np.float32), "count": step},
            {**feeds, "lr": bad, "count": bad_step},
        )

    return build


def drawing(name: str, place: tuple[int, ...], value: float) -> Graphs:
    """A view whose camera or background is computed."""

    def build() -> tuple[ir.Graph, Feeds, Feeds]:
        scene = random_scene(3, count=20)
        graph = ir.Graph("t")
        values = {n: graph.input(n, scene.arrays[n].shape) for n in OPERANDS}
        change = graph.input("change", scene.arrays[name].shape)
        rgba, _ = ir.splat_render(
            *(values[n] + change if n == name else values[n] for n in OPERANDS), width=20, height=14
        )
        total = graph.param("total", rgba.shape, "f32", np.zeros((14, 20, 4), np.float32))
        graph.update(total, total + rgba)
        good = np.zeros_like(scene.arrays[name], np.float32)
        bad = good.copy()
        bad[place] = value
        feeds = scene.feeds(np.float32)
        return graph, {**feeds, "change": good}, {**feeds, "change": bad}

    return build


def compositing(ranges: list[list[int]], ids: list[int]) -> Graphs:
    """Lists that no splat_bin has made."""

    def build() -> tuple[ir.Graph, Feeds, Feeds]:
        graph = ir.Graph("t")
        shapes = {"means2d": [4, 2], "conics": [4, 3], "opacities": [4], "features": [4, 3], "background": [3]}
        values = [graph.input(n, s) for n, s in shapes.items()]
        zero = graph.input("zero", [])
        lists = [graph.input("ranges", [1, 2], "i32"), graph.input("ids", ["E"], "i32")]
        operands = [*values, *(computed(v, zero) for v in lists)]
        graph.output("image", ir.splat_rasterize(*operands, width=8, height=8).image)
        feeds = {"zero": 0.0, **{n: np.ones(s, np.float32) for n, s in shapes.items()}}
        good = {"ranges": np.array([[0, 2]], np.int32), "ids": np.array([0, 3], np.int32)}
        return graph, {**feeds, **good}, {**feeds, "ranges": np.array(ranges, np.int32), "ids": np.array(ids, np.int32)}

    return build


CASES: dict[str, tuple[Graphs, str]] = {
    "gather": (gathering, "gather: ids must be between 0 and 3, got 7 to 10"),
    "scatter_add": (scattering, "scatter_add: ids must be between 0 and 3, got -1 to -1"),
    "many ids": (long_list_of_ids, "gather: ids must be between 0 and 3, got -2147483648 to 2147483647"),
    "no rows": (ids_of_no_rows, "gather: there are no rows, so there must be no ids, got 0 to 3"),
    "rate": (learning(0.1, 1, NAN, 1), "adam: lr must be finite; got nan"),
    "rates": (learning(0.1, 1, -INF, 1, (2, 3)), "adam: lr must be finite; element [0, 2] is -inf"),
    "step 0": (learning(0.1, 1, 0.1, 0), "adam: step counts from 1, got 0"),
    "negative step": (learning(0.1, 3, 0.1, -2.5), "adam: step counts from 1, got -2.5"),
    "infinite step": (learning(0.1, 3, 0.1, INF), "adam: step must be finite; got inf"),
    "viewmat": (drawing("viewmat", (1, 2), INF), "splat_project: viewmat must be finite; element [1, 2] is inf"),
    "last row": (drawing("viewmat", (3, 0), 0.5), "viewmat: the last row must be 0 0 0 1, got [0.5 0.  0.  1. ]"),
    "focal": (drawing("intrinsics", (1, 1), -20), "intrinsics: focal lengths must be positive, got [16.0, -2.5]"),
    "background": (drawing("background", (1,), NAN), "splat_rasterize: background must be finite; element [1] is nan"),
    "sorted_ids": (compositing([[0, 2]], [0, 4]), "splat_rasterize: sorted_ids must be between 0 and 3"),
    "tile_ranges": (compositing([[0, 3]], [0, 1]), "splat_rasterize: tile_ranges must be between 0 and 2, ascending"),
    "falling ranges": (
        compositing([[2, 1]], [0, 1]),
        "splat_rasterize: tile_ranges must be between 0 and 2, ascending",
    ),
}  # fmt: skip


def params(of: Executable) -> dict[str, np.ndarray]:
    return {n: of.get_param(n) for n in of.graph.params}


@pytest.mark.parametrize("name", CASES)
def test_bad_operands_are_reported_and_change_nothing(name: str, session: Session) -> None:
    build, sentence = CASES[name]
    graph, good, bad = build()
    executable = session.compile(graph, passes=[])
    executable.run(good)
    before = params(executable)
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            executable.run(bad)
        assert str(caught.value) == sentence
        for key, array in before.items():
            np.testing.assert_array_equal(executable.get_param(key), array, err_msg=key)
    given = executable.run(good)
    once_more = session.compile(graph, passes=[])
    once_more.run(good)
    for key, array in once_more.run(good).items():
        np.testing.assert_array_equal(given[key], array, err_msg=f"{key} after the fault")
    for key, array in params(once_more).items():
        np.testing.assert_array_equal(executable.get_param(key), array, err_msg=f"{key} after the fault")


@pytest.mark.parametrize("name", CASES)
def test_what_is_right_costs_no_stall(name: str, gpu_session: Session, gpu: Gpu) -> None:
    graph, good, _ = CASES[name][0]()
    executable = gpu_session.compile(graph, passes=[])
    executable.run(good)
    executable.run(good)
    gpu.stream.pace.current = gpu.stream.pace.maximum
    submits, waits = gpu.stream.submits, gpu.stream.waits
    executable.run(good)
    assert (gpu.stream.submits - submits, gpu.stream.waits - waits) == (1, 1)


def test_the_device_does_not_look_at_what_the_host_knows(
    gpu_session: Session, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = ir.Graph("t")
    table = graph.param("table", [4, 3], "f32", np.ones((4, 3), np.float32))
    graph.output("rows", ir.gather(table, graph.input("ids", [2], "i32")))
    graph.output("nothing", ir.gather(table, graph.input("none", ["K"], "i32")))
    m, v, grad = (graph.input(n, [4, 3]) for n in ("m", "v", "grad"))
    graph.update(table, ir.adam(table, grad, m, v, graph.input("lr", []), graph.input("step", [])).param)
    scene = random_scene(1, count=20)
    values = [graph.input(n, scene.arrays[n].shape) for n in OPERANDS]
    graph.output("rgba", ir.splat_render(*values, width=20, height=14).rgba)
    zeros = np.zeros((4, 3), np.float32)
    feeds = {**scene.feeds(np.float32), "ids": np.array([0, 3], np.int32), "none": np.zeros(0, np.int32), "m": zeros,
             "v": zeros, "grad": zeros, "lr": 0.1, "step": 1.0}  # fmt: skip

    def never(words: int, explain: object) -> None:
        raise AssertionError("a check was dispatched")

    monkeypatch.setattr(gpu.runs.faults, "expect", never)
    gpu_session.compile(graph).run(feeds)
    with pytest.raises(InputError, match="step counts from 1"):
        gpu_session.compile(graph).run({**feeds, "step": 0.0})


def test_an_overflow_is_repeated_before_faults_are_believed(gpu_session: Session, gpu: Gpu) -> None:
    """A list cut short may make operands bad that are not, and the run that follows finds those that are."""
    graph, good, bad = drawing("background", (1,), NAN)()
    executable = gpu_session.compile(graph)
    executable.run(good)
    executable.run(good)
    before = executable.get_param("total")
    underestimate(gpu)
    tried: list[bool] = []
    with collected(gpu_session, tried.append), pytest.raises(InputError, match="background must be finite"):
        executable.run(bad)
    assert tried == [False], "the second time it raised"
    np.testing.assert_array_equal(executable.get_param("total"), before)
    executable.run(good)
    assert (executable.get_param("total") != before).any()


def test_a_run_that_the_host_ends_leaves_no_fault_to_the_next(gpu_session: Session, gpu: Gpu) -> None:
    graph = ir.Graph("t")
    table, by = graph.input("table", [4, 2]), graph.input("by", [])
    graph.output("first", ir.gather(table, computed(graph.constant(np.array([0, 3], np.int32)), by)))
    graph.output("second", ir.gather(table, graph.input("ids", [1], "i32")))
    executable = gpu_session.compile(graph, passes=[])
    feeds = {"table": np.ones((4, 2), np.float32), "by": 0.0, "ids": np.array([3], np.int32)}
    with pytest.raises(InputError, match="got 9 to 9"):
        executable.run({**feeds, "by": 5.0, "ids": np.array([9], np.int32)})
    assert gpu.runs.faults.pending == []
    np.testing.assert_array_equal(executable.run(feeds)["first"], np.ones((2, 2)))


def test_steps_that_the_device_counts(gpu_session: Session) -> None:
    """Adam's step as a parameter: what undoes the moments' start is computed on the device, to float32's precision."""
    ends = []
    for session in (gpu_session, Session("reference")):
        graph = ir.Graph("t")
        step = graph.param("step", [], "f32", np.float32(1))
        state = [graph.param(n, [6], "f32", np.zeros(6, np.float32)) for n in ("p", "m", "v")]
        made = ir.adam(*state[:1], graph.input("grad", [6]), *state[1:], 0.1, step, beta1=0.0, beta2=0.9999999)
        for old, new in zip(state, made, strict=True):
            graph.update(old, new)
        graph.update(step, step + 1.0)
        executable = session.compile(graph)
        for k in range(5):
            executable.run({"grad": np.linspace(-1, 2, 6, dtype=np.float32) + k})
        ends.append({n: executable.get_param(n) for n in ("p", "m", "v", "step")})
    for name, wanted in ends[1].items():
        np.testing.assert_allclose(ends[0][name], wanted, rtol=5e-6, err_msg=name)


def test_checks_take_as_many_boards_as_they_need(gpu: Gpu) -> None:
    faults = Faults(gpu.memory)
    untouched = np.full(BOARD, UNTOUCHED, np.int32)
    first: list[GpuBuffer] = []
    for _ in range(2):
        checks = [faults.expect(3, lambda words: f"{words}") for _ in range(BOARD // 2)]
        first = first or faults.boards()
        assert len(first) == 2
        assert faults.boards() == first, "used again"
        places = {(id(c.board), k) for c in checks for k in range(c.start, c.start + c.words)}
        assert len(places) == 3 * len(checks)
        assert max(c.start + c.words for c in checks) <= BOARD
        assert faults.pending == checks
        assert faults.first([untouched, untouched]) is None
        assert faults.pending == []
    words = untouched.copy()
    assert all(check.fault(words) is None for check in checks)
    words[checks[1].start + 2] = 5
    assert [check.fault(words) is None for check in checks[:3]] == [True, False, True]
    faults.forget()
    faults.expect(3, lambda words: "")
    assert faults.boards()[0] not in first


def test_copies_are_made_by_the_device_in_order(gpu_session: Session, gpu: Gpu) -> None:
    for array in (np.arange(1000, dtype=np.float32), np.float32(3), np.zeros((0, 3), np.float32)):
        source = gpu.memory.upload(np.asarray(array), DType.F32)
        twice = gpu.memory.allocate(source.shape, DType.F32)
        gpu.each(Kernel("double", "  out[i] = 2.0 * source(i);"), {"source": source}, {"out": twice}, source.size)
        waits = gpu.stream.waits
        copied = gpu_session.backend.copy(twice, DType.F32)
        gpu.each(Kernel("clear", "  out[i] = 0.0;"), {}, {"out": twice}, source.size)
        assert gpu.stream.waits == waits
        assert not gpu_session.backend.overlap(copied, twice)
        np.testing.assert_array_equal(gpu.memory.download(copied), 2 * array)
