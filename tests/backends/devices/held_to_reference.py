"""Comparing a device with the reference: images, and gradients of a weighted loss."""

from __future__ import annotations

import numpy as np

from compositor import composite
from scenes import (
    OPERANDS,
    Scene,
    declare,
    forward_graph,
    loss_weights,
    prepare_and_rasterize,
    relative_error,
    render,
)
from stipple import ir
from stipple.runtime import Session

IMAGE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
COSINE = 0.9999
GRADIENTS = (*(f"v_{n}" for n in OPERANDS), "v_means2d", "v_means2d_abs")


def gradients(
    scene: Scene, session: Session, dtype: str, weights: tuple[np.ndarray, np.ndarray], fused: bool = False
) -> dict[str, np.ndarray]:
    """Loss gradients on a device; images too."""
    graph = ir.Graph("gradients")
    values = declare(graph, scene, dtype)
    if fused:
        rgba, depth = ir.splat_render(*(values[n] for n in OPERANDS), **scene.attrs)
    else:
        rgba, depth = prepare_and_rasterize(values, scene.attrs)[1][:2]
    loss = ir.sum(rgba * graph.constant(weights[0], dtype)) + ir.sum(depth * graph.constant(weights[1], dtype))
    for name, value in zip(OPERANDS, ir.grad(graph, loss, [values[n] for n in OPERANDS]), strict=True):
        graph.output(f"v_{name}", value)
    node = ir.splat_backward_node(graph)
    for name in ("v_means2d", "v_means2d_abs"):
        graph.output(name, node.result(name))
    graph.output("rgba", rgba)
    graph.output("depth", depth)
    exe = session.compile(graph, passes=[] if fused else None)
    return exe.run(scene.feeds(np.float64 if dtype == "f64" else np.float32))


def rounded(scene: Scene) -> Scene:
    """The scene with its operands rounded to float32, so that both devices are given the same."""
    return scene.with_(**{k: v.astype(np.float32).astype(np.float64) for k, v in scene.arrays.items()})


def check(scene: Scene, session: Session, fused: bool = False, flips: float = 0.01) -> None:
    """A device's image and gradients against the reference's.

    Pixels next to a discrete choice may come out on its other side: at most the share ``flips`` of them, and the
    loss does not look at them.
    """
    scene = rounded(scene)
    weights = loss_weights(scene)
    wanted = gradients(scene, Session("reference"), "f64", weights)
    given = gradients(scene, session, "f32", weights, fused)
    safe = composite(render(scene), scene.arrays["background"], scene.attrs).safe
    scale = max(1.0, np.abs(scene.arrays["colors"]).max(initial=0))
    apart = np.abs(given["rgba"] - wanted["rgba"]).max(axis=2) > IMAGE_TOLERANCE * scale
    assert not apart[safe].any(), np.abs(given["rgba"] - wanted["rgba"])[safe].max()
    assert apart.mean() <= flips
    for name in GRADIENTS:
        compare(name, given[name], wanted[name])


def compare(name: str, given: np.ndarray, wanted: np.ndarray) -> None:
    assert np.isfinite(given).all(), name
    norm = np.linalg.norm(wanted)
    if norm < 1e-9:
        assert np.linalg.norm(given) < 1e-6, name
        return
    error = relative_error(given, wanted)
    cosine = float(np.sum(given * wanted) / (np.linalg.norm(given) * norm))
    assert error <= GRADIENT_TOLERANCE, (name, error)
    assert cosine >= COSINE, (name, cosine)


def run_all(scene: Scene, session: Session) -> dict[str, np.ndarray]:
    """Everything a device makes of a scene, for bit-by-bit comparison."""
    height, width = scene.attrs["height"], scene.attrs["width"]
    rng = np.random.default_rng(0)
    channels = scene.arrays["background"].size + 1
    weights = (rng.normal(size=(height, width, channels)), rng.normal(size=(height, width)))
    return {**gradients(scene, session, "f32", weights), **render_on(scene, session)}


def render_on(scene: Scene, session: Session) -> dict[str, np.ndarray]:
    return session.compile(forward_graph(scene, "f32")).run(scene.feeds(np.float32))
