"""Gaussians and cameras: what they check and compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scenes import look_at
from stipple import Camera, Gaussians
from stipple.errors import InputError
from stipple.scene import rgb_to_sh, sh_to_rgb


def fields(count: int = 5, coefficients: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "means": rng.normal(size=(count, 3)),
        "log_scales": rng.normal(size=(count, 3)),
        "quats": rng.normal(size=(count, 4)),
        "logit_opacities": rng.normal(size=count),
        "sh": rng.normal(size=(count, coefficients, 3)),
    }


def test_gaussians_are_checked_and_float32() -> None:
    scene = Gaussians(**fields())
    assert scene.means.dtype == np.float32
    assert (len(scene), scene.sh_degree) == (5, 1)
    assert Gaussians(**fields(0)).count == 0
    for name, bad, message in (
        ("means", np.zeros((4, 3)), "log_scales: expected shape"),
        ("quats", np.zeros((5, 3)), r"quats: expected shape \[5, 4\], got \[5, 3\]"),
        ("sh", np.zeros((5, 3, 3)), "K = 1, 4, 9, 16 or 25"),
        ("logit_opacities", ["a"] * 5, "logit_opacities: expected an array of numbers"),
    ):
        with pytest.raises(InputError, match=message):
            Gaussians(**{**fields(), name: bad})


def test_linear_values_round_trip() -> None:
    scene = Gaussians.from_linear(np.zeros((3, 3)), [0.1, 0.2, 0.3], 0.25, [[0, 0.5, 1]] * 3)
    np.testing.assert_allclose(scene.scales, [[0.1] * 3, [0.2] * 3, [0.3] * 3], rtol=1e-6)
    np.testing.assert_allclose(scene.opacities, 0.25, rtol=1e-6)
    np.testing.assert_allclose(sh_to_rgb(scene.sh[:, 0]), [[0, 0.5, 1]] * 3, atol=1e-6)
    np.testing.assert_allclose(sh_to_rgb(rgb_to_sh([0.3])), [0.3])
    with pytest.raises(InputError, match="opacities"):
        Gaussians.from_linear(np.zeros((1, 3)), 0.1, 1.0, np.zeros((1, 3)))
    with pytest.raises(InputError, match="scales"):
        Gaussians.from_linear(np.zeros((1, 3)), 0.0, 0.5, np.zeros((1, 3)))


def test_bounds_selection_and_degrees() -> None:
    values = fields(100)
    values["means"][3] = np.nan
    scene = Gaussians(**values)
    assert scene.finite.sum() == 99
    low, high = scene.bounds()
    near, far = scene.bounds(0.5)
    assert np.all(low < near)
    assert np.all(far < high)
    assert scene.select([1, 2]).count == 2
    assert scene.select(scene.finite).count == 99
    assert scene.with_sh_degree(0).sh.shape == (100, 1, 3)
    wider = scene.with_sh_degree(3)
    assert np.all(wider.sh[:, 4:] == 0)
    np.testing.assert_array_equal(wider.sh[:, :4], scene.sh)


def test_cameras() -> None:
    camera = Camera.from_fov(640, 480, 60).look_at([1, -2, 3], [0, 0, 0], [0, 1, 0.1])
    np.testing.assert_allclose(camera.viewmat, look_at([1, -2, 3], [0, 0, 0], [0, 1, 0.1]), atol=1e-12)
    np.testing.assert_allclose(camera.position, [1, -2, 3], atol=1e-12)
    assert camera.intrinsics[0, 0] == pytest.approx(240 / np.tan(np.deg2rad(30)))
    half = camera.resized(320, 240)
    assert (half.fx, half.cx, half.width) == (camera.fx / 2, camera.cx / 2, 320)
    colmap = Camera.from_colmap(100, 80, [90, 50, 40], [np.cos(0.3), 0, np.sin(0.3), 0], [1, 2, 3])
    assert (colmap.fx, colmap.fy, colmap.cx) == (90, 90, 50)
    np.testing.assert_allclose(colmap.viewmat[0, :3], [np.cos(0.6), 0, np.sin(0.6)])
    assert Camera.from_colmap(100, 80, [90, 91, 50, 40], [2, 0, 0, 0], [1, 2, 3]).fy == 91


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"width": 0}, "width: expected an int >= 1"),
    "focal": ({"fx": -1.0}, "fx: expected a finite number > 0, got -1.0"),
    "NaN": ({"cx": float("nan")}, "cx: expected a finite number, got nan"),
    "near": ({"near": 2.0, "far": 1.0}, "0 < near < far"),
    "shape": ({"viewmat": np.eye(3)}, r"viewmat: expected shape \[4, 4\], got \[3, 3\]"),
    "mirror": ({"viewmat": np.diag([-1.0, 1, 1, 1])}, "rotation"),
    "row": ({"viewmat": np.eye(4) + np.diag([0, 0, 1.0], -1)}, "last row|rotation"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_cameras(case: str) -> None:
    changes, message = BAD[case]
    values = {"width": 4, "height": 3, "fx": 5.0, "fy": 5.0, "cx": 2.0, "cy": 1.5, **changes}
    with pytest.raises(InputError, match=message):
        Camera(**values)


def test_bad_directions() -> None:
    camera = Camera.from_fov(4, 3, 50)
    with pytest.raises(InputError, match="position, target"):
        camera.look_at([0, 0, 0], [0, 0, 0])
    with pytest.raises(InputError, match="parallel"):
        camera.look_at([0, 0, 0], [0, 1, 0], [0, 1, 0])
    with pytest.raises(InputError, match=r"position: expected shape \[3\]"):
        camera.look_at([0, 0], [0, 1, 0])
    with pytest.raises(InputError, match="fov"):
        Camera.from_fov(4, 3, 180)
    with pytest.raises(InputError, match="quaternion"):
        Camera.from_colmap(4, 3, [1, 1, 1], [0, 0, 0, 0], [0, 0, 0])
