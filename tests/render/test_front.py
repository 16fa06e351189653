"""The functional front: gsplat's names, modes, gradients, caching; and the SLAM interface."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import stipple
import stipple.render.graphs as front
from scenes import Scene, random_scene
from scenes import render as reference_render


def arguments(scene: Scene, cameras: int = 1) -> dict[str, Any]:
    a = scene.arrays
    viewmats = np.stack([a["viewmat"]] * cameras)
    viewmats[:, 0, 3] += 0.05 * np.arange(cameras)
    return {
        "means": a["means"],
        "quats": a["quats"],
        "scales": a["scales"],
        "opacities": a["opacities"],
        "colors": a["colors"],
        "viewmats": viewmats,
        "Ks": np.stack([a["intrinsics"]] * cameras),
        "width": scene.attrs["width"],
        "height": scene.attrs["height"],
        "backgrounds": np.stack([a["background"]] * cameras),
    }


def test_names_and_order_are_gsplats() -> None:
    names = list(inspect.signature(stipple.rasterization).parameters)
    assert names[:21] == [
        "means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "width", "height", "near_plane",
        "far_plane", "radius_clip", "eps2d", "sh_degree", "packed", "tile_size", "backgrounds", "render_mode",
        "sparse_grad", "absgrad", "rasterize_mode",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", front.RENDER_MODES)
def test_modes(mode: str) -> None:
    scene = random_scene(1, count=30)
    wanted = reference_render(scene)
    colors, alphas, meta = stipple.rasterization(**arguments(scene), render_mode=mode)
    depth = wanted["depth"][..., None]
    if "ED" in mode:
        depth = depth / np.maximum(wanted["rgba"][..., 3:], 1e-10)
    parts = ([wanted["rgba"][..., :3]] if "RGB" in mode else []) + ([depth] if "D" in mode else [])
    np.testing.assert_allclose(colors[0], np.concatenate(parts, axis=2), atol=1e-4)
    np.testing.assert_allclose(alphas[0], wanted["rgba"][..., 3:], atol=1e-5)
    assert colors.dtype == np.float32
    np.testing.assert_array_equal(meta["radii"][0], wanted["radii"])
    np.testing.assert_allclose(meta["means2d"][0], wanted["means2d"], atol=1e-4)
    np.testing.assert_array_equal(meta["flatten_ids"][0], wanted["sorted_ids"])
    np.testing.assert_array_equal(meta["isect_offsets"][0].ravel(), wanted["tile_ranges"][:, 0])


def test_options_reach_the_ops() -> None:
    scene = random_scene(2, count=30, sh_degree=2)
    base = arguments(scene)
    plain = stipple.rasterization(**base, sh_degree=2)[0]
    for change in (
        {"sh_degree": 1},
        {"eps2d": 1.0},
        {"rasterize_mode": "antialiased"},
        {"projection": "ray"},
        {"near_plane": 2.5},
        {"far_plane": 2.5},
    ):
        assert np.abs(stipple.rasterization(**{**base, "sh_degree": 2, **change})[0] - plain).max() > 1e-3, change
    np.testing.assert_allclose(stipple.rasterization(**base, sh_degree=2, tile_size=7)[0], plain, atol=1e-6)
    np.testing.assert_allclose(stipple.rasterization(**base, sh_degree=2, device="reference")[0], plain, atol=1e-4)


def test_several_cameras_and_colors_per_camera() -> None:
    scene = random_scene(3, count=20)
    base = arguments(scene, cameras=3)
    colors, alphas, meta = stipple.rasterization(**base)
    assert colors.shape == (3, 14, 20, 3)
    assert alphas.shape == (3, 14, 20, 1)
    assert meta["n_cameras"] == 3
    per_camera = np.stack([scene.arrays["colors"] * f for f in (1.0, 0.5, 0.0)])
    other = stipple.rasterization(**{**base, "colors": per_camera})[0]
    np.testing.assert_array_equal(other[0], colors[0])
    assert other[2].sum() < other[1].sum() < colors[1].sum()


@pytest.mark.parametrize("mode", ["RGB", "ED", "RGB+D", "RGB+ED"])
def test_gradients_without_a_framework(mode: str) -> None:
    """Shapes, and the CPU's gradients against the reference device's through the same front."""
    scene = random_scene(4, count=6, sh_degree=1)
    base = {**arguments(scene, cameras=2), "sh_degree": 1, "render_mode": mode, "absgrad": True}
    colors, alphas, _, vjp = stipple.rasterization_vjp(**base)
    np.testing.assert_array_equal(colors, stipple.rasterization(**base)[0])
    rng = np.random.default_rng(5)
    smooth = np.ones_like(colors) * rng.normal(size=(2, 1, 1, colors.shape[-1]))
    v_alphas = np.full_like(alphas, 0.3)
    gradients = vjp(smooth.astype(np.float32), v_alphas)
    for name, key in (("means", "means"), ("quats", "quats"), ("scales", "scales"), ("colors", "colors"),
                      ("viewmats", "viewmats"), ("Ks", "Ks"), ("backgrounds", "backgrounds")):  # fmt: skip
        assert gradients[name].shape == np.shape(base[key]), name
    assert gradients["means2d"].shape == gradients["means2d_abs"].shape == (2, 6, 2)
    reference = stipple.rasterization_vjp(**base, device="reference")[3](smooth.astype(np.float32), v_alphas)
    for name, wanted in reference.items():
        error = np.linalg.norm(gradients[name] - wanted) / max(np.linalg.norm(wanted), 1e-9)
        assert error < 1e-3, (name, error)


def test_expected_depth_has_the_gradient_of_a_quotient() -> None:
    scene = random_scene(6, count=4)
    base = {**arguments(scene), "render_mode": "ED", "device": "reference"}
    vjp = stipple.rasterization_vjp(**base)[3]
    weights = np.random.default_rng(1).normal(size=(1, 14, 20, 1)).astype(np.float32)
    alpha = stipple.rasterization(**base)[1]
    weights = weights * (alpha > 0.05)
    exact = vjp(weights)["opacities"]
    for i in range(4):
        losses = []
        for step in (-2e-3, 2e-3):
            moved = base["opacities"].copy()
            moved[i] += step
            losses.append(np.sum(stipple.rasterization(**{**base, "opacities": moved})[0].astype(float) * weights))
        assert exact[i] == pytest.approx((losses[1] - losses[0]) / 4e-3, rel=0.05, abs=0.02)


def test_a_second_call_builds_nothing() -> None:
    scene = random_scene(7, count=10)
    base = arguments(scene)
    stipple.rasterization(**base)
    before = front.forward.cache_info()
    stipple.rasterization(**{**base, **arguments(random_scene(8, count=25))})
    after = front.forward.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "packed": ({"packed": True}, "packed = True is not supported"),
    "clip": ({"radius_clip": 1.0}, "radius_clip = 1.0 is not supported"),
    "mode": ({"render_mode": "XYZ"}, "render_mode: expected one of RGB"),
    "rasterize_mode": ({"rasterize_mode": "fast"}, "rasterize_mode: expected one of classic, antialiased, got 'fast'"),
    "means": ({"means": np.zeros((3, 2))}, r"means: expected shape \[N, 3\]"),
    "quats": ({"quats": np.zeros((3, 4))}, r"quats: expected shape \[10, 4\], got \[3, 4\]"),
    "colors": ({"colors": np.zeros((10,))}, r"colors: expected \[N, D\]"),
    "sh": ({"sh_degree": 1}, r"colors: expected \[N, K, D\]"),
    "Ks": ({"Ks": np.zeros((2, 3, 3))}, r"Ks: expected shape \[1, 3, 3\], got \[2, 3, 3\]"),
    "width": ({"width": 0}, "width: expected an int >= 1"),
    "text": ({"means": "abc"}, "means: expected an array of numbers"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_arguments(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        stipple.rasterization(**{**arguments(random_scene(9, count=10)), **changes})
