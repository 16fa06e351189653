"""The CPU's other kernels held to the reference: images, Adam, elementwise groups; and whole training steps."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from cpu.held_to_reference import compare
from stipple import ir
from stipple.backends.cpu import CpuBackend
from stipple.errors import InputError, UnsupportedOpError
from stipple.runtime import Session
from training import training_step

CPU, REFERENCE = Session(CpuBackend()), Session("reference")
ROOT = Path(__file__).parents[2]


def both(graph: ir.Graph, feeds: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return CPU.compile(graph).run(feeds), REFERENCE.compile(graph).run(feeds)


@pytest.mark.parametrize("shape", [(40, 53, 3), (11, 11, 1), (5, 7, 2), (1, 1, 4), (100, 3, 3)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("together", [False, True])
def test_image_losses(shape: tuple[int, int, int], padding: str, together: bool) -> None:
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
            CPU.compile(graph).run(feeds)
        return
    given, wanted = both(graph, feeds)
    for name in ("loss", "ssim"):
        assert float(given[name]) == pytest.approx(float(wanted[name]), rel=1e-5, abs=1e-6)
    for name in ("v_a", "v_b"):
        compare(name, given[name], wanted[name])


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_adam(masked: bool, columns: bool) -> None:
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
    for session in (CPU, REFERENCE):
        rng = np.random.default_rng(1)
        exe = session.compile(graph)
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


def test_masks_must_fit() -> None:
    from stipple.errors import GraphError

    graph = ir.Graph("t")
    p = graph.param("p", ["N", 3])
    with pytest.raises(GraphError, match="visible: expected one bool for each row"):
        ir.adam(p, p, p, p, 0.1, graph.constant(1.0, "f32"), visible=graph.input("mask", ["M"], "bool"))


@pytest.mark.parametrize("shape", [(200_000, 3), (7, 50_000), (300_000,), (2, 3), ()])
def test_elementwise_groups(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    graph = ir.Graph("t")
    x, y = graph.input("x", shape), graph.input("y", shape)
    row = graph.input("row", shape[-1:] if shape else ())
    z = ir.sigmoid(x * 2.0 + y) * ir.exp(-ir.square(x)) + row
    graph.output("z", ir.where(z > 0.5, ir.clamp(z, 0.0, 1.0), ir.tanh(z)))
    exe = CPU.compile(graph)
    assert [d.op for d in exe.dispatch] == ["fused"]
    feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in (("x", shape), ("y", shape), ("row", shape[-1:]))}
    given, wanted = both(graph, feeds)
    np.testing.assert_allclose(given["z"], wanted["z"], rtol=1e-4, atol=1e-6)
    again = Session(CpuBackend(threads=3)).compile(graph).run(feeds)
    assert again["z"].tobytes() == given["z"].tobytes()


def test_columns_broadcast_in_blocks() -> None:
    graph = ir.Graph("t")
    x, column = graph.input("x", ["N", 3]), graph.input("column", ["N", 1])
    graph.output("z", ir.exp(x) * column + column)
    rng = np.random.default_rng(3)
    feeds = {
        "x": rng.normal(size=(50_000, 3)).astype(np.float32),
        "column": rng.normal(size=(50_000, 1)).astype(np.float32),
    }
    given, wanted = both(graph, feeds)
    np.testing.assert_allclose(given["z"], wanted["z"], rtol=1e-5, atol=1e-6)


def test_training_steps_follow_the_reference() -> None:
    graph, feeds = training_step()
    cpu, reference = CPU.compile(graph), REFERENCE.compile(graph)
    for i in range(1, 21):
        a = float(cpu.run({**feeds, "step": float(i)})["loss"])
        b = float(reference.run({**feeds, "step": float(i)})["loss"])
        assert a == pytest.approx(b, rel=1e-3)
    assert all(d.inplace for d in cpu.dispatch if d.op == "adam")


def test_float64_graphs_are_refused_by_name() -> None:
    graph = ir.Graph("t")
    graph.output("y", ir.exp(graph.input("x", [3], "f64")))
    with pytest.raises(UnsupportedOpError, match="device 'cpu' has no kernel for: exp"):
        CPU.compile(graph)


def test_every_op_has_a_kernel() -> None:
    for name, definition in ir.REGISTRY.items():
        if not definition.source and name != "constant":
            node = ir.Node(ir.Graph("t"), 0, definition, (), {"program": ()}, [])
            assert CPU.backend.kernel(node) is not None, name


def test_generated_harmonics_are_up_to_date() -> None:
    module = runpy.run_path(str(ROOT / "tools" / "generate_harmonics.py"))
    assert module["TARGET"].read_text() == module["generate"]()


def test_vector_functions_are_accurate() -> None:
    from numba import njit

    from stipple.backends.cpu.simd import LANES, vexp2, vload, vlog2, vstore

    @njit
    def both_functions(x: np.ndarray, powers: np.ndarray, logs: np.ndarray) -> None:
        for i in range(0, len(x), LANES):
            vstore(powers, i, vexp2(vload(x, i)))
            vstore(logs, i, vlog2(vload(powers, i)))

    x = np.linspace(-125, 125, 16 * 40_000).astype(np.float32)
    powers, logs = np.empty_like(x), np.empty_like(x)
    both_functions(x, powers, logs)
    exact = np.exp2(x.astype(np.float64))
    assert np.max(np.abs(powers - exact) / exact) <= 2e-6
    assert np.max(np.abs(logs - np.log2(powers.astype(np.float64)))) <= 2e-5
