"""Passes keep what a graph computes, do nothing the second time, and do what they are for."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scenes import OPERANDS, declare, prepare_and_rasterize, random_scene
from stipple import ir
from stipple.errors import InputError
from stipple.ir.passes import (
    FoldConstants,
    FuseElementwise,
    FuseRender,
    LowerRender,
    MergeCommonSubexpressions,
    Pass,
    PassManager,
    RemoveDeadNodes,
    Simplify,
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
    "lower": LowerRender,
    "fuse-render": FuseRender,
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
def training_graph() -> ir.Graph:
    """loss(render(x)) with gradients of every operand."""
    scene = random_scene(3)
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


def run_training(graph: ir.Graph) -> dict[str, np.ndarray]:
    scene = random_scene(3)
    target = np.random.default_rng(1).uniform(size=(14, 20, 3))
    return SESSION.compile(graph, passes=[]).run({**scene.feeds(), "target": target})


def test_lowering_and_merging_leave_one_prepare_and_one_rasterize() -> None:
    graph = training_graph()
    assert (graph.count("splat_render"), graph.count("splat_render_backward")) == (1, 1)
    manager = PassManager([LowerRender(), MergeCommonSubexpressions()])
    made = manager.run(graph)
    for op in ("splat_prepare", "splat_rasterize", "splat_rasterize_backward", "splat_prepare_backward"):
        assert made.count(op) == 1, op
    assert made.count("splat_render") == made.count("splat_render_backward") == 0
    assert "lowered splat_render, splat_render_backward" in str(manager)
    assert "merged splat_prepare, splat_rasterize" in str(manager)
    shared = next(n for n in made if n.op == "splat_prepare")
    users = {n.op for n in made if any(v.node is shared for v in n.inputs)}
    assert users == {"splat_rasterize", "splat_rasterize_backward", "splat_prepare_backward"}
    for name, wanted in run_training(graph).items():
        np.testing.assert_array_equal(run_training(made)[name], wanted)


def test_fusing_is_the_reverse_of_lowering() -> None:
    graph = PassManager([RemoveDeadNodes()]).run(training_graph())
    lowered = PassManager([LowerRender(), MergeCommonSubexpressions()]).run(graph)
    fused = FuseRender().run(lowered)
    assert fused.changes == 2
    assert (fused.graph.count("splat_render"), fused.graph.count("splat_render_backward")) == (1, 1)
    assert fused.graph.count("splat_prepare") == fused.graph.count("splat_prepare_backward") == 0
    assert FuseRender().run(fused.graph).changes == 0
    wanted = run_training(graph)
    for name, array in run_training(fused.graph).items():
        np.testing.assert_array_equal(array, wanted[name])


def test_renders_are_not_fused_when_something_inside_is_wanted() -> None:
    scene = random_scene(3)
    graph = ir.Graph("t")
    prepared, image = prepare_and_rasterize(declare(graph, scene), scene.attrs)
    graph.output("rgba", image.rgba)
    assert FuseRender().run(graph).changes == 1
    graph.output("radii", prepared.radii)
    assert FuseRender().run(graph).changes == 0


def test_the_standard_passes_are_verified_and_printed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exe = SESSION.compile(training_graph())
    text = exe.report()
    for name in ("lower-render", "merge-common-subexpressions", "fuse-elementwise"):
        assert name in text
    assert exe.graph.count("splat_prepare") == 1
