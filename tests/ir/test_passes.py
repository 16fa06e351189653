"""Passes keep what a graph computes, do nothing the second time, and do what they are for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scenes import OPERANDS, declare, prepare_and_rasterize, random_scene
from stipple import ir
from stipple.backends.host.kernel import HostKernel
from stipple.backends.reference import held
from stipple.errors import GraphError, InputError
from stipple.ir.passes import (
    ExpandComposites,
    FoldConstants,
    FuseElementwise,
    MergeCommonSubexpressions,
    Pass,
    PassManager,
    RemoveDeadNodes,
    Simplify,
    split,
    standard_passes,
)
from stipple.ir.passes.fusion import MAX_STEPS
from stipple.runtime import Session
from stipple.runtime.backend import evaluate

SESSION = Session("reference")


def compute(node: ir.Node, arrays: list[np.ndarray]) -> list[np.ndarray]:
    return evaluate(SESSION.backend, node, arrays)


PASSES: dict[str, Callable[[], Pass]] = {
    "dead": RemoveDeadNodes,
    "merge": MergeCommonSubexpressions,
    "fold": lambda: FoldConstants(compute),
    "simplify": Simplify,
    "fuse": FuseElementwise,
    "expand": ExpandComposites,
}
UNARY = (ir.neg, ir.abs, ir.tanh, ir.sin, ir.square, ir.sigmoid, ir.floor, lambda x: ir.clamp(x, -1, 1))
BINARY = (ir.add, ir.sub, ir.mul, ir.maximum, ir.minimum, lambda a, b: ir.where(a > b, a, b))


def random_graph(data: st.DataObject) -> ir.Graph:
    """A graph of elementwise, structure and reduction ops with constants, repeats, neutral numbers and nodes
    that nothing uses."""
    graph = ir.Graph("random")
    pool = [
        graph.input("x", ["N", 3], "f64"),
        graph.input("y", ["N", 1], "f64"),
        graph.param("p", [3], "f64"),
    ]
    pool.append(graph.constant(np.array([1.0, -2.0, 0.5])))

    def pick() -> ir.Value:
        return data.draw(st.sampled_from(pool))

    for _ in range(data.draw(st.integers(1, 14))):
        kind = data.draw(st.integers(0, 9))
        value = pick()
        if kind <= 2:
            made = data.draw(st.sampled_from(UNARY))(value)
        elif kind <= 5:
            made = data.draw(st.sampled_from(BINARY))(value, pick())
        elif kind == 6:
            number = data.draw(st.sampled_from([0.0, 1.0, 2.0, -1.5]))
            made = data.draw(st.sampled_from([lambda v, k: v + k, lambda v, k: v * k, lambda v, k: v - k]))(
                value, number
            )
        elif kind == 7:
            made = ir.sum(value, -1, keepdims=True) if value.shape.rank else value * 1.0
        elif kind == 8:
            made = ir.reshape(ir.reshape(value, [value.shape.size]), value.shape) + ir.full_like(value, 0.0)
        else:
            made = ir.neg(ir.neg(value)) if value.shape.rank < 2 else ir.transpose(ir.transpose(value))
        pool.append(made)
    for i in range(data.draw(st.integers(1, 3))):
        graph.output(f"out{i}", data.draw(st.sampled_from(pool[4:])))
    if data.draw(st.booleans()):
        same = [v for v in pool if v.type == pool[2].type]
        graph.update(pool[2], data.draw(st.sampled_from(same)))
    return graph


def results(graph: ir.Graph) -> dict[str, np.ndarray]:
    """Outputs and next parameters of a run without further passes."""
    exe = SESSION.compile(graph, passes=[])
    rng = np.random.default_rng(0)
    if "p" in graph.params:
        exe.set_param("p", rng.normal(size=3))
    out = exe.run({"x": rng.normal(size=(4, 3)), "y": rng.normal(size=(4, 1))})
    return {**out, **{f"next {n}": exe.get_param(n) for n in graph.params}}


def structure(graph: ir.Graph) -> list[object]:
    return [(n.op, [(v.node.id, v.index) for v in n.inputs], str(n.attrs)) for n in graph]


@pytest.mark.parametrize("name", [*PASSES, "all"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_passes_keep_results_and_are_idempotent(name: str, data: st.DataObject) -> None:
    graph = random_graph(data)
    before, wanted = structure(graph), results(graph)
    manager = PassManager(standard_passes(compute) if name == "all" else [PASSES[name]()])
    once = manager.run(graph)
    assert structure(graph) == before, "a pass changed the graph it was given"
    given_ = results(once)
    assert given_.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_allclose(given_[key], wanted[key], rtol=1e-12, atol=1e-12)
    if name != "all":
        twice = manager.run(once)
        assert manager.records[0].changes == 0, str(manager)
        assert twice is once


def test_dead_nodes_go_and_inputs_stay() -> None:
    graph = ir.Graph("t")
    x, y = graph.input("x", [3]), graph.input("unused", [3])
    ir.exp(x)
    graph.output("out", x + 1.0)
    made = RemoveDeadNodes().run(graph).graph
    assert made.count("exp") == 0
    assert list(made.inputs) == ["x", "unused"]
    assert y.node.op == "input"


def test_equal_nodes_are_merged_and_different_attributes_are_not() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", ["N", 3])
    graph.output("a", ir.sum(ir.exp(x), 0) + ir.sum(ir.exp(x), 0))
    graph.output("b", ir.sum(ir.exp(x), 1))
    made = MergeCommonSubexpressions().run(graph).graph
    assert made.count("exp") == 1
    assert made.count("sum") == 2


def test_merging_does_not_take_minus_zero_for_zero() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [1])
    graph.output("a", x / graph.constant(0.0, "f32"))
    graph.output("b", x / graph.constant(-0.0, "f32"))
    made = MergeCommonSubexpressions().run(graph).graph
    assert made.count("div") == 2


def test_constants_fold_only_while_small() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3])
    graph.output("small", x * (graph.constant([1.0, 2, 3], "f32") + 1.0))
    graph.output("large", ir.sum(ir.exp(ir.full(graph, [1 << 40], 0.5))))
    made = FoldConstants(compute).run(graph).graph
    assert made.count("add") == 0
    assert made.count("exp") == 1


@pytest.mark.parametrize(
    "build", [lambda x: ir.narrow(x, 0, "K", "N"), lambda x: ir.pad(x, 0, "K", -1 * ir.Dim.of("K"))]
)
def test_sizes_that_only_a_run_knows_are_left_to_it(build: Callable[[ir.Value], ir.Value]) -> None:
    graph = ir.Graph("t")
    x = graph.input("x", ["N"])
    graph.output("k", graph.input("k", ["K"]))
    graph.output("y", build(x))
    feeds = {"x": np.arange(3, dtype=np.float32), "k": np.zeros(0, np.float32)}
    exe = SESSION.compile(graph)
    assert exe.run(feeds)["y"].tolist() == [0, 1, 2]
    with pytest.raises(InputError):
        exe.run({**feeds, "k": np.zeros(1, np.float32)})


def test_long_chains_are_fused_in_parts() -> None:
    graph = ir.Graph("t")
    value = graph.input("x", [2])
    for _ in range(1000):
        value = ir.sin(value) + 1.0
    graph.output("y", value)
    made = FuseElementwise().run(graph).graph
    assert made.count("fused") == -(-2000 // MAX_STEPS)
    given, wanted = (SESSION.compile(g, []).run({"x": np.ones(2, np.float32)})["y"] for g in (made, graph))
    np.testing.assert_array_equal(given, wanted)


def test_folding_leaves_errors_to_the_run() -> None:
    graph = ir.Graph("t")
    rows = ir.gather(graph.constant([1.0, 2.0]), graph.constant([5]))
    graph.output("out", rows)
    assert FoldConstants(compute).run(graph).changes == 0


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda x: x + -0.0, 0),
        (lambda x: -0.0 + x, 0),
        (lambda x: x + 0.0, 1),  # -0 + 0 is 0
        (lambda x: x - -0.0, 1),
        (lambda x: x * 1.0, 0),
        (lambda x: x / 1.0, 0),
        (lambda x: x - 0.0, 0),
        (lambda x: x**1.0, 0),
        (lambda x: ir.neg(ir.neg(x)), 0),
        (lambda x: ir.transpose(ir.transpose(x)), 0),
        (lambda x: ir.pad(ir.narrow(x, 1, 0, 3), 1), 0),
        (lambda x: ir.concat([x]), 0),
        (lambda x: x**2.0, 1),
        (lambda x: 0.0 - x, 1),
        (lambda x: x * 0.0, 1),  # NaN times 0 is NaN
    ],
)
def test_simplify(build: Callable[[ir.Value], ir.Value], left: int) -> None:
    graph = ir.Graph("t")
    graph.output("out", build(graph.input("x", ["N", 3])))
    made = PassManager([Simplify(), RemoveDeadNodes()]).run(graph)
    assert len([n for n in made if n.op not in ("input", "constant")]) == left


@pytest.mark.parametrize(
    ("start", "length", "left"),
    [(0, 3, 0), (3, 2, 0), (4, 1, 1), (1, 2, 1), (2, 2, 2), (0, 5, 1), (3, 0, 1)],
    ids=["first", "second", "of the second", "of the first", "of both", "all", "nothing"],
)
def test_a_part_of_a_concat_is_taken_from_where_it_was(start: int, length: int, left: int) -> None:
    graph = ir.Graph("t")
    a, b = graph.input("a", ["N", 3], "f64"), graph.input("b", ["N", 2], "f64")
    graph.output("out", ir.narrow(ir.concat([a, b], axis=1), 1, start, length))
    simplified = PassManager([Simplify(), RemoveDeadNodes()]).run(graph)
    assert len([n for n in simplified if n.op not in ("input", "constant")]) == left
    feeds = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(6.0, 10.0).reshape(2, 2)}
    wanted = SESSION.compile(graph, passes=[]).run(feeds)["out"]
    np.testing.assert_array_equal(SESSION.compile(simplified, passes=[]).run(feeds)["out"], wanted)


def test_a_broadcasting_neutral_number_is_kept() -> None:
    graph = ir.Graph("t")
    graph.output("out", graph.input("x", [3], "f64") + graph.constant(np.zeros((2, 3))))
    assert Simplify().run(graph).changes == 0


def test_elementwise_chains_become_one_node() -> None:
    graph = ir.Graph("t")
    x, y = graph.input("x", ["N", 3]), graph.input("y", [3])
    shared = ir.exp(x)
    graph.output("a", ir.sigmoid(shared * y + 1.0) * shared)
    made = FuseElementwise().run(graph).graph
    assert [n.op for n in made if n.op not in ("input", "constant")] == ["fused"]
    assert "t0 = exp(x" in str(made)


def test_fusion_neither_repeats_work_nor_stores_broadcasts() -> None:
    graph = ir.Graph("t")
    x, y = graph.input("x", ["N", 3]), graph.input("y", [3])
    small = ir.exp(y)  # smaller than its user
    kept = ir.tanh(x)  # also an output
    graph.output("kept", kept)
    graph.output("a", ir.sin(kept * small))
    graph.output("b", ir.sum(kept))
    made = FuseElementwise().run(graph).graph
    assert made.count("exp") == 1
    assert made.count("tanh") == 1
    assert made.count("fused") == 1


# --- splat ------------------------------------------------------------------------------------------------
def training_graph(sh_degree: int = -1) -> ir.Graph:
    """loss(render(x)) with gradients of every operand."""
    scene = random_scene(3, sh_degree=sh_degree)
    graph = ir.Graph("training")
    values = declare(graph, scene)
    rendered = ir.splat_render(*(values[n] for n in OPERANDS), **scene.attrs)
    target = graph.input("target", [14, 20, 3], "f64")
    rgb = ir.narrow(rendered.rgba, 2, 0, 3)
    loss = ir.image_l1(rgb, target) * 0.8 + (1.0 - ir.image_ssim(rgb, target)) * 0.2 + ir.mean(rendered.depth) * 0.01
    graph.output("loss", loss)
    for name, value in zip(OPERANDS, ir.grad(graph, loss, [values[n] for n in OPERANDS]), strict=True):
        graph.output(f"v_{name}", value)
    return graph


def run_training(graph: ir.Graph, sh_degree: int = -1) -> dict[str, np.ndarray]:
    scene = random_scene(3, sh_degree=sh_degree)
    target = np.random.default_rng(1).uniform(size=(14, 20, 3))
    return SESSION.compile(graph, passes=[]).run({**scene.feeds(), "target": target})


SMALL_OPS = ("splat_project", "splat_sh", "splat_bin", "splat_rasterize")


def test_expanding_and_merging_compute_everything_once() -> None:
    """A gradient goes through what a render stands for; merged with the expanded render that is one of each op."""
    graph = training_graph(sh_degree=1)
    assert graph.count("splat_render") == graph.count("splat_rasterize_backward") == 1
    manager = PassManager([ExpandComposites(), MergeCommonSubexpressions(), RemoveDeadNodes()])
    expanded = manager.run(graph)
    for op in (*SMALL_OPS, "splat_rasterize_backward", "splat_project_backward", "splat_sh_backward"):
        assert expanded.count(op) == 1, op
    assert expanded.count("splat_render") == expanded.count("splat_prepare") == 0
    assert "expanded splat_render" in str(manager)
    shared = next(n for n in expanded if n.op == "splat_project")
    users = {n.op for n in expanded if any(v.node is shared for v in n.inputs)}
    assert {"splat_sh", "splat_bin", "splat_rasterize", "splat_rasterize_backward", "splat_project_backward"} <= users
    wanted = run_training(graph, 1)
    for name, array in run_training(expanded, 1).items():
        np.testing.assert_array_equal(array, wanted[name])


class WithRender:
    """The reference, as if it had a kernel of its own for one composite."""

    def __init__(self) -> None:
        self._reference = SESSION.backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reference, name)

    def kernel(self, node: ir.Node) -> Any:
        if node.op != "splat_prepare":
            return self._reference.kernel(node)

        def compute(node: ir.Node, x: Any, dims: Any) -> Any:
            graph = ir.Graph("prepare")
            values = [graph.input(n, a.shape, "f64") for n, a in x._asdict().items()]
            for name, value in graph.add("splat_prepare", values, node.attrs).results._asdict().items():
                graph.output(name, value)
            return list(SESSION.compile(graph).run(x._asdict()).values())

        return HostKernel(node, "fused.prepare", compute, held, owns_outputs=True)


def test_a_device_with_a_kernel_for_a_composite_runs_it() -> None:
    graph = ir.Graph("t")
    scene = random_scene(3)
    _, image = prepare_and_rasterize(declare(graph, scene), scene.attrs)
    graph.output("rgba", image.rgba)
    exe = Session(WithRender()).compile(graph)
    assert exe.graph.count("splat_prepare") == 1
    assert exe.graph.count("splat_project") == 0
    wanted = SESSION.compile(graph).run(scene.feeds(np.float64))
    np.testing.assert_array_equal(exe.run(scene.feeds(np.float64))["rgba"], wanted["rgba"])


def test_splitting_a_graph_gives_what_the_whole_gives() -> None:
    """The first part has what does not wait; the second is given what it needs, sizes known only from data too."""
    scene = random_scene(5)
    graph = ir.Graph("whole")
    values = declare(graph, scene)
    image = prepare_and_rasterize(values, scene.attrs)[1]
    graph.output("rgba", image.rgba)
    v_rgba = graph.input("v_rgba", image.rgba.shape, "f64")
    for name, gradient in zip(
        OPERANDS, ir.pullback([(image.rgba, v_rgba)], [values[n] for n in OPERANDS]), strict=True
    ):
        graph.output(f"v_{name}", gradient)
    whole = PassManager([ExpandComposites(), MergeCommonSubexpressions(), RemoveDeadNodes()]).run(graph)
    first, second = (SESSION.compile(part) for part in split(whole, ["v_rgba"]))
    assert first.graph.count("splat_rasterize") == second.graph.count("splat_rasterize_backward") == 1
    assert second.graph.count("splat_rasterize") == second.graph.count("splat_project") == 0
    feeds = scene.feeds(np.float64)
    late = np.random.default_rng(0).normal(size=(14, 20, 4))
    kept = [name for name in first.graph.outputs if name != "rgba"]
    out = first.run(feeds, keep=kept)
    known = {**feeds, **out, "v_rgba": late}
    gradients = second.run({name: known[name] for name in second.graph.inputs})
    wanted = SESSION.compile(graph).run({**feeds, "v_rgba": late})
    for name, array in {**{n: a for n, a in out.items() if n == "rgba"}, **gradients}.items():
        np.testing.assert_array_equal(array, wanted[name])


def test_graphs_that_cannot_be_split_say_why() -> None:
    graph = ir.Graph("t")
    x = graph.param("x", [2])
    with pytest.raises(GraphError, match="split: the graph has no inputs late"):
        split(graph, ["late"])
    graph.update(x, x + 1.0)
    with pytest.raises(GraphError, match=r"split: the graph updates parameters \(x\)"):
        split(graph, [])


def test_the_standard_passes_are_verified_and_printed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exe = SESSION.compile(training_graph())
    text = exe.report()
    for name in ("expand-composites", "merge-common-subexpressions", "fuse-elementwise"):
        assert name in text
    assert exe.graph.count("splat_project") == 1
