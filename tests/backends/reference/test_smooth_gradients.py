"""Gradients where nothing is cut off: every Gaussian reaches every pixel, no pixel stops, no alpha is held.

The loss is then smooth in every operand, so no pixel needs to be masked and every element can be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scenes import intrinsics, relative_error, rotation
from stipple import ir
from stipple.runtime import Session

WIDTH, HEIGHT, COUNT = 6, 5, 4
LENSES: dict[str, tuple[str, list[float]]] = {
    "pinhole": ("pinhole", []),
    "distorted": ("pinhole", [0.1, -0.05, 0.01, 0.08, 0.02, 0.004, 0.003, -0.002]),
    "fisheye": ("fisheye", [-0.03, 0.012, -0.004, 0.0011]),
    "ortho": ("ortho", []),
}
CASES = [
    *((lens, "ewa", aa) for lens in LENSES for aa in (False, True)),
    ("pinhole", "ray", False),
    ("ortho", "ray", False),
]
SMOOTH = {"alpha_cutoff": 0.0, "transmittance_threshold": 0.0, "width": WIDTH, "height": HEIGHT}


def scene(lens: str) -> dict[str, np.ndarray]:
    """Wide Gaussians before a camera that looks through a long lens."""
    rng = np.random.default_rng(5)
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation(rng)
    viewmat[:3, 3] = rng.normal(size=3)
    points = np.column_stack([rng.uniform(-0.2, 0.2, (COUNT, 2)), np.linspace(2, 3, COUNT)])
    focal = 12.0 if lens != "ortho" else 5.0
    return {
        "means": (points - viewmat[:3, 3]) @ viewmat[:3, :3],
        "quats": rng.normal(size=(COUNT, 4)),
        "scales": rng.uniform(0.7, 1.1, (COUNT, 3)),
        "opacities": rng.uniform(0.3, 0.7, COUNT),
        "sh": rng.uniform(0.1, 0.4, (COUNT, 4, 3)),
        "viewmat": viewmat,
        "intrinsics": intrinsics(focal, focal * 1.1, WIDTH / 2 + 0.2, HEIGHT / 2 - 0.1),
        "distortion": np.array(LENSES[lens][1]),
        "background": rng.uniform(size=4),
    }


def build(arrays: dict[str, np.ndarray], lens: str, projection: str, antialiased: bool) -> ir.Graph:
    """A linear loss over colours, depth and alpha, with its gradients; the weights are fixed."""
    graph = ir.Graph("smooth")
    v = {n: graph.input(n, a.shape, "f64") for n, a in arrays.items()}
    attrs: dict[str, Any] = {"projection": projection, "alpha_cutoff": 0.0, "width": WIDTH, "height": HEIGHT}
    p = ir.splat_project(
        v["means"], v["quats"], v["scales"], v["opacities"], v["viewmat"], v["intrinsics"],
        distortion=v["distortion"], camera_model=LENSES[lens][0], antialiased=antialiased, **attrs,
    )  # fmt: skip
    colors = ir.splat_sh(v["means"], v["sh"], v["viewmat"], p.radii, 1)
    opacities = v["opacities"] * p.compensation
    lists = ir.splat_bin(p.means2d, p.conics, opacities, p.radii, p.depths, **attrs)
    features = ir.concat([colors, ir.reshape(p.depths, [COUNT, 1])], 1)
    r = ir.splat_rasterize(
        p.means2d, p.conics, opacities, features, v["background"], *lists, **SMOOTH, projection=projection
    )
    rng = np.random.default_rng(1)
    weights = [graph.constant(rng.normal(size=shape)) for shape in ((HEIGHT, WIDTH, 4), (HEIGHT, WIDTH))]
    loss = ir.sum(r.image * weights[0]) + ir.sum(r.alpha * weights[1])
    graph.output("loss", loss)
    graph.output("counts", r.counts)
    for name, gradient in zip(v, ir.grad(graph, loss, list(v.values())), strict=True):
        graph.output(f"v_{name}", gradient)
    return graph


def free_elements(name: str, size: int) -> list[int]:
    """Elements that a camera may have other values in: the op refuses skew and a last row but 0 0 0 1."""
    return {"intrinsics": [0, 2, 4, 5], "viewmat": list(range(12))}.get(name, list(range(size)))


@pytest.mark.parametrize(("lens", "projection", "antialiased"), CASES)
def test_every_element_without_a_mask(lens: str, projection: str, antialiased: bool) -> None:
    arrays = scene(lens)
    executable = Session("reference").compile(build(arrays, lens, projection, antialiased))
    exact = executable.run(arrays)
    assert (exact["counts"] == COUNT).all(), "every Gaussian reaches every pixel"
    step = 1e-5
    for name, array in arrays.items():
        differences = np.zeros(array.size)
        elements = free_elements(name, array.size)
        for i in elements:
            losses = []
            for sign in (1, -1):
                moved = array.copy()
                moved.flat[i] += sign * step
                losses.append(float(executable.run({**arrays, name: moved})["loss"]))
            differences[i] = (losses[0] - losses[1]) / (2 * step)
        given = exact[f"v_{name}"].ravel()[elements]
        assert array.size == 0 or np.linalg.norm(given) > 1e-6, name
        assert relative_error(given, differences[elements]) < 2e-7, name
