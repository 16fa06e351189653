"""The gradient of every op against central differences, and of whole graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from scenes import relative_error
from stipple import ir
from stipple.errors import GraphError
from stipple.ir.op import REGISTRY
from stipple.runtime import Session

Build = Callable[..., ir.Value]


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.3, 2, shape)


def signed(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape) * 1.5 + 0.01


def ids(graph: ir.Graph) -> ir.Value:
    return graph.constant(np.array([[2, 0], [2, 3]], np.int32))


CASES: dict[str, tuple[Build, Sequence[np.ndarray]]] = {
    "neg": (lambda x: -x, [signed(3, 2)]),
    "abs": (ir.abs, [signed(3, 2)]),
    "sign": (lambda x: ir.sign(x) * x, [signed(3, 2)]),
    "floor": (lambda x: ir.floor(x) * x, [signed(3, 2)]),
    "exp": (ir.exp, [signed(3, 2)]),
    "log": (ir.log, [positive(3, 2)]),
    "sqrt": (ir.sqrt, [positive(3, 2)]),
    "square": (ir.square, [signed(3, 2)]),
    "reciprocal": (ir.reciprocal, [positive(3, 2)]),
    "sin": (ir.sin, [signed(3, 2)]),
    "cos": (ir.cos, [signed(3, 2)]),
    "tanh": (ir.tanh, [signed(3, 2)]),
    "sigmoid": (ir.sigmoid, [signed(3, 2)]),
    "softplus": (ir.softplus, [signed(3, 2)]),
    "relu": (ir.relu, [signed(3, 2)]),
    "add": (lambda a, b: a + b, [signed(3, 1), signed(2, 1, 4)]),
    "sub": (lambda a, b: a - b, [signed(3, 1), signed(4)]),
    "mul": (lambda a, b: a * b, [signed(3, 1), signed(2, 1, 4)]),
    "div": (lambda a, b: a / b, [signed(3, 1), positive(2, 3, 4)]),
    "pow": (lambda a, b: a**b, [positive(3, 1), signed(1, 4)]),
    "pow of a negative": (lambda a: a**3.0, [-positive(3, 2)]),
    "maximum": (ir.maximum, [signed(3, 1), signed(4)[::-1].copy()]),
    "minimum": (ir.minimum, [signed(3, 1), signed(4)[::-1].copy()]),
    "where": (lambda a, b: ir.where(a > 0.2, a, b), [signed(3, 4), signed(4)]),
    "clamp": (lambda x: ir.clamp(x, -0.5, 0.8), [signed(5, 4)]),
    "cast": (lambda x: ir.cast(ir.cast(x, "i32"), "f64") * x, [signed(5)]),
    "reshape": (lambda x: ir.reshape(x, [2, 6]), [signed(3, 4)]),
    "transpose": (lambda x: ir.transpose(x, [2, 0, 1]), [signed(2, 3, 4)]),
    "broadcast": (lambda x: ir.broadcast_to(x, [5, 3, 4]), [signed(3, 1)]),
    "narrow": (lambda x: ir.narrow(x, 1, 1, 2), [signed(3, 4)]),
    "pad": (lambda x: ir.pad(x, 1, 2, 1), [signed(3, 4)]),
    "concat": (lambda a, b: ir.concat([a, b, a], 1), [signed(3, 4), signed(3, 2)]),
    "gather": (lambda x: ir.gather(x, ids(x.graph)), [signed(4, 3)]),
    "scatter_add": (lambda a, b: ir.scatter_add(a, ids(a.graph), b), [signed(4, 3), signed(2, 2, 3)]),
    "stop_gradient": (lambda a: ir.stop_gradient(a) + a * 0.0 + a - a, [signed(3)]),
    "sum": (lambda x: ir.sum(x, [0, 2]), [signed(2, 3, 4)]),
    "sum kept": (lambda x: ir.sum(x, -1, keepdims=True), [signed(2, 3)]),
    "mean": (lambda x: ir.mean(x, 1), [signed(2, 3, 4)]),
    "reduce_max": (lambda x: ir.reduce_max(x, 1), [signed(2, 3, 4)]),
    "reduce_min": (lambda x: ir.reduce_min(x, [0, 1], keepdims=True), [signed(2, 3, 4)]),
    "matmul": (lambda a, b: a @ b, [signed(3, 4), signed(4, 2)]),
    "constant": (lambda x: x * x.graph.constant(signed(3)), [signed(2, 3)]),
    "full": (lambda x: x * ir.full_like(x, 3.0), [signed(2, 3)]),
}
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
