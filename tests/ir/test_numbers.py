"""Numbers that join a graph: as constants, first values, feeds; taken whole or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stipple import ir
from stipple.errors import FeedError, GraphError
from stipple.ir import Graph, Value
from stipple.ir.serialize import load, save
from stipple.runtime import Session


def value(dtype: str) -> Value:
    return Graph("t").input("x", [3], dtype)


CUT: dict[str, tuple[str, Callable[[Value], Any]]] = {
    "half of an integer": ("i32", lambda x: x * 0.5),
    "a bound between integers": ("i32", lambda x: x < 2.5),
    "beyond a byte": ("u8", lambda x: x + 300),
    "below a byte": ("u8", lambda x: -1 + x),
    "beyond an integer": ("i32", lambda x: ir.maximum(x, 1 << 31)),
    "no number": ("i32", lambda x: ir.where(x < 1, x, float("nan"))),
    "infinite": ("i32", lambda x: x + float("inf")),
    "beyond f32": ("f32", lambda x: x * 1e39),
    "a number as a truth value": ("bool", lambda x: ir.equal(x, 1)),
    "an array with a fraction": ("i32", lambda x: x + np.array([1, 2, 2.5])),
    "a full byte": ("u8", lambda x: ir.full_like(x, 300)),
    "full of halves": ("i32", lambda x: ir.full_like(x, 0.5)),
    "full beyond f32": ("f32", lambda x: ir.full_like(x, 1e39)),
    "constant": ("i32", lambda x: x.graph.constant([0.5], "i32")),
    "first value": ("i32", lambda x: x.graph.param("p", [1], "i32", [0.5])),
    "complex": ("f32", lambda x: x * np.complex64(1)),
    "text": ("f32", lambda x: x + "1"),
    "beyond 64 bits": ("f32", lambda x: x + 10**39),
    "ragged": ("f32", lambda x: x.graph.constant([[1], [2, 3]])),
    "two as a truth value": ("f32", lambda x: ir.full(x.graph, [2], 2, "bool")),
}


@pytest.mark.parametrize("name", CUT)
def test_numbers_that_a_dtype_lacks_are_refused(name: str) -> None:
    dtype, build = CUT[name]
    with pytest.raises(GraphError, match="expected"):
        build(value(dtype))


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(GraphError) as caught:
        value("i32") * 0.5
    assert str(caught.value) == (
        "a number used with i32: expected whole numbers from -2147483648 to 2147483647, got 0.5; cast the value, "
        "or use another number"
    )


@pytest.mark.parametrize("build", [ir.add, ir.sub, ir.mul, ir.maximum, ir.less, ir.less_equal, lambda a, b: -a])
def test_truth_values_have_no_arithmetic(build: Callable[..., Value]) -> None:
    x = value("bool")
    with pytest.raises(GraphError, match=r"expected dtype (number|float), got bool\[3\]"):
        build(x, x)


def run(build: Callable[[Value], Value], dtype: str, feed: list[Any]) -> np.ndarray:
    x = value(dtype)
    x.graph.output("y", build(x))
    return Session("reference").compile(x.graph).run({"x": np.array(feed, x.dtype.numpy)})["y"]


def test_whole_numbers_and_arrays_join() -> None:
    assert run(lambda x: x * 2.0, "i32", [1, 2, 3]).tolist() == [2, 4, 6]
    assert run(lambda x: x + 255, "u8", [1, 2, 3]).tolist() == [0, 1, 2], "bytes wrap around"
    assert run(lambda x: np.array([1, 2, 3]) * x, "f32", [1, 2, 3]).tolist() == [1, 4, 9]
    assert run(lambda x: np.float32(2) * x, "f32", [1, 2, 3]).tolist() == [2, 4, 6]
    assert run(lambda x: ir.add(np.float32(2), x), "f32", [1, 2, 3]).tolist() == [3, 4, 5]
    assert run(lambda x: np.eye(3) @ ir.reshape(x, [3, 1]), "f32", [1, 2, 3]).tolist() == [[1], [2], [3]]
    assert run(lambda x: 2.0**x, "f32", [1, 2, 3]).tolist() == [2, 4, 8]
    assert run(lambda x: x * float("inf"), "f32", [1, 2, 3]).tolist() == [np.inf] * 3
    assert run(lambda x: ir.equal(x, True), "bool", [1, 0, 1]).tolist() == [True, False, True]


@pytest.mark.parametrize("build", [ir.exp, ir.sum, ir.transpose, ir.stop_gradient, lambda x: ir.reshape(x, [1])])
def test_builders_need_graph_values(build: Callable[[Any], Value]) -> None:
    for wrong in (1.0, np.ones(1), None):
        with pytest.raises(GraphError, match="expected a graph value, got"):
            build(wrong)


BROKEN: dict[str, tuple[Callable[[Value], Any], str]] = {
    "a graph's name": (lambda x: Graph(3), "graph name: letters"),
    "no dict of parameters": (lambda x: save(x.graph, "never", [1]), "save: params: expected a dict"),
    "no path": (lambda x: load(3), "load: path: expected a path, got int"),
    "no loss": (lambda x: ir.grad(x.graph, 3, [x]), "grad: the loss: expected a graph value, got int"),
    "no list of operands": (lambda x: x.graph.add("neg", x), "neg: inputs: expected a list of graph values"),
    "no list to join": (lambda x: ir.concat(x, 0), "concat: values: expected a list of graph values"),
    "no output": (lambda x: x.graph.output("y", 3), "output 'y': expected a graph value, got int"),
    "no update": (lambda x: x.graph.update(3, x), "update: expected a graph value, got int"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_calls_are_told(name: str) -> None:
    build, message = BROKEN[name]
    with pytest.raises(GraphError, match=message):
        build(value("f32"))


@pytest.mark.parametrize(
    ("base", "power", "gradient"),
    [(0.0, -1.0, 0), (-1e30, 2.0, 0), (float("-inf"), 1.0, 0), (1.0, 3.0, 0), (2.0, 1.0, 1)],
)
def test_gradients_in_an_exponent(base: float, power: float, gradient: float, any_session: Session) -> None:
    graph = Graph("t")
    y = graph.input("y", [1])
    graph.output("v", ir.grad(graph, ir.sum(graph.input("x", [1]) ** y), [y])[0])
    feeds = {"x": np.array([base], np.float32), "y": np.array([power], np.float32)}
    wanted = gradient * 2 * np.log(2)
    np.testing.assert_allclose(any_session.compile(graph).run(feeds)["v"], [wanted], rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "feed"), [("i32", 0.5), ("i32", [1.5]), ("u8", 256), ("bool", 2), ("i32", float("nan")), ("f32", 1e39)]
)
def test_feeds_are_not_cut_off(dtype: str, feed: Any) -> None:
    graph = Graph("t")
    x = graph.input("x", [1] if isinstance(feed, list) else [], dtype)
    graph.output("y", x)
    with pytest.raises(FeedError, match=rf"feed 'x': {dtype}.*: expected .*, got"):
        Session("reference").compile(graph).run({"x": feed})


def test_scalar_parameters_are_saved_and_loaded(tmp_path: Path) -> None:
    graph = Graph("t")
    p = graph.param("p", [], "f32", 2.5)
    graph.output("y", p * 2.0)
    save(graph, tmp_path / "graph")
    exe = Session("reference").compile(load(tmp_path / "graph"))
    assert float(exe.run({})["y"]) == 5
    save(graph, tmp_path / "graph", {"p": exe.get_param("p") + 1})
    assert float(Session("reference").compile(load(tmp_path / "graph")).run({})["y"]) == 7


@pytest.mark.parametrize("wrong", [np.ones(3), np.array("x"), np.array(1e300), [[1]]])
def test_saved_parameters_must_fit(wrong: Any, tmp_path: Path) -> None:
    graph = Graph("t")
    graph.output("y", graph.param("p", [2], "f32", [1, 2]))
    save(graph, tmp_path / "graph")
    before = (tmp_path / "graph").read_bytes()
    with pytest.raises(GraphError, match="param 'p': init: "):
        save(graph, tmp_path / "graph", {"p": wrong})
    assert (tmp_path / "graph").read_bytes() == before


def test_saved_parameters_have_the_parameters_dtype(tmp_path: Path) -> None:
    graph = Graph("t")
    graph.output("y", graph.param("p", [2], "f32", [1, 2]))
    save(graph, tmp_path / "graph", {"p": np.array([3.0, 4.0])})
    assert load(tmp_path / "graph").param_values["p"].dtype == np.float32


def test_what_depends_on_sizes_is_not_folded() -> None:
    graph = Graph("t")
    x = graph.input("x", ["N"])
    graph.output("y", ir.narrow(graph.constant([1.0, 2, 3, 4], "f32"), 0, "N", 2))
    graph.output("n", x)
    exe = Session("reference").compile(graph)
    assert exe.run({"x": np.zeros(1, np.float32)})["y"].tolist() == [2, 3]
    assert exe.run({"x": np.zeros(2, np.float32)})["y"].tolist() == [3, 4]


def test_adding_zero_keeps_only_the_zero_that_adds_nothing() -> None:
    assert not np.signbit(run(lambda x: x + 0.0, "f32", [-0.0] * 3)).any()
    assert np.signbit(run(lambda x: x + -0.0, "f32", [-0.0] * 3)).all()


@pytest.mark.parametrize(("power", "gradient"), [(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)])
def test_gradients_of_powers_at_zero(power: float, gradient: float, any_session: Session) -> None:
    graph = Graph("t")
    x = graph.input("x", [1])
    y = x ** graph.input("power", [])
    graph.output("v", ir.grad(graph, ir.sum(y), [x])[0])
    exe = any_session.compile(graph)
    assert exe.run({"x": np.zeros(1, np.float32), "power": power})["v"].tolist() == [gradient]
