"""Gradients of the reference against central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from scenes import (
    OPERANDS,
    Scene,
    forward_graph,
    gradient_executable,
    loss_weights,
    random_scene,
    relative_error,
    render,
)
from stipple.errors import LimitWarning
from stipple.runtime import Session

TOLERANCE = 1e-6


class FiniteDifferences:
    """Derivatives of the weighted loss by fourth-order central differences.

    A sample counts only if the visible Gaussians and their order are the same at all its points: across such
    a choice there is no derivative to compare with.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.forward = Session("reference").compile(forward_graph(scene))
        self.weights = loss_weights(scene)
        self.state = self._run(scene)[1]

    def _run(self, scene: Scene) -> tuple[float, list[np.ndarray]]:
        out = self.forward.run(scene.feeds())
        loss = np.sum(out["rgba"] * self.weights[0]) + np.sum(out["depth"] * self.weights[1])
        return float(loss), [out["radii"] > 0, np.argsort(out["depths"], kind="stable")]

    def along(self, name: str, direction: np.ndarray, step: float = 2e-6) -> float:
        """The derivative along a direction of one operand."""
        losses = []
        for factor in (-2, -1, 1, 2):
            moved = self.scene.with_(**{name: self.scene.arrays[name] + factor * step * direction})
            loss, state = self._run(moved)
            for before, after in zip(self.state, state, strict=True):
                np.testing.assert_array_equal(before, after, err_msg="sample lies on a discrete boundary")
            losses.append(loss)
        return (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)

    def gradient(self, name: str) -> np.ndarray:
        """The derivative by every element of one operand."""
        array = self.scene.arrays[name]
        made = np.zeros(array.size)
        for i in range(array.size):
            if name == "intrinsics" and i not in (0, 2, 4, 5):
                continue  # the op refuses skew: those elements are constants
            if name == "viewmat" and i >= 12:
                continue
            direction = np.zeros(array.size)
            direction[i] = 1
            made[i] = self.along(name, direction.reshape(array.shape))
        return made.reshape(array.shape)


def check_every_element(scene: Scene, names: tuple[str, ...] = OPERANDS, fused: bool = False) -> None:
    exact = gradient_executable(scene, fused=fused).run(scene.feeds())
    differences = FiniteDifferences(scene)
    for name in names:
        assert np.linalg.norm(exact[f"v_{name}"]) > 0, name
        error = relative_error(exact[f"v_{name}"], differences.gradient(name))
        assert error <= TOLERANCE, (name, error)


def check_directions(scene: Scene, names: tuple[str, ...] = OPERANDS, count: int = 3) -> None:
    """Derivatives along random directions: for scenes too large to go through element by element."""
    exact = gradient_executable(scene).run(scene.feeds())
    differences = FiniteDifferences(scene)
    rng = np.random.default_rng(5)
    for name in names:
        gradient = exact[f"v_{name}"]
        given, wanted = [], []
        for _ in range(count):
            direction = rng.normal(size=gradient.shape)
            if name == "viewmat":
                direction[3] = 0
            if name == "intrinsics":
                direction[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] = 0
            direction /= np.linalg.norm(direction)
            given.append(np.sum(direction * gradient))
            wanted.append(differences.along(name, direction))
        scale = np.linalg.norm(gradient)
        assert np.max(np.abs(np.subtract(given, wanted))) <= TOLERANCE * scale, (name, given, wanted)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_element_of_every_operand(projection: str, seed: int) -> None:
    check_every_element(random_scene(seed, count=6, projection=projection))


def test_fused_render_has_the_same_gradients() -> None:
    check_every_element(random_scene(2, count=4), fused=True)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_harmonics(degree: int) -> None:
    scene = random_scene(10 + degree, count=4, sh_degree=degree)
    check_every_element(scene, ("means", "colors", "viewmat"))


def test_a_lower_degree_than_the_coefficients_given() -> None:
    scene = random_scene(3, count=4, sh_degree=3).with_(sh_degree=1)
    exact = gradient_executable(scene).run(scene.feeds())
    assert np.all(exact["v_colors"][:, 4:] == 0)
    check_every_element(scene, ("colors", "means"))


