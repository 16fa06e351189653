"""The gradient of every op against central differences, and of whole graphs."""

from __future__ import annotations

import numpy as np
import pytest

from ir_cases import CASES, signed
from scenes import relative_error
from stipple import ir
from stipple.errors import GraphError
from stipple.ir.op import REGISTRY
from stipple.ir.passes import FuseElementwise
from stipple.runtime import Session

ELSEWHERE = ("splat", "image", "adam", "fused", "input", "param", "less", "equal", "logical")


def test_every_op_is_covered() -> None:
    covered = {name.split(" ")[0] for name in CASES}
    left = [n for n in REGISTRY if n not in covered and not n.startswith(ELSEWHERE)]
    assert left == []


def build_case(name: str) -> tuple[ir.Graph, list[ir.Value], ir.Value]:
    build, arrays = CASES[name]
    graph = ir.Graph("case")
    values = [graph.input(f"x{i}", a.shape, "f64") for i, a in enumerate(arrays)]
    out = build(*values)
    weights = np.random.default_rng(3).normal(size=out.shape.static)
    loss = ir.sum(out * graph.constant(weights))
    return graph, values, loss


@pytest.mark.parametrize("name", [n for n in CASES if n != "stop_gradient"])
def test_gradient_of(name: str) -> None:
    graph, values, loss = build_case(name)
    graph.output("loss", loss)
    for value, gradient in zip(values, ir.grad(graph, loss, values), strict=True):
        graph.output(f"v_{value.name}", gradient)
    exe = Session("reference").compile(graph)
    feeds = {f"x{i}": a for i, a in enumerate(CASES[name][1])}
    exact = exe.run(feeds)
    for key, array in feeds.items():
        wanted = np.zeros(array.size)
        for i in range(array.size):
            losses = []
            for step in (-1e-5, 1e-5):
                moved = {k: v.copy() for k, v in feeds.items()}
                moved[key].flat[i] += step
                losses.append(float(exe.run(moved)["loss"]))
            wanted[i] = (losses[1] - losses[0]) / 2e-5
        assert relative_error(exact[f"v_{key}"].ravel(), wanted) < 1e-6


def test_stop_gradient_stops() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3], "f64")
    graph.output("v", ir.grad(graph, ir.sum(ir.stop_gradient(x) * x), [x])[0])
    out = Session("reference").compile(graph).run({"x": np.array([1.0, 2, 3])})
    assert out["v"].tolist() == [1, 2, 3]


def test_ties_share_the_gradient() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [4], "f64")
    y = graph.input("y", [4], "f64")
    loss = ir.reduce_max(x) + ir.sum(ir.maximum(x, y))
    for name, value in zip("xy", ir.grad(graph, loss, [x, y]), strict=True):
        graph.output(name, value)
    same = np.array([2.0, 2.0, 1.0, 0.0])
    out = Session("reference").compile(graph).run({"x": same, "y": same})
    assert out["x"].tolist() == [1, 1, 0.5, 0.5]
    assert out["y"].tolist() == [0.5] * 4


def test_fused_nodes_have_gradients() -> None:
    graph = ir.Graph("t")
    x, y = graph.input("x", ["N", 3], "f64"), graph.input("y", [3], "f64")
    graph.output("out", ir.sigmoid(x * y + 1.0) * ir.exp(-x))
    from stipple.ir.passes import FuseElementwise

    made = FuseElementwise().run(graph).graph
    assert made.count("fused") == 1
    for g in (graph, made):
        loss = ir.sum(g.outputs["out"])
        for name, value in zip("xy", ir.grad(g, loss, [g.inputs["x"], g.inputs["y"]]), strict=True):
            g.output(f"v_{name}", value)
    feeds = {"x": signed(4, 3), "y": signed(3)}
    one, other = (Session("reference").compile(g).run(feeds) for g in (graph, made))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-13)


def test_second_derivatives_of_elementwise_graphs() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3], "f64")
    (first,) = ir.grad(graph, ir.sum(x**3.0), [x])
    graph.output("second", ir.grad(graph, ir.sum(first), [x])[0])
    out = Session("reference").compile(graph).run({"x": np.array([1.0, 2, 3])})
    np.testing.assert_allclose(out["second"], [6, 12, 18])


