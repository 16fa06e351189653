"""Cameras for looking at a scene."""

from __future__ import annotations

import numpy as np

from stipple import Camera, Gaussians
from stipple.scene.paths import flight, framing, framing_camera, orbit

RNG = np.random.default_rng(0)
SCENE = Gaussians.from_linear(RNG.normal((3, 1, -2), size=(500, 3)), 0.1, 0.5, RNG.uniform(size=(500, 3)))


def test_framing() -> None:
    center, radius = framing(SCENE)
    np.testing.assert_allclose(center, [3, 1, -2], atol=0.4)
    assert 2.5 < radius < 4.5
    assert framing(SCENE.select([0]))[1] == 1, "of one place there is no size"


def test_a_framing_camera_shows_most_of_the_scene() -> None:
    for size in ((160, 90), (90, 160)):
        camera = framing_camera(SCENE, size)
        local = SCENE.means @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
        u = camera.fx * local[:, 0] / local[:, 2] + camera.cx
        v = camera.fy * local[:, 1] / local[:, 2] + camera.cy
        inside = (local[:, 2] > 0) & (u > 0) & (u < size[0]) & (v > 0) & (v < size[1])
        assert inside.mean() > 0.9
    placed = framing_camera(SCENE, (64, 48), 40, position=[0, 0, -9], target=[1, 0, 0])
    np.testing.assert_allclose(placed.position, [0, 0, -9], atol=1e-9)
    np.testing.assert_allclose(placed.viewmat[:3, :3] @ [1, 0, 9] / np.sqrt(82), [0, 0, 1], atol=1e-9)


def test_an_orbit_keeps_its_distance_and_looks_at_the_target() -> None:
    target, up = np.array([1.0, 2, 3]), np.array([0, -2.0, 0])
    first = Camera.from_fov(40, 30, 50).look_at([1, 0, -6], target)
    cameras = orbit(first, target, up, 8)
    assert len(cameras) == 8
    assert cameras[0] is first
    arms = np.array([c.position - target for c in cameras])
    np.testing.assert_allclose(np.linalg.norm(arms, axis=1), np.linalg.norm(arms[0]))
    np.testing.assert_allclose(arms[:, 1], arms[0, 1], atol=1e-12)
    np.testing.assert_allclose(arms[4, [0, 2]], -arms[0, [0, 2]], atol=1e-12)
    steps = np.linalg.norm(np.roll(arms, -1, axis=0) - arms, axis=1)
    np.testing.assert_allclose(steps, steps[0])
    for camera in cameras:
        ahead = camera.viewmat[:3, :3] @ (target - camera.position)
        np.testing.assert_allclose(ahead[:2], 0, atol=1e-9)


def test_a_flight_passes_every_camera() -> None:
    base = Camera.from_fov(40, 30, 50)
    cameras = [base.look_at([i, 0.3 * i * i, -6], [0, 0, i]) for i in range(5)]
    path = flight(cameras, 9)
    for camera, found in zip(cameras, path[::2], strict=True):
        np.testing.assert_allclose(found.viewmat, camera.viewmat, atol=1e-9)
    for camera in path:
        np.testing.assert_allclose(camera.viewmat[:3, :3] @ camera.viewmat[:3, :3].T, np.eye(3), atol=1e-9)
    assert [len(flight(cameras[:n], 4)) for n in (1, 2, 3)] == [4, 4, 4]
