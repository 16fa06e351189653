"""Normalised units."""

from __future__ import annotations

import numpy as np
import pytest

import stipple
from captures import truth
from stipple import Camera, Gaussians
from stipple.scene import Normalization


def test_normalising_changes_no_pixel_and_is_undone() -> None:
    made = truth()
    shifted = [Camera(c.width, c.height, c.fx, c.fy, c.cx, c.cy) for c in made.cameras]
    offset, size = np.array([100.0, -40, 7]), 13.0
    shifted = [
        c.look_at(offset + size * m.position, offset + size * (m.position + m.viewmat[2, :3]), -m.viewmat[1, :3])
        for c, m in zip(shifted, made.cameras, strict=True)
    ]
    normal = Normalization.of(shifted, offset + size * made.points)
    scene = Gaussians.from_linear(normal.points(offset + size * made.points), 0.05, 0.9, made.colors / 255)
    cameras = [normal.camera(c) for c in shifted]
    assert max(np.linalg.norm(c.position) for c in cameras) == pytest.approx(1 / 1.1)
    np.testing.assert_allclose(np.mean([c.position for c in cameras], axis=0), 0, atol=1e-9)
    whole = normal.undo(scene)
    for original, camera in zip(shifted, cameras, strict=True):
        np.testing.assert_allclose(normal.undo_camera(camera).viewmat, original.viewmat, atol=1e-9)
    a = stipple.render_view(scene, cameras[2], device="cpu").color
    b = stipple.render_view(whole, shifted[2], device="cpu").color
    assert np.abs(a - b).max() < 2e-3
    assert a.max() > 0.3


def test_a_short_walk_before_a_large_scene() -> None:
    cameras = [Camera(8, 8, 8, 8, 4, 4).look_at([0.01 * i, 0, 0], [0, 0, 50]) for i in range(3)]
    points = np.random.default_rng(0).normal(size=(100, 3)) + np.array([0, 0, 40])
    assert 1 / Normalization.of(cameras, points).scale == pytest.approx(10, rel=0.1)
    alone = Normalization.of(cameras[:1], np.zeros((0, 3)))
    assert alone.scale == 1
