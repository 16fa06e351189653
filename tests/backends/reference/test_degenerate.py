"""Degenerate scenes: what must not break, and what must not count."""

from __future__ import annotations

import numpy as np
import pytest

from scenes import OPERANDS, Scene, gradient_executable, random_scene, render
from stipple.errors import FeedError, InputError

PROJECTIONS = pytest.mark.parametrize("projection", ["ewa", "ray"])


def spoil(scene: Scene, row: int, **values: object) -> Scene:
    """The scene with one Gaussian's fields replaced."""
    arrays = {k: v.copy() for k, v in scene.arrays.items()}
    for name, value in values.items():
        arrays[name][row] = value
    return scene.with_(**arrays)


def without(scene: Scene, row: int) -> Scene:
    return scene.with_(**{k: np.delete(scene.arrays[k], row, axis=0) for k in OPERANDS[:5]})


def camera_point(scene: Scene, point: object) -> np.ndarray:
    """A world point given in camera axes."""
    viewmat = scene.arrays["viewmat"]
    return (np.asarray(point, float) - viewmat[:3, 3]) @ viewmat[:3, :3]


def assert_finite(out: dict[str, np.ndarray]) -> None:
    for name, array in out.items():
        assert np.isfinite(array).all(), name


VANISHES = {
    "behind the camera": {"point": [0, 0, -2]},
    "in the camera's plane": {"point": [0.5, 0, 0]},
    "at the camera": {"point": [0, 0, 0]},
    "off screen left": {"point": [-50, 0, 3]},
    "off screen above": {"point": [0, -50, 3]},
    "zero quaternion": {"quats": 0.0},
    "opacity 0": {"opacities": 0.0},
    "negative opacity": {"opacities": -1.0},
    "NaN mean": {"means": np.nan},
    "NaN quaternion": {"quats": np.nan},
    "infinite scale": {"scales": np.inf},
    "NaN opacity": {"opacities": np.nan},
    "infinite color": {"colors": np.inf},
    "huge mean": {"means": 1e300},
}


@PROJECTIONS
@pytest.mark.parametrize("case", list(VANISHES))
def test_a_gaussian_that_cannot_be_seen_changes_nothing(case: str, projection: str) -> None:
    scene = random_scene(40, count=8, projection=projection)
    values = dict(VANISHES[case])
    if "point" in values:
        values = {"means": camera_point(scene, values.pop("point")), "scales": 0.05}
    broken = spoil(scene, 3, **values)
    out, wanted = render(broken), render(without(scene, 3))
    np.testing.assert_array_equal(out["rgba"], wanted["rgba"])
    np.testing.assert_array_equal(out["depth"], wanted["depth"])
    gradients = gradient_executable(broken).run(broken.feeds())
    assert_finite(gradients)
    others = gradient_executable(without(scene, 3)).run(without(scene, 3).feeds())
    for name in OPERANDS[:5]:
        assert np.all(gradients[f"v_{name}"][3] == 0)
        np.testing.assert_allclose(
            np.delete(gradients[f"v_{name}"], 3, axis=0), others[f"v_{name}"], rtol=1e-9, atol=1e-12
        )


def test_zero_scale_draws_a_pixel_sized_dot_in_ewa_and_nothing_along_a_ray() -> None:
    scene = spoil(random_scene(41, count=4), 0, scales=0.0, opacities=0.9)
    scene = spoil(scene, 0, means=camera_point(scene, [0, 0, 2]))
    out = render(scene)
    assert out["radii"][0].min() >= 1
    np.testing.assert_allclose(out["conics"][0], [1 / 0.3, 0, 1 / 0.3], rtol=1e-12)
    gradients = gradient_executable(scene).run(scene.feeds())
    assert_finite(gradients)
    assert np.all(gradients["v_scales"][0] == 0)
    assert np.any(gradients["v_means"][0] != 0)
    ray = render(scene.with_(projection="ray"))
    assert np.all(ray["radii"][0] == 0)


