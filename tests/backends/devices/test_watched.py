"""Every kernel under watch (``Session(..., debug=True)``): operands, results and memory are what the protocol says."""

from __future__ import annotations

import numpy as np
import pytest

from backends.devices.held_to_reference import gradients, rounded
from backends.devices.stepping import stepper_on
from backends.devices.test_other_ops import build_f32
from ir_cases import CASES
from scenes import loss_weights, random_scene
from stipple import ir
from stipple.runtime import Session
from training import training_step


@pytest.fixture
def watched(session: Session) -> Session:
    return Session(session.backend, debug=True)


@pytest.mark.parametrize("name", [n for n in CASES if n != "stop_gradient"])
def test_generic_ops(name: str, watched: Session) -> None:
    build, arrays = CASES[name]
    graph = ir.Graph("case")
    values = [graph.input(f"x{i}", a.shape, "f32") for i, a in enumerate(arrays)]
    out = build(*values) if name not in ("cast", "constant") else build_f32(name, values[0])
    graph.output("out", out)
    for i, v in enumerate(ir.grad(graph, ir.sum(out), values)):
        graph.output(f"v{i}", v)
    watched.compile(graph, passes=[]).run({f"x{i}": a.astype(np.float32) for i, a in enumerate(arrays)})


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("fused", [False, True])
def test_rendering(projection: str, fused: bool, watched: Session) -> None:
    scene = rounded(random_scene(9, count=20, projection=projection, sh_degree=1))
    gradients(scene, watched, "f32", loss_weights(scene), fused)


def test_training_graph(watched: Session) -> None:
    graph, feeds = training_step()
    executable = watched.compile(graph)
    for step in (1, 2):
        executable.run({**feeds, "step": float(step)})
    assert all(d.inplace for d in executable.dispatch if d.op == "adam")


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_training_steps(strategy: str, watched: Session) -> None:
    stepper, frames = stepper_on(watched, strategy, 4, {"exposure": True, "poses": True})
    for step in (1, 2):
        stepper.run(step, step, frames[step])
    stepper.edit(lambda state: state.rearrange(np.arange(9), np.arange(9) > 5))
    stepper.run(3, 0, frames[0])
