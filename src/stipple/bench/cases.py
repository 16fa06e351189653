"""Benchmark cases: scenes and views, frames with and without gradients, training steps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stipple import ir
from stipple import numerics as nx
from stipple.formats import load_scene
from stipple.formats.captures import Frame
from stipple.ir.ops import splat
from stipple.runtime import Executable, Session
from stipple.scene import Camera, Gaussians
from stipple.scene.paths import framing_camera
from stipple.train import make_config
from stipple.train.stepper import Stepper

Array = np.ndarray
_NAMES = ("means", "quats", "scales", "opacities", "colors")
_CAMERA = ("viewmat", "intrinsics")


@dataclass(frozen=True)
class Case:
    """A scene and a view to measure."""

    name: str
    operands: splat.PrepareOperands  # arrays
    attrs: dict[str, Any]


def _attrs(width: int, height: int, sh_degree: int = -1) -> dict[str, Any]:
    return {"width": width, "height": height, "sh_degree": sh_degree}


_NO_DISTORTION = np.empty(0, np.float32)
_CLIP = np.array([nx.NEAR, nx.FAR], np.float32)


def slam_case(count: int, width: int, height: int, focal: float) -> Case:
    """Isotropic Gaussians of log scale -3.5 in a box in front of the camera, opacities from 0.3 to 0.9."""
    rng = np.random.default_rng(0)
    f4 = np.float32
    means = rng.uniform([-1, -0.8, 2], [1, 0.8, 6], (count, 3)).astype(f4)
    quats = np.tile(np.array([1, 0, 0, 0], f4), (count, 1))
    scales = np.full((count, 3), math.exp(-3.5), f4)
    opacities = rng.uniform(0.3, 0.9, count).astype(f4)
    colors = rng.uniform(0, 1, (count, 3)).astype(f4)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], f4)
    operands = splat.PrepareOperands(
        means, quats, scales, opacities, colors, np.eye(4, dtype=f4), intrinsics, _NO_DISTORTION, _CLIP
    )
    return Case(f"{count:,} Gaussians, {width}x{height}", operands, _attrs(width, height))


def scene_case(path: str, width: int = 1280, height: int = 720) -> Case:
    """A scene from a file, seen by the default camera of ``stipple render``."""
    scene = load_scene(path)
    camera = framing_camera(scene, (width, height))
    operands = splat.PrepareOperands(
        means=scene.means,
        quats=scene.quats,
        scales=scene.scales,
        opacities=scene.opacities,
        colors=scene.sh,
        viewmat=camera.viewmat.astype(np.float32),
        intrinsics=camera.intrinsics.astype(np.float32),
        distortion=_NO_DISTORTION,
        clip=_CLIP,
    )
    name = f"{os.path.basename(path)}, {scene.count:,} Gaussians, {width}x{height}"
    return Case(name, operands, _attrs(width, height, scene.sh_degree))


def scene_of(case: Case) -> Gaussians:
    """A case's Gaussians, with SH of degree 3."""
    x = case.operands
    inside = np.clip(x.opacities, 0.01, 0.99)
    flat = x.colors if x.colors.ndim == 2 else np.clip(0.5 + nx.SH_C0 * x.colors[:, 0], 0, 1)
    return Gaussians.from_linear(x.means, x.scales, inside, flat, x.quats).with_sh_degree(3)


def frame_of(case: Case) -> Frame:
    """A case's view, with a photo of noise."""
    viewmat, k = case.operands.viewmat, case.operands.intrinsics
    width, height = case.attrs["width"], case.attrs["height"]
    camera = Camera(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2], viewmat)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Frame(camera, pixels)


def training(session: Session, case: Case) -> tuple[Stepper, Callable[[], object]]:
    """A stepper, and whole steps on it: SH of degree 3, loss, gradients, Adam; the number of Gaussians does not
    change."""
    config = make_config(None, {"schedule": {"steps": 10**6, "sh_every": 1, "coarse": []}, "density": {"start": 10**6}})
    stepper = Stepper(session, config, 1)
    stepper.start(scene_of(case))
    frame, step = frame_of(case), [100]

    def run() -> None:
        step[0] += 1
        stepper.run(step[0], 0, frame)

    return stepper, run


def frame(session: Session, case: Case, backward: bool) -> Executable:
    """A frame, or a frame with the gradients of its mean square; everything but one number stays on the device."""
    graph = ir.Graph("frame")
    given = case.operands._asdict()
    params = {n: graph.param(n, given[n].shape, "f32", given[n]) for n in _NAMES}
    camera = {n: graph.param(n, given[n].shape, "f32", given[n]) for n in _CAMERA}
    background = graph.constant(np.zeros(3, np.float32))
    size = {n: case.attrs[n] for n in ("width", "height", "sh_degree")}
    rgba, _ = ir.splat_render(**params, **camera, background=background, **size)
    loss = ir.mean(ir.square(rgba))
    graph.output("loss", loss)
    if backward:
        for (name, param), gradient in zip(params.items(), ir.grad(graph, loss, list(params.values())), strict=True):
            kept = graph.param(f"v_{name}", param.shape, "f32", np.zeros(param.shape.static, np.float32))
            graph.update(kept, gradient)
    return session.compile(graph)


def usual_cases(quick: bool, scene: str | None) -> list[Case]:
    """The cases of ``stipple bench``."""
    cases = [slam_case(10_000, 640, 480, 500.0)]
    if not quick:
        cases.append(slam_case(100_000, 1920, 1080, 500.0))
    return [*cases, scene_case(scene)] if scene else cases
