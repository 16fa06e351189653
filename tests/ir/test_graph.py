"""Building graphs: what builders refuse, and what people read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scenes import declare, prepare_and_rasterize, random_scene
from stipple import ir
from stipple.errors import GraphError
from stipple.ir.op import REGISTRY
from stipple.runtime import Session


def graph_with(*shapes: object, dtype: str = "f32") -> tuple[ir.Graph, list[ir.Value]]:
    graph = ir.Graph("t")
    return graph, [graph.input(f"x{i}", s, dtype) for i, s in enumerate(shapes)]  # type: ignore[arg-type]


def test_operators_build_nodes() -> None:
    graph, (a, b) = graph_with(["N", 3], [3])
    value = (a * b + 1.0) / 2 - -(a**2)
    assert value.shape == ("N", 3)
    assert [n.op for n in graph][2:] == [
        "mul",
        "constant",
        "add",
        "constant",
        "div",
        "constant",
        "pow",
        "neg",
        "sub",
    ]
    assert (1 - a).node.inputs[1] is a
    assert (a > b).dtype is ir.DType.BOOL
    assert abs(a).node.op == "abs"
    with pytest.raises(GraphError, match="truth value"):
        bool(a > b)


REFUSALS: dict[str, tuple[Callable[[ir.Graph, ir.Value, ir.Value], object], str]] = {
    "shapes": (lambda g, a, b: a + g.input("c", [4]), r"add: shapes \[N, 3\] and \[4\] do not broadcast"),
    "symbols": (lambda g, a, b: a + g.input("c", ["M", 3]), r"add: shapes .* do not broadcast"),
    "dtypes": (
        lambda g, a, b: a + g.input("c", [3], "f64"),
        r"add: .*different dtypes: f32.* and f64|add: b: expected dtype",
    ),
    "float only": (
        lambda g, a, b: ir.exp(g.input("c", [3], "i32")),
        r"exp: x: expected dtype float, got i32\[3\]",
    ),
    "operand count": (lambda g, a, b: g.add("add", [a]), r"add: takes 2 operands \(a, b\), got 1"),
    "unknown op": (lambda g, a, b: g.add("ad", [a]), r"no op is called 'ad'"),
    "unknown attribute": (
        lambda g, a, b: g.add("sum", [a], {"axis": (0,)}),
        r"sum: no attribute 'axis'; it has: axes, keepdims",
    ),
    "missing attribute": (lambda g, a, b: g.add("sum", [a]), r"sum: axes is required"),
    "axis": (lambda g, a, b: ir.sum(a, 2), r"sum: axes: expected axes of \[N, 3\]"),
    "reshape": (
        lambda g, a, b: ir.reshape(a, ["N", 4]),
        r"reshape: \[N, 3\] has 3\*N elements, \[N, 4\] has 4\*N",
    ),
    "permutation": (lambda g, a, b: ir.transpose(a, [0]), r"transpose: axes: expected a permutation"),
    "narrow": (lambda g, a, b: ir.narrow(a, 1, 2, 2), r"narrow: .* are outside axis 1 of \[N, 3\]"),
    "concat": (
        lambda g, a, b: ir.concat([a, b]),
        r"concat: x\[1\]: expected f32\[N, 3\] except in axis 0, got f32\[3\]",
    ),
    "gather ids": (lambda g, a, b: ir.gather(a, b), r"gather: ids: expected dtype i32, got f32\[3\]"),
    "matmul": (lambda g, a, b: a @ a, r"matmul: b: expected shape \[K, P\] with K = 3 from a, got \[N, 3\]"),
    "other graph": (lambda g, a, b: a + ir.Graph("other").input("z", [3]), r"belongs to the graph 'other'"),
    "not a value": (lambda g, a, b: g.add("add", [a, 3]), r"add: operand 1: expected a graph value, got int"),
    "text": (lambda g, a, b: a + "1", r"expected a graph value or a number, got str"),
    "name taken": (lambda g, a, b: g.param("x0", [1]), r"the name 'x0' is taken"),
    "bad name": (lambda g, a, b: g.input("a b", [1]), r"input: name: letters"),
    "bad symbol": (lambda g, a, b: g.input("q", ["E.1"]), r"symbol names are letters"),
    "polynomial input": (lambda g, a, b: g.input("q", ["2*N"]), r"ints or plain symbols"),
    "update type": (
        lambda g, a, b: g.update(g.param("p", [3]), a),
        r"update: parameter 'p': expected f32\[3\], got f32\[N, 3\]",
    ),
    "update rank": (
        lambda g, a, b: g.update(g.param("p", ["N"]), a),
        r"update: parameter 'p': expected f32\[N\], got f32\[N, 3\]",
    ),
    "update dtype": (
        lambda g, a, b: g.update(g.param("p", ["M", 3], "i32"), a),
        r"update: parameter 'p': expected i32\[M, 3\], got f32\[N, 3\]",
    ),
    "update of no param": (lambda g, a, b: g.update(a, a), r"%x0 is not a parameter"),
    "clamp": (lambda g, a, b: ir.clamp(a, 2, 1), r"clamp: low: expected at most high"),
    "init": (
        lambda g, a, b: g.param("p", ["N", 3], init=[[1, 2]]),
        r"param 'p': init: expected shape \[N, 3\], got \[1, 2\]",
    ),
    "big ints": (
        lambda g, a, b: g.constant([1 << 40]),
        r"constant: expected whole numbers from -2147483648 to 2147483647, got 1099",
    ),
    "bad dtype": (
        lambda g, a, b: g.constant(np.ones(2, np.complex64)),
        r"constant: expected numbers, got an array of complex64",
    ),
    "input by add": (lambda g, a, b: g.add("input", []), r"created by Graph.input"),
    "nan attribute": (lambda g, a, b: ir.clamp(a, float("nan")), r"clamp: low: expected a number"),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_builders_refuse_and_say_why(case: str) -> None:
    graph, (a, b) = graph_with(["N", 3], [3])
    build, message = REFUSALS[case]
    with pytest.raises(GraphError, match=message):
        build(graph, a, b)
    ir.verify(graph)  # what was refused left nothing behind


def test_split_refuses_and_says_why() -> None:
    _, (a,) = graph_with([3, 4])
    for axis, at, message in ((2, 1, "axis: expected an axis of"), (1, 5, "at: expected 0 to 4"), (0, -1, "at: ")):
        with pytest.raises(GraphError, match=f"split: {message}"):
            ir.split(a, axis, at)
    assert [v.shape.static for v in ir.split(a, 1, 4)] == [(3, 4), (3, 0)]


SPLAT_REFUSALS = {
    "unequal N": (
        {"quats": ["M", 4]},
        {},
        r"splat_prepare: quats: expected shape \[N, 4\] with N = N from means, got \[M, 4\]",
    ),
    "quats width": ({"quats": ["N", 3]}, {}, r"quats: expected shape \[N, 4\]"),
    "sh coefficients": (
        {"colors": ["N", 4, 3]},
        {"sh_degree": 2},
        r"sh_degree 2 needs at least 9 coefficients",
    ),
    "sh rank": ({"colors": ["N", 3]}, {"sh_degree": 0}, r"colors: expected shape \[N, K, C\]"),
    "colors rank": ({"colors": ["N", 1, 3]}, {}, r"colors: expected shape \[N, C\]"),
    "width": ({}, {"width": 0}, r"splat_prepare: width: expected an int >= 1 .*got 0"),
    "cutoff": ({}, {"alpha_cutoff": 1.5}, r"alpha_cutoff: expected a number >= 0 and <= 0.98, got 1.5"),
    "projection": ({}, {"projection": "fisheye"}, r"projection: expected one of ewa, ray, got 'fisheye'"),
    "camera model": ({}, {"camera_model": "lens"}, r"camera_model: expected one of pinhole, ortho, fisheye"),
    "distortion": (
        {},
        {"camera_model": "fisheye"},
        r"distortion: expected 4 coefficients for camera_model='fisheye', got f64\[0\]",
    ),
    "antialiased ray": (
        {},
        {"projection": "ray", "antialiased": True},
        r"antialiased: needs projection='ewa'",
    ),
    "background": (
        {"background": [4]},
        {},
        r"splat_rasterize: background: expected shape \[F\] with F = 4 from features, got \[5\]",
    ),
}


@pytest.mark.parametrize("case", list(SPLAT_REFUSALS))
def test_splat_builders_refuse_and_say_why(case: str) -> None:
    shapes, attrs, message = SPLAT_REFUSALS[case]
    scene = random_scene(0)
    graph = ir.Graph("t")
    values = declare(graph, scene)
    for name, shape in shapes.items():
        values[name] = graph.input(f"other_{name}", shape, "f64")
    with pytest.raises(GraphError, match=message):
        prepare_and_rasterize(values, {**scene.attrs, **attrs})


def test_each_output_and_parameter_has_one_writer() -> None:
    graph, (a, b) = graph_with([3], [3])
    graph.output("y", a)
    with pytest.raises(GraphError, match="'y' is already written by %x0"):
        graph.output("y", b)
    p = graph.param("p", [3])
    graph.update(p, a)
    with pytest.raises(GraphError, match="parameter 'p' is already written by %x0"):
        graph.update(p, b)


def test_every_op_is_documented_and_has_a_reference_kernel() -> None:
    backend = Session("reference").backend
    graph, (a,) = graph_with([3])
    for name, definition in REGISTRY.items():
        assert definition.doc, name
        if definition.source or name == "constant" or definition.elementwise or definition.expand is not None:
            continue  # elementwise kernels are made for a node's types; tests/ir_cases.py has a case of each
        node = ir.Node(graph, 0, definition, (), {}, [])
        assert backend.kernel(node) is not None, name
    assert a.node.op == "input"


def test_a_graph_prints_for_people() -> None:
    graph, (x, target) = graph_with(["N", 3], ["N", 3])
    p = graph.param("gain", [3], init=[1, 2, 3])
    loss = ir.mean((x * p * 0.5 - target) ** 2)
    graph.output("loss", loss)
    graph.update(p, p - ir.grad(graph, loss, [p])[0] * 0.1)
    text = str(graph)
    assert "graph t" in text
    assert "%gain: f32[3]   (value stored)" in text
    assert "mul(%3, 0.5)" in text
    assert "loss = " in text
    assert "updates" in text
    assert max(len(line) for line in text.splitlines()) < 120
    dot = ir.to_dot(graph)
    assert dot.startswith('digraph "t" {')
    assert dot.count("{") == dot.count("}")


def test_verify_finds_what_was_tampered_with() -> None:
    def fresh() -> tuple[ir.Graph, ir.Value]:
        graph, (x,) = graph_with(["N", 3])
        y = ir.exp(x) + 1.0
        graph.output("y", y)
        return graph, y

    graph, y = fresh()
    ir.verify(graph)
    y.type = ir.TensorType(ir.Shape([3]), ir.DType.F32)
    with pytest.raises(GraphError, match="are not the inferred"):
        ir.verify(graph)

    graph, y = fresh()
    graph.nodes[1].inputs = (y,)
    with pytest.raises(GraphError, match="does not exist before it"):
        ir.verify(graph)

    graph, y = fresh()
    graph.nodes[3], graph.nodes[2] = graph.nodes[2], graph.nodes[3]
    with pytest.raises(GraphError, match="has number"):
        ir.verify(graph)

    graph, y = fresh()
    graph.inputs.clear()
    with pytest.raises(GraphError, match="inputs are not its input nodes"):
        ir.verify(graph)

    graph, y = fresh()
    graph.outputs["y"] = ir.Graph("other").constant(1.0)
    with pytest.raises(GraphError, match="output 'y'"):
        ir.verify(graph)


def test_a_symbol_that_nothing_binds_is_refused() -> None:
    graph, (_x,) = graph_with([3])
    graph.output("y", ir.full(graph, ["M", 2], 1.0))
    with pytest.raises(GraphError, match="binds the symbol M"):
        ir.verify(graph)
