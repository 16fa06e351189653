"""Sessions and executables: feeds, parameters, updates, memory, reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stipple import ir
from stipple.backends.reference import ReferenceBackend
from stipple.errors import DeviceError, FeedError, InputError, UnsupportedOpError
from stipple.runtime import Executable, Session, devices
from training import training_step


def compile_graph(graph: ir.Graph, **options: Any) -> Executable:
    return Session("reference").compile(graph, **options)


def affine() -> ir.Graph:
    graph = ir.Graph("affine")
    x = graph.input("x", ["N", 3])
    graph.output("y", x * graph.param("gain", [3], init=[1, 2, 3]) + graph.input("shift", []))
    return graph


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_devices() -> None:
    assert "reference" in devices()
    assert Session("auto").device in devices()
    assert Session(ReferenceBackend()).device == "reference"
    with pytest.raises(DeviceError, match=r"no device 'cuda'; there are: auto, .*reference"):
        Session("cuda")


def test_a_run_returns_outputs_by_name_in_their_dtype() -> None:
    out = compile_graph(affine()).run({"x": X, "shift": 1})
    assert list(out) == ["y"]
    assert out["y"].dtype == np.float32
    np.testing.assert_array_equal(out["y"], X * [1, 2, 3] + 1)


def test_a_new_size_needs_no_new_compile() -> None:
    exe = compile_graph(affine())
    for count in (2, 5, 0, 2):
        assert exe.run({"x": np.ones((count, 3), np.float32), "shift": 0.0})["y"].shape == (count, 3)


BAD_FEEDS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"x": X}, r"feeds: missing shift; the graph takes shift, x"),
    "unknown": ({"x": X, "shift": 0, "z": 1}, r"feeds: unknown z"),
    "dtype": (
        {"x": X.astype(np.float64), "shift": 0},
        r"feed 'x': expected dtype f32, got float64; convert it with .astype\('float32'\)",
    ),
    "rank": ({"x": X[0], "shift": 0}, r"feed 'x': expected shape \[N, 3\], got \[3\]"),
    "width": ({"x": X[:, :2], "shift": 0}, r"feed 'x': expected shape \[N, 3\].*got \[2, 2\]"),
    "type": ({"x": object(), "shift": 0}, r"feed 'x': expected f32\[N, 3\] as an array, got object"),
    "list": ({"x": [[1, 2], [3]], "shift": 0}, r"feed 'x': f32\[N, 3\]: expected numbers in rows of equal length"),
    "text": ({"x": X, "shift": "1"}, r"feed 'shift': expected f32\[\] as an array, got str"),
}


@pytest.mark.parametrize("case", list(BAD_FEEDS))
def test_bad_feeds_are_named(case: str) -> None:
    feeds, message = BAD_FEEDS[case]
    with pytest.raises(FeedError, match=message):
        compile_graph(affine()).run(feeds)


def test_symbols_must_agree_across_feeds_and_parameters() -> None:
    graph = ir.Graph("t")
    p = graph.param("p", ["N"], "f64")
    graph.output("y", p + graph.input("x", ["N"], "f64"))
    exe = compile_graph(graph)
    exe.set_param("p", np.zeros(3))
    with pytest.raises(FeedError, match=r"feed 'x': expected shape \[N\] with N = 3 from parameter 'p', got \[4\]"):
        exe.run({"x": np.zeros(4)})
    exe.set_param("p", np.zeros(4))
    assert exe.run({"x": np.zeros(4)})["y"].shape == (4,)


def test_parameters_that_are_missing_or_unknown() -> None:
    graph = ir.Graph("t")
    graph.output("y", graph.param("p", [2]) * 2.0)
    exe = compile_graph(graph)
    with pytest.raises(FeedError, match=r"parameter 'p' has no value yet; call set_param\('p'"):
        exe.run()
    with pytest.raises(FeedError, match="has no value yet"):
        exe.get_param("p")
    with pytest.raises(FeedError, match="no parameter 'q'; it has: p"):
        exe.set_param("q", [1, 2])
    with pytest.raises(FeedError, match=r"parameter 'p': expected shape \[2\].*got \[3\]"):
        exe.set_param("p", [1, 2, 3])


class OnlyDLPack:
    """An array that offers nothing but the DLPack protocol, as other frameworks' tensors do."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def test_feeds_through_dlpack() -> None:
    out = compile_graph(affine()).run({"x": OnlyDLPack(X), "shift": 1.0})
    np.testing.assert_array_equal(out["y"], X * [1, 2, 3] + 1)
    with pytest.raises(FeedError, match="expected dtype f32, got float64"):
        compile_graph(affine()).run({"x": OnlyDLPack(X.astype(np.float64)), "shift": 1.0})


