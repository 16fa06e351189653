"""A whole training step as one graph: activations, render, loss, gradients, Adam."""

from __future__ import annotations

import numpy as np

from scenes import random_scene
from stipple import ir

PARAMS = ("means", "quats", "scales", "opacities", "colors")


def training_step(dtype: str = "f32") -> tuple[ir.Graph, dict[str, np.ndarray]]:
    """The graph of a step (render, 0.8 L1 + 0.2 (1 - SSIM), Adam) and its feeds without ``step``."""
    scene = random_scene(77, count=10, sh_degree=1)
    stored = dict(scene.arrays)
    stored["scales"] = np.log(stored["scales"])
    stored["opacities"] = np.log(stored["opacities"] / (1 - stored["opacities"]))
    graph = ir.Graph("training_step")
    params = {n: graph.param(n, ["N", *stored[n].shape[1:]], dtype, stored[n]) for n in PARAMS}
    moments = {
        f"{kind}_{n}": graph.param(f"{kind}_{n}", params[n].shape, dtype, np.zeros_like(stored[n]))
        for n in PARAMS
        for kind in "mv"
    }
    feeds = {n: scene.arrays[n] for n in ("viewmat", "intrinsics", "background")}
    inputs = {n: graph.input(n, a.shape, dtype) for n, a in feeds.items()}
    target = graph.input("target", [14, 20, 3], dtype)
    step = graph.input("step", [], dtype)
    rendered = ir.splat_render(
        params["means"],
        params["quats"],
        ir.exp(params["scales"]),
        ir.sigmoid(params["opacities"]),
        params["colors"],
        inputs["viewmat"],
        inputs["intrinsics"],
        inputs["background"],
        **scene.attrs,
    )
    rgb = ir.narrow(rendered.rgba, 2, 0, 3)
    loss = 0.8 * ir.image_l1(rgb, target) + 0.2 * (1.0 - ir.image_ssim(rgb, target))
    graph.output("loss", loss)
    for name, gradient in zip(PARAMS, ir.grad(graph, loss, list(params.values())), strict=True):
        update = ir.adam(params[name], gradient, moments[f"m_{name}"], moments[f"v_{name}"], 0.01, step)
        graph.update(params[name], update.param)
        graph.update(moments[f"m_{name}"], update.m)
        graph.update(moments[f"v_{name}"], update.v)
    feeds["target"] = np.random.default_rng(7).uniform(size=(14, 20, 3))
    kind = np.float32 if dtype == "f32" else np.float64
    return graph, {n: a.astype(kind) for n, a in feeds.items()}
