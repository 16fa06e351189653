"""The look-at camera and the spherical harmonics against independent facts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scenes import look_at, relative_error
from stipple import ir
from stipple import numerics as nx
from stipple.backends.host.geometry import sh_basis
from stipple.compat import rlx
from stipple.errors import InputError
from stipple.runtime import Executable, Session

PARAMS = rlx.GaussianSplatRenderParams(width=64, height=48)


def camera_executable(with_gradient: bool = False) -> Executable:
    graph = ir.Graph("camera")
    meta = graph.input("meta", [23], "f64")
    camera = ir.splat_camera(meta, **PARAMS.attrs())
    for name, value in camera._asdict().items():
        graph.output(name, value)
    if with_gradient:
        rng = np.random.default_rng(0)
        weighted = [
            ir.sum(v * graph.constant(rng.normal(size=v.shape.static))) for v in (camera[0], camera[1], camera[2])
        ]
        loss = weighted[0] + weighted[1] * 0.01 + weighted[2]
        graph.output("loss", loss)
        graph.output("v_meta", ir.grad(graph, loss, [meta])[0])
    return Session("reference").compile(graph)


def meta_array(**changes: Any) -> np.ndarray:
    values: dict[str, Any] = {
        "position": [1.0, -2.0, 3.0],
        "target": [0.3, 0.5, -0.2],
        "up": [0.1, 0.9, 0.2],
        "fov": 50.0,
        "near": 0.1,
        "far": 100.0,
        "background": [0.1, 0.2, 0.3],
    }
    values.update(changes)
    flat = [
        *values["position"],
        *values["target"],
        *values["up"],
        values["fov"],
        values["near"],
        values["far"],
    ]
    return np.array([*flat, *values["background"], *PARAMS.meta_tail()])


def test_camera_of_the_meta_is_the_look_at_written_by_hand() -> None:
    graph = rlx.Graph("meta")
    meta = graph.gaussian_splat_render_meta(
        [1, -2, 3], [0.3, 0.5, -0.2], [0.1, 0.9, 0.2], 50, 0.1, 100, [0.1, 0.2, 0.3], PARAMS
    )
    assert meta.shape == (23,)
    assert str(meta.dtype.value) == "f32"
    np.testing.assert_allclose(meta.node.attrs["value"], meta_array(), rtol=1e-6)
    out = camera_executable().run({"meta": meta_array()})
    np.testing.assert_allclose(out["viewmat"], look_at([1, -2, 3], [0.3, 0.5, -0.2], [0.1, 0.9, 0.2]), atol=1e-14)
    focal = 24 / np.tan(np.deg2rad(25))
    np.testing.assert_allclose(out["intrinsics"], [[focal, 0, 32], [0, focal, 24], [0, 0, 1]], rtol=1e-14)
    assert out["clip"].tolist() == [0.1, 100]
    assert out["background"].tolist() == [0.1, 0.2, 0.3]


def test_the_image_is_upright() -> None:
    """From a camera on -z with +y up, a point above appears above, and one at -x appears to the right."""
    out = camera_executable().run({"meta": meta_array(position=[0, 0, -4], target=[0, 0, 0], up=[0, 1, 0])})

    def pixel(point: list[float]) -> np.ndarray:
        p = out["intrinsics"] @ (out["viewmat"] @ [*point, 1])[:3]
        return p[:2] / p[2]

    assert pixel([0, 1, 0])[1] < pixel([0, 0, 0])[1]
    assert pixel([-1, 0, 0])[0] > pixel([0, 0, 0])[0]
    np.testing.assert_allclose(pixel([0, 0, 0]), [32, 24])


def test_gradient_of_the_camera() -> None:
    exe = camera_executable(with_gradient=True)
    meta = meta_array()
    exact = exe.run({"meta": meta})["v_meta"]
    wanted = np.zeros(23)
    for i in range(15):
        if i in (10, 11):
            continue  # near and far only cull
        losses = []
        for step in (-2e-5, -1e-5, 1e-5, 2e-5):
            moved = meta.copy()
            moved[i] += step
            losses.append(float(exe.run({"meta": moved})["loss"]))
        wanted[i] = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 12e-5
    assert relative_error(exact, wanted) < 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": [1, -2, 3]}, "same point"),
        ({"up": [0, 0, 0]}, "parallel"),
        ({"up": [-0.7, 2.5, -3.2]}, "parallel"),
        ({"fov": 180.0}, "fov_y"),
        ({"near": 0.0}, "near"),
        ({"far": 0.05}, "near"),
    ],
)
def test_bad_cameras_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        camera_executable().run({"meta": meta_array(**changes)})


def test_meta_that_contradicts_the_graph_is_refused() -> None:
    meta = meta_array()
    meta[15] = 65
    with pytest.raises(InputError, match="width = 65"):
        camera_executable().run({"meta": meta})


def test_harmonics_are_orthonormal() -> None:
    """By Gauss-Legendre quadrature over the sphere, exact for these degrees."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    phi = np.arange(24) * 2 * np.pi / 24
    z, p = np.meshgrid(nodes, phi, indexing="ij")
    ring = np.sqrt(1 - z**2)
    directions = np.column_stack([(ring * np.cos(p)).ravel(), (ring * np.sin(p)).ravel(), z.ravel()])
    weight = np.repeat(weights * 2 * np.pi / 24, 24)
    basis = sh_basis(directions, nx.MAX_SH_DEGREE)
    np.testing.assert_allclose(basis.T @ (basis * weight[:, None]), np.eye(25), atol=1e-12)


def test_harmonics_have_the_signs_of_the_3dgs_files() -> None:
    x, y, z = direction = np.array([0.48, 0.6, 0.64])
    basis = sh_basis(direction[None], 3)[0]
    assert basis[0] == pytest.approx(0.28209479177387814)
    np.testing.assert_allclose(basis[1:4], 0.4886025119029199 * np.array([-y, z, -x]))
    assert basis[4] == pytest.approx(1.0925484305920792 * x * y)
    assert basis[5] == pytest.approx(-1.0925484305920792 * y * z)
    assert basis[6] == pytest.approx(0.31539156525252005 * (2 * z * z - x * x - y * y))
    assert basis[9] == pytest.approx(-0.5900435899266435 * y * (3 * x * x - y * y))
    assert basis[12] == pytest.approx(0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y))