def test_antialiased() -> None:
    scene = random_scene(4, count=6, antialiased=True)
    check_every_element(scene.with_(scales=scene.arrays["scales"] * 0.4))


def test_other_low_pass() -> None:
    check_every_element(random_scene(6, count=4, eps2d=0.05), ("means", "scales", "intrinsics"))


@pytest.mark.parametrize("channels", [1, 5])
def test_feature_channels(channels: int) -> None:
    check_every_element(random_scene(5, count=4, channels=channels), ("colors", "opacities", "background"))


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_clamped_jacobian(projection: str) -> None:
    """Wide Gaussians whose means lie far outside the frame on all sides, but which reach into it."""
    scene = random_scene(7, count=8, projection=projection)
    rng = np.random.default_rng(7)
    x, y = [-3, 3, -3.2, 3.1, 0, 0.2, -2.9, 2.5], [0, 0.2, 1.5, -1, -3, 3, -2.6, 2.2]
    points = np.column_stack([x, y, np.linspace(1.8, 2.2, 8)])
    viewmat = scene.arrays["viewmat"]
    scene = scene.with_(
        means=(points - viewmat[:3, 3]) @ viewmat[:3, :3],
        scales=rng.uniform(0.7, 1.3, (8, 3)),
        opacities=rng.uniform(0.5, 0.9, 8),
    )
    check_every_element(scene)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_saturated_pixels(projection: str) -> None:
    """Opaque Gaussians in front of one another: alpha held at its maximum, pixels that stop early."""
    scene = random_scene(8, count=14, opaque=True, projection=projection)
    scene = scene.with_(opacities=np.linspace(0.97, 1.0, 14), scales=scene.arrays["scales"] * 2)
    check_directions(scene)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_a_larger_scene_of_several_tiles(projection: str) -> None:
    scene = random_scene(9, count=60, width=45, height=37, sh_degree=2, tile_size=16, projection=projection)
    scene.arrays["intrinsics"][:2, :2] *= 2.2
    check_directions(scene, count=2)


def test_limits_are_part_of_the_function() -> None:
    names = ("means", "opacities", "colors", "scales")
    with pytest.warns(LimitWarning, match="max_splat_steps"):
        check_directions(random_scene(11, count=10, max_splat_steps=2), names)
    scene = random_scene(11, count=10, tile_size=4, max_list_entries=30)
    with pytest.warns(LimitWarning, match="max_list_entries"):
        kept = np.unique(render(scene)["sorted_ids"])
    with pytest.warns(LimitWarning, match="max_list_entries"):
        out = gradient_executable(scene).run(scene.feeds())
    assert 0 < len(kept) < 10
    dropped = np.setdiff1d(np.arange(10), kept)
    assert np.all(out["v_colors"][dropped] == 0)
    assert np.all(out["v_means"][dropped] == 0)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_gradients_of_the_2d_means(projection: str) -> None:
    """Moving the principal point moves every mean together: their gradients add up to its gradient (up to
    what the Jacobian's clamp adds, which this scene avoids), and magnitudes bound the signed ones."""
    scene = random_scene(12, count=8, projection=projection, off_center=False)
    out = gradient_executable(scene).run(scene.feeds())
    assert np.all(out["v_means2d_abs"] >= np.abs(out["v_means2d"]) - 1e-12)
    assert np.any(out["v_means2d_abs"] > np.abs(out["v_means2d"]) + 1e-6)
    np.testing.assert_allclose(out["v_means2d"].sum(axis=0), out["v_intrinsics"][:2, 2], rtol=1e-9)


def test_absolute_2d_gradient_of_one_pixel_is_the_magnitude_of_the_signed_one() -> None:
    scene = random_scene(13, count=5, width=1, height=1)
    out = gradient_executable(scene).run(scene.feeds())
    assert np.any(out["v_means2d"] != 0)
    np.testing.assert_allclose(out["v_means2d_abs"], np.abs(out["v_means2d"]), rtol=1e-12)
