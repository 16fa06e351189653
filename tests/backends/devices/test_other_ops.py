"""Every device's other kernels held to the reference: images, Adam, elementwise groups; and whole training steps."""

from __future__ import annotations

import numpy as np
import pytest

from backends.devices.held_to_reference import compare
from ir_cases import CASES, signed
from stipple import ir
from stipple.errors import GraphError, InputError, UnsupportedOpError
from stipple.runtime import Session
from training import training_step

REFERENCE = Session("reference")


def both(
    session: Session, graph: ir.Graph, feeds: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return session.compile(graph).run(feeds), REFERENCE.compile(graph).run(feeds)


@pytest.mark.parametrize("shape", [(40, 53, 3), (11, 11, 1), (5, 7, 2), (1, 1, 4), (100, 3, 3)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("together", [False, True])
def test_image_losses(shape: tuple[int, int, int], padding: str, together: bool, session: Session) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, *shape)).astype(np.float32)
    graph = ir.Graph("t")
    a, b = graph.input("a", ["H", "W", "C"]), graph.input("b", ["H", "W", "C"])
    l1, ssim = ir.image_l1_ssim(a, b, padding) if together else (ir.image_l1(a, b), ir.image_ssim(a, b, padding))
    loss = 0.8 * l1 + 0.2 * (1.0 - ssim)
    graph.output("loss", loss)
    graph.output("ssim", ssim)
    for name, value in zip("ab", ir.grad(graph, loss, [a, b]), strict=True):
        graph.output(f"v_{name}", value)
    feeds = {"a": images[0], "b": images[1]}
    if padding == "valid" and min(shape[:2]) < 11:
        with pytest.raises(InputError, match="at least 11 x 11"):
            session.compile(graph).run(feeds)
        return
    given, wanted = both(session, graph, feeds)
    for name in ("loss", "ssim"):
        assert float(given[name]) == pytest.approx(float(wanted[name]), rel=1e-5, abs=1e-6)
    for name in ("v_a", "v_b"):
        compare(name, given[name], wanted[name])


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_adam(masked: bool, columns: bool, session: Session) -> None:
    rng = np.random.default_rng(1)
    rates = np.arange(6).reshape(2, 3) * 0.01
    graph = ir.Graph("t")
    p, m, v = (graph.param(n, ["N", 2, 3]) for n in "pmv")
    grad, step = graph.input("grad", ["N", 2, 3]), graph.input("step", [])
    visible = graph.input("visible", ["N"], "bool") if masked else None
    update = ir.adam(p, grad, m, v, graph.constant(rates, "f32") if columns else 0.01, step, visible=visible)
    for target, value in zip((p, m, v), update, strict=True):
        graph.update(target, value)
    results = []
    for device in (session, REFERENCE):
        rng = np.random.default_rng(1)
        exe = device.compile(graph)
        start = rng.normal(size=(20_000, 2, 3)).astype(np.float32)
        exe.set_param("p", start)
        exe.set_param("m", np.zeros_like(start))
        exe.set_param("v", np.zeros_like(start))
        for i in range(1, 5):
            feeds = {"grad": rng.normal(size=start.shape).astype(np.float32), "step": float(i)}
            if masked:
                feeds["visible"] = rng.uniform(size=len(start)) < 0.3
            exe.run(feeds)
        results.append({n: exe.get_param(n) for n in "pmv"})
    for name in "pmv":
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=2e-5, atol=2e-6)
    if masked:
        assert np.any(np.all(results[0]["p"] == start, axis=(1, 2))), "rows that were never visible stay"


