"""A device's ops against the float64 reference, on the user's own machine: what ``stipple selftest`` runs.

The scenes are random but fixed. Images may differ by 1e-4, except in the few pixels at which a cutoff is decided
differently; gradients by a relative 1e-3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stipple import ir
from stipple.runtime import Session
from stipple.scene import Camera

Array = np.ndarray
_NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "background")
_IMAGE, _GRADIENT, _FLIPS = 1e-4, 1e-3, 0.01


@dataclass(frozen=True)
class Check:
    """One comparison: its name, the largest error, the error that is allowed, seconds on the device."""

    name: str
    error: float
    allowed: float
    seconds: float

    @property
    def passed(self) -> bool:
        return bool(np.isfinite(self.error)) and self.error <= self.allowed


def run_checks(device: str) -> Iterator[Check]:
    """Check a device, one comparison after the other. Raises DeviceError if it cannot be opened."""
    session, reference = Session(device), Session("reference")
    for name, options in _SCENES.items():
        yield from _splat(session, reference, name, **options)
    yield from _images(session, reference)
    yield from _steps(session, reference)
    yield _noise(session, reference)
    yield _repeats(session)


_SCENES: dict[str, dict[str, Any]] = {
    "render, ewa": {},
    "render, ewa, SH degree 3": {"sh_degree": 3},
    "render, ewa, antialiased": {"antialiased": True},
    "render, ray": {"projection": "ray", "sh_degree": 1},
    "render, 7 channels": {"channels": 7},
    "render, tiles of 40": {"tile_size": 40},
}


def _scene(count: int, sh_degree: int = -1, channels: int = 3) -> dict[str, Array]:
    """Operands of splat_render for a random cloud in front of a camera, with some Gaussians outside the view and some
    invalid."""
    rng = np.random.default_rng(7)
    camera = Camera(70, 50, 62.0, 60.0, 36.0, 24.0).look_at([0.3, -0.2, -4], [0, 0, 0])
    middle = [(sh_degree + 1) ** 2] if sh_degree >= 0 else []
    colors = rng.uniform(0, 1, (count, *middle, channels)) - (0.5 if middle else 0)
    quats = rng.normal(size=(count, 4))
    quats[0] = 0
    means = rng.normal(size=(count, 3))
    means[1] = [0, 0, -9]
    opacities = rng.uniform(0.05, 1, count)
    opacities[2] = np.nan
    arrays = {
        "means": means, "quats": quats, "scales": rng.uniform(0.02, 0.4, (count, 3)), "opacities": opacities,
        "colors": colors, "viewmat": camera.viewmat, "intrinsics": camera.intrinsics,
        "background": rng.uniform(size=channels),
    }  # fmt: skip
    return {n: a.astype(np.float32) for n, a in arrays.items()}


def _on_both(
    session: Session, reference: Session, build: Callable[[str], ir.Graph], feeds: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array], float]:
    """Results of the device and of the reference, and the seconds of a second run on the device."""
    wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feeds.items()}
    expected = reference.compile(build("f64")).run(wide)
    executable = session.compile(build("f32"))
    executable.run(feeds)
    started = time.perf_counter()
    actual = executable.run(feeds)
    return actual, expected, time.perf_counter() - started


def _relative(actual: Array, expected: Array) -> float:
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(actual - expected)) / norm if norm > 0 else float(np.abs(actual).max(initial=0))


def _splat(session: Session, reference: Session, name: str, **options: Any) -> Iterator[Check]:
    """Image, depth and all gradients of a scene."""
    feeds = _scene(150, options.get("sh_degree", -1), options.pop("channels", 3))
    channels = feeds["background"].size
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(50, 70, channels + 1)), rng.normal(size=(50, 70))

    def build(dtype: str) -> ir.Graph:
        graph = ir.Graph("selftest")
        v = {n: graph.input(n, a.shape, dtype) for n, a in feeds.items()}
        rgba, depth = ir.splat_render(*(v[n] for n in _NAMES), width=70, height=50, **options)
        loss = ir.sum(rgba * graph.constant(weights[0], dtype)) + ir.sum(depth * graph.constant(weights[1], dtype))
        graph.output("rgba", rgba)
        graph.output("depth", depth)
        for n, value in zip(_NAMES, ir.grad(graph, loss, [v[n] for n in _NAMES]), strict=True):
            graph.output(f"v_{n}", value)
        return graph

    actual, expected, seconds = _on_both(session, reference, build, feeds)
    apart = np.abs(actual["rgba"] - expected["rgba"]).max(axis=2)
    near_cutoff = apart > _IMAGE
    image = float(apart[~near_cutoff].max(initial=0)) if near_cutoff.mean() <= _FLIPS else float(apart.max())
    yield Check(f"{name}: image", image, _IMAGE, seconds)
    gradients = max(_relative(actual[f"v_{n}"], expected[f"v_{n}"]) for n in _NAMES)
    yield Check(f"{name}: gradients", gradients, _GRADIENT, seconds)


def _images(session: Session, reference: Session) -> Iterator[Check]:
    """L1 and SSIM with their gradient."""
    rng = np.random.default_rng(2)
    feeds = {n: rng.uniform(size=(61, 83, 3)).astype(np.float32) for n in ("image", "target")}

    def build(dtype: str) -> ir.Graph:
        graph = ir.Graph("selftest")
        image, target = (graph.input(n, a.shape, dtype) for n, a in feeds.items())
        l1, ssim = ir.image_l1_ssim(image, target)
        loss = 0.8 * l1 + 0.2 * (1.0 - ssim)
        graph.output("loss", loss)
        graph.output("v_image", ir.grad(graph, loss, [image])[0])
        return graph

    actual, expected, seconds = _on_both(session, reference, build, feeds)
    yield Check("L1 + SSIM", _relative(actual["loss"], expected["loss"]), 1e-5, seconds)
    yield Check("L1 + SSIM: gradient", _relative(actual["v_image"], expected["v_image"]), _GRADIENT, seconds)


def _steps(session: Session, reference: Session) -> Iterator[Check]:
    """Ten steps of training: the loss after them."""
    scene = _scene(80)
    names = ("means", "quats", "scales", "opacities", "colors")
    target = np.random.default_rng(3).uniform(size=(50, 70, 3)).astype(np.float32)
    start = {n: np.nan_to_num(scene[n], nan=0.5) for n in names}

    def build(dtype: str) -> ir.Graph:
        graph = ir.Graph("selftest")
        params = {
            n: graph.param(n, ["N", *a.shape[1:]], dtype, a.astype(dtype.replace("f", "float")))
            for n, a in start.items()
        }
        fixed = [graph.constant(scene[n], dtype) for n in ("viewmat", "intrinsics", "background")]
        rgba, _ = ir.splat_render(*params.values(), *fixed, width=70, height=50)
        loss = ir.image_l1(ir.narrow(rgba, 2, 0, 3), graph.constant(target, dtype))
        graph.output("loss", loss)
        step = graph.input("step", [], dtype)
        for (n, param), gradient in zip(params.items(), ir.grad(graph, loss, list(params.values())), strict=True):
            m, v = (
                graph.param(f"{k}_{n}", param.shape, dtype, np.zeros_like(start[n], dtype.replace("f", "float")))
                for k in "mv"
            )
            update = ir.adam(param, gradient, m, v, 0.002, step)
            for target_, value in zip((param, m, v), update, strict=True):
                graph.update(target_, value)
        return graph

    losses, seconds = [], 0.0
    for device, dtype in ((session, "f32"), (reference, "f64")):
        executable = device.compile(build(dtype))
        for i in range(1, 11):
            started = time.perf_counter()
            loss = float(executable.run({"step": float(i)})["loss"])
            if device is session:
                seconds = time.perf_counter() - started
        losses.append(loss)
    yield Check("ten training steps: loss", abs(losses[0] - losses[1]) / losses[1], _GRADIENT, seconds)


def _noise(session: Session, reference: Session) -> Check:
    """MCMC's noise."""
    scene = {
        n: np.nan_to_num(a, nan=0.5) for n, a in _scene(500).items() if n in ("means", "quats", "scales", "opacities")
    }
    scene["opacities"] = scene["opacities"] * np.float32(0.01)
    feeds = {**scene, "key": np.array([5, 9], np.int32)}

    def build(dtype: str) -> ir.Graph:
        graph = ir.Graph("selftest")
        v = {n: graph.input(n, a.shape, dtype) for n, a in scene.items()}
        key = graph.input("key", [2], "i32")
        graph.output("means", ir.splat_noise(v["means"], v["quats"], v["scales"], v["opacities"], 1.0, key))
        return graph

    actual, expected, seconds = _on_both(session, reference, build, feeds)
    return Check("noise", float(np.abs(actual["means"] - expected["means"]).max()), 1e-4, seconds)


def _repeats(session: Session) -> Check:
    """Reproducibility: the share of gradients that differ between two runs."""
    scene = _scene(400)
    graph = ir.Graph("selftest")
    v = {n: graph.input(n, a.shape) for n, a in scene.items()}
    rgba, _ = ir.splat_render(*(v[n] for n in _NAMES), width=70, height=50)
    for n, value in zip(_NAMES, ir.grad(graph, ir.mean(ir.square(rgba)), [v[n] for n in _NAMES]), strict=True):
        graph.output(n, value)
    executable = session.compile(graph)
    first = executable.run(scene)
    started = time.perf_counter()
    second = executable.run(scene)
    seconds = time.perf_counter() - started
    changed = [np.mean(first[n].view(np.uint32) != second[n].view(np.uint32)) for n in _NAMES]
    return Check("the same bits twice", float(max(changed)), 0.0, seconds)
