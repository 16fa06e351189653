"""Cameras of every model, and Gaussians before them, as the operands of ``splat_project``."""

from __future__ import annotations

from typing import Any

import numpy as np

from scenes import intrinsics, rotation
from stipple.ir.ops.splat import ProjectOperands

RATIONAL = np.array([0.21, -0.13, 0.04, 0.3, 0.06, 0.01, 0.003, -0.002])
FISHEYE = np.array([-0.03, 0.012, -0.004, 0.0011])
DISTORTIONS = {"pinhole": np.zeros(0), "distorted": RATIONAL, "fisheye": FISHEYE, "ortho": np.zeros(0)}
CASES = [*((lens, "ewa") for lens in DISTORTIONS), ("pinhole", "ray"), ("ortho", "ray")]


def model_of(lens: str) -> str:
    return "pinhole" if lens == "distorted" else lens


def attributes(model: str, projection: str = "ewa", **attrs: Any) -> dict[str, Any]:
    usual = {"width": 64, "height": 48, "alpha_cutoff": 1 / 255, "eps2d": 0.3, "antialiased": False}
    return {**usual, "projection": projection, "camera_model": model, **attrs}


def operands(seed: int, count: int = 7, **arrays: Any) -> ProjectOperands:
    """Gaussians before a camera, most of them in the frame; by default the camera stands in the origin."""
    rng = np.random.default_rng(seed)
    count = len(arrays["means"]) if "means" in arrays else count
    z = rng.uniform(1.5, 4, count)
    usual = {
        "means": np.column_stack([rng.uniform(-0.8, 0.8, count) * z, rng.uniform(-0.6, 0.6, count) * z, z]),
        "quats": rng.normal(size=(count, 4)),
        "scales": np.exp(rng.uniform(np.log(0.03), np.log(0.3), (count, 3))),
        "opacities": rng.uniform(0.2, 0.95, count),
        "viewmat": np.eye(4),
        "intrinsics": intrinsics(31.0, 33.0, 32.7, 23.1),
        "distortion": np.zeros(0),
        "clip": np.array([0.01, 1e10]),
    }
    return ProjectOperands(**{**usual, **{k: np.asarray(v, float) for k, v in arrays.items()}})


def rotated(x: ProjectOperands, seed: int) -> ProjectOperands:
    """The same view from a camera that stands elsewhere."""
    rng = np.random.default_rng(seed)
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation(rng), rng.normal(size=3)
    return x._replace(viewmat=viewmat, means=(x.means - viewmat[:3, 3]) @ viewmat[:3, :3])