@pytest.mark.parametrize("shape", [(5, 0), (0, 3), (0,), (2, 0, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_adam_on_nothing(shape: tuple[int, ...], masked: bool, session: Session) -> None:
    graph = ir.Graph("t")
    p, m, v = (graph.param(n, shape, "f32", np.zeros(shape)) for n in "pmv")
    visible = graph.input("visible", shape[:1], "bool") if masked else None
    update = ir.adam(p, p + 1.0, m, v, graph.input("rates", shape[1:]), graph.constant(1.0, "f32"), visible=visible)
    for target, value in zip((p, m, v), update, strict=True):
        graph.update(target, value)
    exe = session.compile(graph)
    exe.run({"rates": np.ones(shape[1:], np.float32), **({"visible": np.ones(shape[0], bool)} if masked else {})})
    assert exe.get_param("p").shape == shape


@pytest.mark.parametrize("beta2", [0.999, 0.9999999])
def test_the_shares_of_adams_moments(beta2: float, session: Session) -> None:
    """1 - beta2 is a share of its own: in float32 the difference may be a fifth off."""
    graph = ir.Graph("t")
    p = graph.input("p", [3])
    update = ir.adam(p, p, p * 0.0, p * 0.0, 0.1, graph.constant(1.0, "f32"), beta1=0.9999, beta2=beta2)
    graph.output("m", update.m)
    graph.output("v", update.v)
    values = np.array([1, 2, 3], np.float32)
    made = session.compile(graph).run({"p": values})
    np.testing.assert_allclose(made["m"], (1 - 0.9999) * values, rtol=1e-6)
    np.testing.assert_allclose(made["v"], (1 - beta2) * values**2, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (5, 5, 0)])
@pytest.mark.parametrize("together", [False, True])
def test_images_without_pixels(shape: tuple[int, int, int], together: bool, any_session: Session) -> None:
    graph = ir.Graph("t")
    a, b = graph.input("a", ["H", "W", "C"]), graph.input("b", ["H", "W", "C"])
    l1, ssim = ir.image_l1_ssim(a, b) if together else (ir.image_l1(a, b), ir.image_ssim(a, b))
    graph.output("l1", l1)
    graph.output("ssim", ssim)
    for name, value in zip("ab", ir.grad(graph, l1 + ssim, [a, b]), strict=True):
        graph.output(f"v_{name}", value)
    made = any_session.compile(graph).run({n: np.zeros(shape, np.float32) for n in "ab"})
    assert (made["l1"], made["ssim"]) == (0, 1), "nothing differs"
    assert made["v_a"].shape == made["v_b"].shape == shape


def test_long_sums_are_exact_to_the_last_bits(session: Session) -> None:
    values = np.random.default_rng(0).uniform(size=(3_000_000 if session.device == "cpu" else 300_000, 3))
    graph = ir.Graph("t")
    x = graph.input("x", ["N", 3])
    graph.output("rows", ir.sum(x, 0))
    graph.output("all", ir.mean(x))
    given = values.astype(np.float32)
    made = session.compile(graph).run({"x": given})
    np.testing.assert_allclose(made["rows"], given.sum(axis=0, dtype=np.float64), rtol=3e-7)
    np.testing.assert_allclose(made["all"], given.mean(dtype=np.float64), rtol=3e-7)


def test_masks_must_fit() -> None:
    graph = ir.Graph("t")
    p = graph.param("p", ["N", 3])
    with pytest.raises(GraphError, match="visible: expected one bool for each row"):
        ir.adam(p, p, p, p, 0.1, graph.constant(1.0, "f32"), visible=graph.input("mask", ["M"], "bool"))


@pytest.mark.parametrize("shape", [(200_000, 3), (7, 50_000), (300_000,), (2, 3), ()])
def test_elementwise_groups(shape: tuple[int, ...], session: Session) -> None:
    rng = np.random.default_rng(2)
    graph = ir.Graph("t")
    x, y = graph.input("x", shape), graph.input("y", shape)
    row = graph.input("row", shape[-1:] if shape else ())
    z = ir.sigmoid(x * 2.0 + y) * ir.exp(-ir.square(x)) + row
    graph.output("z", ir.where(z > 0.5, ir.clamp(z, 0.0, 1.0), ir.tanh(z)))
    exe = session.compile(graph)
    assert [d.op for d in exe.dispatch] == ["fused"]
    feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in (("x", shape), ("y", shape), ("row", shape[-1:]))}
    given, wanted = both(session, graph, feeds)
    np.testing.assert_allclose(given["z"], wanted["z"], rtol=1e-4, atol=1e-6)
    again = session.compile(graph).run(feeds)
    assert again["z"].tobytes() == given["z"].tobytes()


def test_columns_broadcast_in_blocks(session: Session) -> None:
    graph = ir.Graph("t")
    x, column = graph.input("x", ["N", 3]), graph.input("column", ["N", 1])
    graph.output("z", ir.exp(x) * column + column)
    rng = np.random.default_rng(3)
    feeds = {
        "x": rng.normal(size=(50_000, 3)).astype(np.float32),
        "column": rng.normal(size=(50_000, 1)).astype(np.float32),
    }
    given, wanted = both(session, graph, feeds)
    np.testing.assert_allclose(given["z"], wanted["z"], rtol=1e-5, atol=1e-6)


def test_training_steps_follow_the_reference(session: Session) -> None:
    graph, feeds = training_step()
    given, reference = session.compile(graph), REFERENCE.compile(graph)
    for i in range(1, 21):
        a = float(given.run({**feeds, "step": float(i)})["loss"])
        b = float(reference.run({**feeds, "step": float(i)})["loss"])
        assert a == pytest.approx(b, rel=1e-3)
    assert all(d.inplace for d in given.dispatch if d.op == "adam")


def test_float64_graphs_are_refused_by_name(session: Session) -> None:
    graph = ir.Graph("t")
    graph.output("y", ir.exp(graph.input("x", [3], "f64")))
    with pytest.raises(
        UnsupportedOpError, match=f"device '{session.device}' has no (kernel for: exp|f64: %x of input)"
    ):
        session.compile(graph)


def test_float64_values_that_no_op_touches(session: Session) -> None:
    """The CPU's memory holds them, a GPU's does not, and says so when the graph is compiled."""
    graph = ir.Graph("t")
    graph.output("x", graph.input("x", [3], "f64"))
    if session.device == "cpu":
        assert session.compile(graph).run({"x": np.arange(3.0)})["x"].tolist() == [0, 1, 2]
        return
    with pytest.raises(UnsupportedOpError, match=rf"device '{session.device}' has no f64: %x of input is f64\[3\]"):
        session.compile(graph)


def test_every_op_has_a_kernel(session: Session) -> None:
    """But those that only a GPU's own passes make."""
    for name, definition in ir.REGISTRY.items():
        if name.endswith("_listed") and session.device == "cpu":
            continue
        if not definition.source and name != "constant" and not definition.elementwise and definition.expand is None:
            types = [ir.TensorType(ir.Shape([2]), ir.DType.F32)] * len(definition.results)
            node = ir.Node(ir.Graph("t"), 0, definition, (), {"program": ()}, types)
            assert session.backend.kernel(node) is not None, name


@pytest.mark.parametrize("name", [n for n in CASES if n != "stop_gradient"])
def test_every_generic_op_and_its_gradient(name: str, session: Session) -> None:
    build, arrays = CASES[name]
    results = []
    for device in (session, REFERENCE):
        graph = ir.Graph("case")
        values = [graph.input(f"x{i}", a.shape, "f32") for i, a in enumerate(arrays)]
        out = build(*values) if name not in ("cast", "constant") else build_f32(name, values[0])
        graph.output("out", out)
        weights = np.random.default_rng(3).normal(size=out.shape.static).astype(np.float32)
        for i, v in enumerate(ir.grad(graph, ir.sum(out * graph.constant(weights)), values)):
            graph.output(f"v{i}", v)
        feeds = {f"x{i}": a.astype(np.float32) for i, a in enumerate(arrays)}
        results.append(device.compile(graph, passes=[]).run(feeds))
    for key, wanted in results[1].items():
        np.testing.assert_allclose(results[0][key], wanted, rtol=2e-5, atol=2e-5, err_msg=key)


def build_f32(name: str, x: ir.Value) -> ir.Value:
    """The cases that name float64 themselves."""
    if name == "cast":
        return ir.cast(ir.cast(x, "i32"), "f32") * x
    return x * x.graph.constant(signed(3).astype(np.float32))


@pytest.mark.parametrize("op", ["less", "less_equal", "equal", "logical_and", "logical_or", "logical_not"])
def test_truth_values(op: str, session: Session) -> None:
    graph = ir.Graph("t")
    a, b = graph.input("a", [40]), graph.input("b", [40])
    build = getattr(ir, op)
    if op.startswith("logical"):
        a_, b_ = a > 0.0, b > 0.0
        graph.output("out", build(a_) if op == "logical_not" else build(a_, b_))
    else:
        graph.output("out", build(a, b))
    rng = np.random.default_rng(0)
    feeds = {"a": rng.integers(-2, 3, 40).astype(np.float32), "b": rng.integers(-2, 3, 40).astype(np.float32)}
    given, wanted = (s.compile(graph).run(feeds)["out"] for s in (session, REFERENCE))
    assert given.dtype == bool
    np.testing.assert_array_equal(given, wanted)


def test_finite_or_not(session: Session) -> None:
    graph = ir.Graph("t")
    x = graph.input("x", ["N"])
    graph.output("alone", ir.isfinite(x))
    graph.output("counted", ir.sum(ir.cast(ir.isfinite(x * 2.0), "f32")))
    values = np.array([0, -0.0, 1, -3e38, 1e-45, np.inf, -np.inf, np.nan, -np.nan, 3], np.float32)
    made = session.compile(graph).run({"x": values})
    np.testing.assert_array_equal(made["alone"], np.isfinite(values))
    assert made["counted"] == 5, "twice 3e38 is infinite"


def test_long_reductions_and_bytes(session: Session) -> None:
    graph = ir.Graph("t")
    pixels = graph.input("pixels", ["H", "W", 3], "u8")
    x = ir.cast(pixels, "f32") * (1 / 255)
    graph.output("mean", ir.mean(x))
    graph.output("rows", ir.sum(x, 1))
    graph.output("columns", ir.sum(x, 0))
    graph.output("channels", ir.reduce_max(x, [0, 1]))
    graph.output("back", ir.cast(x * 200.0, "u8"))
    feeds = {"pixels": np.random.default_rng(0).integers(0, 256, (301, 203, 3)).astype(np.uint8)}
    given, wanted = (s.compile(graph).run(feeds) for s in (session, REFERENCE))
    for name in ("mean", "rows", "columns", "channels"):
        np.testing.assert_allclose(given[name], wanted[name], rtol=2e-5)
    assert given["back"].dtype == np.uint8
    assert np.abs(given["back"].astype(int) - wanted["back"]).max() <= 1


def test_sine_and_cosine_at_all_quadrants(session: Session) -> None:
    """To float32's precision, which the built-in functions of GPUs do not promise."""
    x = np.concatenate([np.linspace(-7, 7, 20_001), np.linspace(-8000, 8000, 20_001), [1e-20, 0.0]]).astype(np.float32)
    graph = ir.Graph("t")
    value = graph.input("x", ["N"])
    graph.output("sin", ir.sin(value))
    graph.output("cos", ir.cos(value))
    graph.output("both", ir.sin(value) * ir.cos(value) + value)
    given, wanted = both(session, graph, {"x": x})
    np.testing.assert_allclose(given["sin"], wanted["sin"], atol=5e-7)
    np.testing.assert_allclose(given["cos"], wanted["cos"], atol=5e-7)
    np.testing.assert_allclose(given["both"], wanted["both"], rtol=1e-6, atol=1e-6)