def test_results_and_feeds_are_not_shared() -> None:
    exe = compile_graph(affine())
    x = X.copy()
    first = exe.run({"x": x, "shift": 0})["y"]
    kept = first.copy()
    exe.run({"x": x + 5, "shift": 0})
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(x, X)
    gain = exe.get_param("gain")
    gain[:] = 0
    assert exe.get_param("gain").tolist() == [1, 2, 3]


# --- updates ----------------------------------------------------------------------------------------------
def test_updates_take_effect_after_the_run() -> None:
    graph = ir.Graph("t")
    a, b = graph.param("a", [2], "f64", [1, 2]), graph.param("b", [2], "f64", [10, 20])
    graph.update(a, b)  # swapped: each needs the other's old value
    graph.update(b, a)
    graph.output("sum", a + b)
    graph.output("a_before", a)
    exe = compile_graph(graph)
    out = exe.run()
    assert out["a_before"].tolist() == [1, 2]
    assert exe.get_param("a").tolist() == [10, 20]
    assert exe.get_param("b").tolist() == [1, 2]
    exe.run()
    assert exe.get_param("a").tolist() == [1, 2]


def test_two_parameters_updated_from_one_value_stay_apart() -> None:
    graph = ir.Graph("t")
    a, b = graph.param("a", [2], "f64", [1, 2]), graph.param("b", [2], "f64", [3, 4])
    total = a + b
    graph.update(a, total)
    graph.update(b, total)
    exe = compile_graph(graph)
    exe.run()
    exe.run()
    assert exe.get_param("a").tolist() == exe.get_param("b").tolist() == [8, 12]


def test_updates_from_feeds_constants_and_views() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [2, 2], "f64")
    for name, value in (("p", x), ("q", ir.reshape(x, [4])), ("r", graph.constant([1.0, 2.0]))):
        graph.update(graph.param(name, value.shape, "f64", np.zeros(value.shape.static)), value)
    exe = compile_graph(graph)
    exe.run({"x": np.array([[1.0, 2], [3, 4]])})
    assert exe.get_param("p").tolist() == [[1, 2], [3, 4]]
    assert exe.get_param("q").tolist() == [1, 2, 3, 4]
    assert exe.get_param("r").tolist() == [1, 2]


def test_adam_writes_parameters_and_moments_in_place() -> None:
    graph, feeds = training_step()
    exe = compile_graph(graph)
    before = {n: exe.params.buffer(n, p.dtype) for n, p in graph.params.items()}
    exe.run({**feeds, "step": 1.0})
    assert all(exe.params.buffer(n, p.dtype) is before[n] for n, p in graph.params.items())
    adam = [d for d in exe.dispatch if d.op == "adam"]
    assert len(adam) == 5
    assert all(d.inplace for d in adam)
    assert exe.dispatch[-5:] == adam, "parameters are written last"


def test_training_lowers_the_loss() -> None:
    graph, feeds = training_step()
    exe = compile_graph(graph)
    losses = [float(exe.run({**feeds, "step": float(i)})["loss"]) for i in range(1, 16)]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_graph_may_change_how_many_rows_its_parameters_have(device: str, tmp_path: Path) -> None:
    graph = ir.Graph("t")
    rows = graph.input("rows", ["M"], "i32")
    params = {n: graph.param(n, ["N", 2]) for n in ("a", "b")}
    for name, factor in (("a", 1.0), ("b", 10.0)):
        graph.update(params[name], factor * ir.gather(params[name], rows))
    graph.output("sum", ir.sum(params["a"] + params["b"], 1))
    ir.save(graph, tmp_path / "graph.safetensors")
    graph = ir.load(tmp_path / "graph.safetensors")
    executable = Session(device).compile(graph)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    for name in params:
        executable.set_param(name, values)
    assert executable.run({"rows": np.array([2, 0, 0, 1, 2], np.int32)})["sum"].shape == (3,)
    np.testing.assert_array_equal(executable.get_param("b"), 10 * values[[2, 0, 0, 1, 2]])
    assert executable.run({"rows": np.array([4], np.int32)})["sum"].shape == (5,)
    np.testing.assert_array_equal(executable.get_param("a"), values[[2]])
    executable.set_param("a", values)
    with pytest.raises(FeedError, match="N"):
        executable.run({"rows": np.array([0], np.int32)})


