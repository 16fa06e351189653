"""The SLAM-style renderer."""

from __future__ import annotations

import numpy as np
import pytest

import stipple
from stipple.compat.slam import DiffCamera, DiffSplatRenderer, TrainableGaussians
from stipple.errors import InputError


def slam_scene() -> tuple[TrainableGaussians, DiffCamera]:
    rng = np.random.default_rng(10)
    plain = stipple.Gaussians.from_linear(
        rng.uniform([-1, -0.8, 2], [1, 0.8, 6], (40, 3)), 0.1, 0.7, rng.uniform(size=(40, 3)), rng.normal(size=(40, 4))
    )
    scene = TrainableGaussians(plain.means, plain.log_scales, plain.quats, plain.logit_opacities, plain.sh)
    return scene, DiffCamera(50, 52, 33, 24, 64, 48, np.eye(3), np.array([0.1, 0, 0.2]))


def test_slam_renders() -> None:
    scene, camera = slam_scene()
    renderer = DiffSplatRenderer(background=(0.1, 0.2, 0.3))
    color, depth = renderer.render(scene, camera)
    assert (color.shape, depth.shape) == ((48, 64, 3), (48, 64))
    inference = renderer.render_inference(scene, camera)
    np.testing.assert_array_equal(inference.color, color)
    np.testing.assert_array_equal(inference.depth, depth)
    again, records = renderer.render_with_intermediates(scene, camera)
    np.testing.assert_array_equal(again.color, color)
    z = [r.z for r in records]
    assert z == sorted(z)
    assert 20 < len(records) <= 40
    for r in records:
        point = scene.means[r.index] + [0.1, 0, 0.2]
        assert r.z == pytest.approx(point[2], rel=1e-5)
        assert r.u == pytest.approx(50 * point[0] / point[2] + 33, abs=1e-3)
        assert r.v == pytest.approx(52 * point[1] / point[2] + 24, abs=1e-3)
        assert r.opacity == pytest.approx(0.7, rel=1e-5)
        assert np.linalg.eigvalsh(r.covariance).min() >= 0.29
        x0, y0, x1, y1 = r.tiles
        assert 0 <= x0 <= x1 <= 4
        assert 0 <= y0 <= y1 <= 3
    with pytest.raises(InputError, match=r"R: expected shape \[3, 3\]"):
        renderer.render(scene, DiffCamera(50, 50, 1, 1, 4, 4, np.eye(2), np.zeros(3)))