@PROJECTIONS
def test_opacity_one_is_held_below_one(projection: str) -> None:
    scene = random_scene(42, count=1, projection=projection).with_(opacities=[1.0], scales=[[5.0, 5.0, 5.0]])
    out = render(scene)
    assert out["rgba"][..., 3].max() == pytest.approx(0.99)
    gradients = gradient_executable(scene).run(scene.feeds())
    assert_finite(gradients)


@PROJECTIONS
@pytest.mark.parametrize("fused", [False, True])
def test_no_gaussians(projection: str, fused: bool) -> None:
    scene = random_scene(43, count=0, projection=projection)
    out = render(scene)
    assert out["rgba"].shape == (14, 20, 4)
    assert np.all(out["rgba"][..., :3] == scene.arrays["background"])
    gradients = gradient_executable(scene, fused).run(scene.feeds())
    assert gradients["v_means"].shape == (0, 3)
    assert np.any(gradients["v_background"] != 0)


@PROJECTIONS
def test_one_pixel_image(projection: str) -> None:
    scene = random_scene(44, count=5, width=1, height=1, projection=projection)
    assert render(scene)["rgba"].shape == (1, 1, 4)
    assert_finite(gradient_executable(scene).run(scene.feeds()))


@PROJECTIONS
def test_thousands_on_one_pixel(projection: str) -> None:
    count = 3000
    scene = random_scene(45, count=count, width=3, height=3, projection=projection, off_center=False)
    rng = np.random.default_rng(45)
    points = np.column_stack([np.zeros(count), np.zeros(count), rng.uniform(2, 3, count)])
    viewmat = scene.arrays["viewmat"]
    scene = scene.with_(
        means=(points - viewmat[:3, 3]) @ viewmat[:3, :3],
        scales=np.full((count, 3), 0.01),
        opacities=np.full(count, 0.01),
    )
    out = render(scene)
    entries = out["last_ids"][1, 1]
    assert 500 < entries < count  # 0.99 ** n reaches the threshold after some 900
    assert out["transmittance"][1, 1] > 1e-4
    assert_finite(gradient_executable(scene).run(scene.feeds()))


@PROJECTIONS
def test_a_gaussian_around_the_camera_covers_the_image(projection: str) -> None:
    scene = random_scene(46, count=1, projection=projection)
    scene = scene.with_(means=camera_point(scene, [0, 0, 0.5])[None], scales=[[3.0, 3.0, 3.0]], opacities=[0.5])
    out = render(scene)
    assert out["rgba"][..., 3].min() > 0.3
    assert len(out["sorted_ids"]) == len(out["tile_ranges"])
    assert_finite(gradient_executable(scene).run(scene.feeds()))


def test_huge_and_tiny_gaussians() -> None:
    scene = random_scene(47, count=3).with_(scales=[[1e6] * 3, [1e-12] * 3, [1e-3, 1e3, 1.0]])
    assert_finite(render(scene))
    assert_finite(gradient_executable(scene).run(scene.feeds()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("viewmat", np.full((4, 4), np.nan), "viewmat"),
        ("intrinsics", np.diag([np.inf, 1, 1]), "intrinsics"),
    ],
)
def test_a_camera_that_is_not_finite_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(FeedError, match=rf"feed '{message}': {message} of splat_project must be finite"):
        render(random_scene(48, count=2).with_(**{name: value}))


def test_a_background_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match=r"splat_rasterize: background must be finite; element \[1\] is nan"):
        render(random_scene(48, count=2).with_(background=[0, np.nan, 0]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("intrinsics", [[10, 1, 5], [0, 10, 5], [0, 0, 1.0]], "fx 0 cx"),
        ("intrinsics", [[-10, 0, 5], [0, 10, 5], [0, 0, 1.0]], "focal lengths"),
        ("viewmat", np.full((4, 4), 1.0), "last row"),
    ],
)
def test_a_camera_that_is_none_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(random_scene(49, count=2).with_(**{name: value}))