def test_gradients_of_several_consumers_are_summed_once() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3], "f64")
    shared = ir.exp(x)
    loss = ir.sum(shared * 2.0) + ir.sum(shared * shared) + ir.sum(ir.sin(shared))
    before = len(graph)
    ir.grad(graph, loss, [x])
    new = graph.nodes[before:]
    arriving = 4  # one from the first and the last, two from the product
    assert sum(n.op == "add" for n in new) == arriving - 1
    through_exp = [n for n in new if n.op == "mul" and n.inputs[1] is shared and n.inputs[0].node.op == "add"]
    assert len(through_exp) == 1


def test_gradients_by_inner_values_and_by_what_does_not_matter() -> None:
    graph = ir.Graph("t")
    x, unused = graph.input("x", [3], "f64"), graph.input("unused", ["N"], "f64")
    inner = x * 2.0
    loss = ir.sum(inner * inner)
    graph.output("unused_shape", unused)
    for name, value in zip("abc", ir.grad(graph, loss, [inner, x, unused]), strict=True):
        graph.output(name, value)
    out = Session("reference").compile(graph).run({"x": np.ones(3), "unused": np.ones(2)})
    assert out["a"].tolist() == [4] * 3
    assert out["b"].tolist() == [8] * 3
    assert out["c"].tolist() == [0, 0]


def test_what_has_no_gradient_says_so() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3], "f64")
    with pytest.raises(GraphError, match="the loss must be a float scalar"):
        ir.grad(graph, x, [x])
    with pytest.raises(GraphError, match="only float values have gradients"):
        ir.grad(graph, ir.sum(x), [ir.cast(x, "i32")])
    update = ir.adam(x, x, x, x, 0.1, graph.constant(1.0))
    with pytest.raises(GraphError, match=r"op adam .* has no gradient"):
        ir.grad(graph, ir.sum(update.param), [x])
    with pytest.raises(GraphError, match="another graph"):
        ir.grad(ir.Graph("other"), ir.sum(x), [x])


def test_results_that_carry_no_gradient_say_so() -> None:
    from scenes import declare, prepare_and_rasterize, random_scene

    scene = random_scene(0)
    graph = ir.Graph("t")
    values = declare(graph, scene)
    image = prepare_and_rasterize(values, scene.attrs)[1]
    with pytest.raises(GraphError, match=r"result 'transmittance' of splat_rasterize .* carries no gradient"):
        ir.grad(graph, ir.sum(image.transmittance), [values["means"]])


@pytest.mark.parametrize("kind", ["number", "truth value"])
def test_gradients_through_a_group_are_those_of_its_nodes(kind: str) -> None:
    """Also where operands of the group depend on each other, and where one is no float."""
    found = []
    for fuse in (False, True):
        graph = ir.Graph("t")
        x = graph.input("x", [3], "f64")
        total = ir.sum(ir.square(x))
        out = ir.exp(x * total) + x if kind == "number" else ir.where(graph.input("m", [3], "bool"), x * total, x)
        graph.output("out", out)
        if fuse:
            graph = FuseElementwise().run(graph).graph
            assert graph.count("fused") == 1
        x = graph.inputs["x"]
        graph.output("v", ir.grad(graph, ir.sum(graph.outputs["out"]), [x])[0])
        feeds = {"x": np.array([0.1, 0.2, -0.3]), "m": np.array([True, False, True])}
        found.append(Session("reference").compile(graph, []).run({n: feeds[n] for n in graph.inputs})["v"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


def test_a_value_that_a_group_reads_twice_gets_its_gradient_once() -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [], "f64")
    program = (("mul", (0, 1), ()), ("mul", (2, 0), ()))
    cube = graph.add("fused", [x, x], {"program": program}).outputs[0]
    graph.output("v", ir.grad(graph, cube, [x])[0])
    assert float(Session("reference").compile(graph, []).run({"x": 2.0})["v"]) == 12