def test_a_failed_run_leaves_parameters_as_they_were() -> None:
    graph = ir.Graph("t")
    p, m, v = (graph.param(n, [2], "f64", [1, 2]) for n in "pmv")
    update = ir.adam(p, p, m, v, 0.1, graph.constant(1.0))
    for target, value in zip((p, m, v), update, strict=True):
        graph.update(target, value)
    ids = graph.input("ids", [1], "i32")
    graph.output("picked", ir.gather(p, ids))  # added after Adam, and fails
    exe = compile_graph(graph)
    with pytest.raises(InputError, match=r"gather: ids must be between 0 and 1, got 7 to 7"):
        exe.run({"ids": np.array([7], np.int32)})
    assert exe.get_param("p").tolist() == exe.get_param("m").tolist() == [1, 2]
    exe.run({"ids": np.array([1], np.int32)})
    assert exe.get_param("p").tolist() != [1, 2]


# --- memory -----------------------------------------------------------------------------------------------
def chain(length: int) -> ir.Graph:
    graph = ir.Graph("chain")
    x = graph.input("x", ["N", 4], "f64")
    for _ in range(length):
        x = x @ graph.constant(np.eye(4) * 0.9)
    graph.output("y", x)
    return graph


def test_buffers_of_dead_values_are_reused() -> None:
    exe = compile_graph(chain(20), passes=[])
    x = np.random.default_rng(0).normal(size=(100, 4))
    np.testing.assert_allclose(exe.run({"x": x})["y"], x * 0.9**20)
    assert exe.memory.allocated == 2
    assert exe.memory.reused == 18
    assert exe.memory.peak_bytes == 2 * 100 * 4 * 8
    exe.run({"x": x})
    assert exe.memory.allocated == 0, "a second run of the same size allocates nothing"
    assert exe.memory.live_bytes == 0


def test_elementwise_temporaries_are_written_in_place() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [4], "f64")
    y = ir.exp(x)
    for _ in range(5):
        y = ir.tanh(y) + 1.0
    graph.output("y", y)
    exe = compile_graph(graph, passes=[])
    wanted = np.exp(np.arange(4.0))
    for _ in range(5):
        wanted = np.tanh(wanted) + 1
    np.testing.assert_allclose(exe.run({"x": np.arange(4.0)})["y"], wanted)
    assert exe.memory.in_place == 10
    assert exe.memory.allocated == 1


def test_values_seen_through_views_stay_alive() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [2, 3], "f64")
    y = ir.exp(x)
    view = ir.reshape(y, [6])
    z = ir.tanh(ir.sin(y))
    graph.output("late", ir.concat([view, ir.reshape(z, [6])]))
    graph.output("view", view)
    exe = compile_graph(graph, passes=[])
    data = np.random.default_rng(1).normal(size=(2, 3))
    for _ in range(2):
        out = exe.run({"x": data})
        np.testing.assert_allclose(out["view"], np.exp(data).ravel())
        np.testing.assert_allclose(
            out["late"], np.concatenate([np.exp(data).ravel(), np.tanh(np.sin(np.exp(data))).ravel()])
        )


def test_an_operand_used_twice_is_not_overwritten_early() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3], "f64")
    base = ir.exp(x)
    graph.output("y", ir.scatter_add(base, graph.constant(np.array([0, 0, 1], np.int32)), base))
    out = compile_graph(graph, passes=[]).run({"x": np.zeros(3)})
    assert out["y"].tolist() == [3, 2, 1]


# --- reports ----------------------------------------------------------------------------------------------
def test_the_dispatch_report_names_every_kernel() -> None:
    graph, feeds = training_step()
    exe = compile_graph(graph)
    ops = [d.op for d in exe.dispatch]
    assert ops.count("splat_project") == ops.count("splat_bin") == ops.count("splat_rasterize") == 1
    assert all(d.kernel.startswith("reference:numpy.") for d in exe.dispatch)
    exe.run({**feeds, "step": 1.0}, timings=True)
    assert len(exe.timings) == len(exe.dispatch)
    assert all(t.seconds >= 0 for t in exe.timings)
    report = exe.report()
    assert "expand-composites" in report
    assert "times of the last timed run" in report
    exe.run({**feeds, "step": 2.0})
    assert exe.timings == []


class WithoutSome(ReferenceBackend):
    """A device that cannot run some ops."""

    name = "partial"

    def kernel(self, node: ir.Node) -> Any:
        return None if node.op in ("tanh", "sin") else super().kernel(node)


def test_an_op_that_a_device_lacks_is_named_when_compiling() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3])
    graph.output("a", ir.sum(ir.tanh(x)))
    graph.output("b", ir.sum(ir.sin(x)))
    with pytest.raises(UnsupportedOpError, match="device 'partial' has no kernel for: sin, tanh"):
        Session(WithoutSome()).compile(graph)


class Recording(ReferenceBackend):
    """Counts what the runtime asks of a backend."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def kernel(self, node: ir.Node) -> Any:
        inner = super().kernel(node)
        assert inner is not None
        runs = self.runs

        class Kernel:
            name = "recorded"
            owns_outputs = False

            def check(self, inputs: Sequence[Any], dims: Mapping[str, int]) -> None:
                inner.check(inputs, dims)

            def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any], dims: Mapping[str, int]) -> Any:
                runs.append(node.op)
                return inner(inputs, outputs, dims)

        return Kernel()


def test_constant_work_is_done_once_when_compiling() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3], "f64")
    graph.output("y", x * ir.exp(graph.constant([1.0, 2, 3])))
    backend = Recording()
    exe = Session(backend).compile(graph)
    backend.runs.clear()
    exe.run({"x": np.ones(3)})
    assert backend.runs == ["mul"]


def test_nan_is_a_value_where_no_op_forbids_it() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [2])
    graph.output("y", ir.log(x))
    out = compile_graph(graph).run({"x": np.array([-1, 0], np.float32)})
    assert np.isnan(out["y"][0])
    assert out["y"][1] == -np.inf


def test_nan_parameters_are_refused_where_an_op_forbids_them() -> None:
    graph = ir.Graph("t")
    p = graph.param("p", [2], "f64", [1, 1])
    lr = graph.param("lr", [], "f64", 0.1)
    zeros = ir.zeros_like(p)
    graph.update(p, ir.adam(p, p, zeros, zeros, lr, graph.constant(1.0)).param)
    exe = compile_graph(graph)
    with pytest.raises(FeedError, match="parameter 'lr': lr of adam must be finite"):
        exe.set_param("lr", float("nan"))


def test_an_empty_graph_runs() -> None:
    assert compile_graph(ir.Graph("empty")).run() == {}


def test_executables_of_a_store_share_its_parameters() -> None:
    """What one updates, the others see; a graph of another size refuses what does not fit it."""

    def build(size: int) -> ir.Graph:
        graph = ir.Graph("t")
        p = graph.param("p", ["N", 2], init=np.ones((4, 2)))
        q = graph.param("q", [size])
        graph.output("sum", ir.sum(p) + ir.sum(q))
        graph.update(p, p + 1.0)
        return graph

    session = Session("cpu")
    store = session.params()
    store.set("p", np.full((4, 2), 5, np.float32))
    first, second, third = (session.compile(build(size), params=store) for size in (2, 2, 3))
    assert store.names == ["p"], "a value that is there is kept"
    assert store.shape("p") == (4, 2)
    with pytest.raises(FeedError, match="parameter 'q' has no value"):
        first.run()
    first.set_param("q", np.ones(2, np.float32))
    assert first.run()["sum"] == 42
    assert second.run()["sum"] == 50
    np.testing.assert_array_equal(store.get("p"), np.full((4, 2), 7))
    with pytest.raises(FeedError, match=r"parameter 'q': expected shape \[3\], got \[2\]"):
        third.run()
    store.set("q", [1, 2, 3])
    assert third.run()["sum"] == 62
    store.set("q", [[1.0]])
    with pytest.raises(FeedError, match=r"parameter 'q': expected shape \[3\], its value has \[1, 1\]"):
        third.run()
    store.set("q", [1, 2, 3], "i32")
    with pytest.raises(FeedError, match="parameter 'q': expected dtype f32, its value is i32"):
        third.run()
    with pytest.raises(FeedError, match=r"parameter 'q': i32\[1\]: expected whole numbers"):
        store.set("q", [0.5], "i32")
    with pytest.raises(InputError, match="params: expected a store of this session's device"):
        Session("cpu").compile(build(2), params=store)


def test_executables_of_a_device_share_memory_between_runs() -> None:
    session = Session("cpu")

    def build(name: str) -> Executable:
        graph = ir.Graph(name)
        x = graph.input("x", ["N", 4])
        graph.output("y", (x @ graph.constant(np.eye(4, dtype=np.float32))) @ graph.constant(np.eye(4), "f32"))
        return session.compile(graph, passes=[])

    first, second = build("a"), build("b")
    feeds = {"x": np.ones((100, 4), np.float32)}
    first.run(feeds)
    assert first.memory.allocated == 2
    second.run(feeds)
    assert (second.memory.allocated, second.memory.reused) == (0, 2)
    second.run({"x": np.ones((50, 4), np.float32)})
    first.run(feeds)
    assert first.memory.allocated == 2, "sizes that were left are let go"
