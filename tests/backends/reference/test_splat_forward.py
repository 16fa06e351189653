"""The reference's images against closed forms, an independent compositor, and gsplat's own renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from compositor import composite
from scenes import Scene, declare, intrinsics, random_scene, render
from stipple import ir
from stipple import numerics as nx
from stipple.runtime import Session

DATA = Path(__file__).parents[2] / "data"


def on_axis(projection: str = "ewa", **changes: object) -> Scene:
    """One isotropic Gaussian, sigma 0.1, at distance 4 on the axis of a 33 x 33 camera of focal length 40."""
    scene = Scene(
        {
            "means": np.array([[0.0, 0.0, 4.0]]),
            "quats": np.array([[1.0, 0, 0, 0]]),
            "scales": np.full((1, 3), 0.1),
            "opacities": np.array([0.8]),
            "colors": np.array([[0.9, 0.5, 0.1]]),
            "viewmat": np.eye(4),
            "intrinsics": intrinsics(40, 40, 16.5, 16.5),
            "background": np.array([0.2, 0.3, 0.4]),
        },
        {"width": 33, "height": 33, "projection": projection},
    )
    return scene.with_(**changes)


def expected(alpha: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """rgba and depth of one Gaussian with this alpha per pixel."""
    color, background = scene.arrays["colors"][0], scene.arrays["background"]
    rgb = alpha[..., None] * color + (1 - alpha[..., None]) * background
    return np.concatenate([rgb, alpha[..., None]], axis=2), alpha * scene.arrays["means"][0, 2]


def pixel_offsets() -> tuple[np.ndarray, np.ndarray]:
    offsets = np.arange(33) - 16.0
    return np.meshgrid(offsets, offsets)


def test_one_gaussian_on_axis_has_the_closed_form_of_ewa() -> None:
    scene = on_axis()
    x, y = pixel_offsets()
    variance = (40 * 0.1 / 4) ** 2 + nx.EPS2D
    alpha = 0.8 * np.exp(-(x**2 + y**2) / (2 * variance))
    rgba, depth = expected(np.where(alpha < nx.ALPHA_CUTOFF, 0, alpha), scene)
    out = render(scene)
    np.testing.assert_allclose(out["rgba"], rgba, atol=1e-14)
    np.testing.assert_allclose(out["depth"], depth, atol=1e-14)
    extent = np.ceil(np.sqrt(2 * np.log(255 * 0.8) * variance))
    assert out["radii"].tolist() == [[extent, extent]]


def test_one_gaussian_on_axis_has_the_closed_form_of_a_ray() -> None:
    """The distance from the mean to a ray at slope r is 4 r / sqrt(1 + r^2)."""
    scene = on_axis("ray")
    x, y = pixel_offsets()
    slope2 = (x**2 + y**2) / 40**2
    alpha = 0.8 * np.exp(-0.5 * (16 * slope2 / (1 + slope2)) / 0.1**2)
    rgba, depth = expected(np.where(alpha < nx.ALPHA_CUTOFF, 0, alpha), scene)
    out = render(scene)
    np.testing.assert_allclose(out["rgba"], rgba, atol=1e-14)
    np.testing.assert_allclose(out["depth"], depth, atol=1e-14)


def test_a_ray_is_exact_for_a_turned_gaussian_off_axis() -> None:
    """Against the minimum, found by search, of the Mahalanobis distance along each pixel's ray."""
    scene = random_scene(21, count=1, projection="ray", width=9, height=7)
    scene = scene.with_(opacities=[0.9], scales=[[0.3, 0.15, 0.6]])
    out = render(scene)
    a = scene.arrays
    w, x, y, z = a["quats"][0] / np.linalg.norm(a["quats"][0])
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    world_to_unit = np.diag(1 / a["scales"][0]) @ turn.T
    center = -a["viewmat"][:3, :3].T @ a["viewmat"][:3, 3]
    for row in range(7):
        for column in range(9):
            ray_c = np.linalg.inv(a["intrinsics"]) @ [column + 0.5, row + 0.5, 1]
            ray = world_to_unit @ a["viewmat"][:3, :3].T @ ray_c
            start = world_to_unit @ (center - a["means"][0])
            t = np.linspace(0, 8, 40001)
            nearest = np.min(np.sum((start + t[:, None] * ray) ** 2, axis=1))
            alpha = 0.9 * np.exp(-0.5 * nearest)
            assert out["rgba"][row, column, 3] == pytest.approx(alpha if alpha >= 1 / 255 else 0, abs=1e-6)


def test_ray_and_ewa_agree_for_small_gaussians_near_the_axis() -> None:
    small = {"scales": [[0.02, 0.02, 0.02]], "intrinsics": intrinsics(400, 400, 16.5, 16.5)}
    ewa, ray = render(on_axis("ewa", eps2d=0.0, **small)), render(on_axis("ray", **small))
    assert np.abs(ewa["rgba"] - ray["rgba"]).max() < 1e-3


def test_two_overlapping_gaussians_composite_front_to_back() -> None:
    scene = on_axis(
        means=[[0, 0, 5], [0, 0, 4]],
        quats=[[1, 0, 0, 0]] * 2,
        scales=[[0.2] * 3, [0.1] * 3],
        opacities=[0.6, 0.5],
        colors=[[1, 0, 0], [0, 1, 0]],
    )
    out = render(scene)
    near, far = 0.5, 0.6  # the nearer one is the second
    weight = (1 - near) * far
    rest = (1 - near) * (1 - far)
    wanted = near * np.array([0, 1, 0]) + weight * np.array([1, 0, 0]) + rest * scene.arrays["background"]
    np.testing.assert_allclose(out["rgba"][16, 16], [*wanted, 1 - rest], atol=1e-14)
    assert out["depth"][16, 16] == pytest.approx(near * 4 + weight * 5, abs=1e-14)
    assert out["sorted_ids"].tolist()[:2] == [1, 0]


def test_equal_depths_keep_the_order_of_indices() -> None:
    scene = random_scene(22, count=9)
    means_c = np.column_stack([np.linspace(-0.2, 0.2, 9), np.zeros(9), np.full(9, 2.0)])
    scene = scene.with_(means=means_c, viewmat=np.eye(4), tile_size=64)
    assert render(scene)["sorted_ids"].tolist() == list(range(9))


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("options", [{}, {"alpha_cutoff": 0.0}, {"alpha_cutoff": 0.1, "max_splat_steps": 3}])
def test_against_compositing_without_tiles(projection: str, options: dict[str, float]) -> None:
    for seed in range(3):
        scene = random_scene(30 + seed, count=25, width=37, height=29, tile_size=8, projection=projection, **options)
        if "max_splat_steps" in options:
            with pytest.warns(match="max_splat_steps"):
                out = render(scene)
        else:
            out = render(scene)
        wanted = composite(out, scene.arrays["background"], scene.attrs, margin=1e-9)
        assert wanted.safe.all()
        np.testing.assert_allclose(out["rgba"], wanted.rgba, atol=1e-12)
        np.testing.assert_allclose(out["depth"], wanted.depth, atol=1e-12)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_tile_size_never_changes_a_pixel(projection: str) -> None:
    scene = random_scene(33, count=30, width=50, height=41, projection=projection)
    images = [render(scene.with_(tile_size=size)) for size in (1, 7, 16, 64)]
    for other in images[1:]:
        np.testing.assert_array_equal(other["rgba"], images[0]["rgba"])
        np.testing.assert_array_equal(other["depth"], images[0]["depth"])


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_binning_is_exact(projection: str) -> None:
    """A Gaussian is in a tile exactly if one of the tile's pixels could see it; ellipses, not boxes."""
    scene = random_scene(34, count=20, width=40, height=40, tile_size=1, projection=projection)
    out = render(scene)
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5)
    entries = {
        (tile, int(i)) for tile, (start, end) in enumerate(out["tile_ranges"]) for i in out["sorted_ids"][start:end]
    }
    wanted = set()
    for i in np.flatnonzero(out["radii"][:, 0]):
        dx, dy = x - out["means2d"][i, 0], y - out["means2d"][i, 1]
        a, b, c = out["conics"][i, :3]
        sigma = 0.5 * (a * dx**2 + 2 * b * dx * dy + c * dy**2)
        if projection == "ray":
            p, q, e, f, g = out["conics"][i, 3:]
            sigma /= 1 + 2 * p * dx + 2 * q * dy + e * dx**2 + 2 * f * dx * dy + g * dy**2
        seen = out["opacities"][i] * np.exp(-sigma) >= 1 / 255
        wanted |= {(int(t), int(i)) for t in np.flatnonzero(seen)}
    assert entries == wanted


def test_radii_bound_what_is_drawn() -> None:
    for projection in ("ewa", "ray"):
        scene = random_scene(35, count=1, width=64, height=64, projection=projection, off_center=False)
        scene = scene.with_(background=np.zeros(3))
        out = render(scene)
        rows, columns = np.nonzero(out["rgba"][..., 3])
        assert len(rows)
        assert np.abs(columns + 0.5 - out["means2d"][0, 0]).max() <= out["radii"][0, 0]
        assert np.abs(rows + 0.5 - out["means2d"][0, 1]).max() <= out["radii"][0, 1]


@pytest.mark.parametrize("name", ["tiny_case", "basic_case"])
def test_gsplat_on_cuda_renders_the_same(name: str) -> None:
    t = {k: v.astype(np.float64) for k, v in load_file(DATA / f"{name}.safetensors").items()}
    viewmat = np.eye(4)
    viewmat[:3, 3] = [-0.123, -0.456, 8]
    scene = Scene(
        {
            "means": t["means"],
            "quats": t["quats"],
            "scales": np.exp(t["scales"]),
            "opacities": 1 / (1 + np.exp(-t["opacities"])),
            "colors": t["coeffs"],
            "viewmat": viewmat,
            "intrinsics": intrinsics(61.5, 61.5, 61.5, 41),
            "background": np.zeros(3),
        },
        {"width": 123, "height": 82, "sh_degree": 3},
    )
    assert np.abs(render(scene)["rgba"] - t["out_img"]).max() < 2e-6


def test_antialiased_scales_opacity_by_what_the_low_pass_spreads() -> None:
    scene = on_axis(antialiased=True, scales=[[0.02, 0.02, 0.02]])
    before = (40 * 0.02 / 4) ** 2
    ratio = (before / (before + nx.EPS2D)) ** 2
    assert render(scene)["opacities"][0] == pytest.approx(0.8 * np.sqrt(ratio), rel=1e-12)
    tiny = on_axis(antialiased=True, scales=[[1e-7] * 3])
    assert render(tiny)["opacities"][0] == pytest.approx(0.8 * np.sqrt(nx.MIN_COMPENSATION), rel=1e-12)


def test_alpha_is_one_minus_transmittance_everywhere() -> None:
    scene = on_axis(means=[[100.0, 0, 4]])
    out = render(scene)
    assert out["radii"].max() == 0
    assert np.all(out["rgba"][..., 3] == 0)
    assert np.all(out["transmittance"] == 1)
    assert np.all(out["rgba"][..., :3] == scene.arrays["background"])
    assert np.all(out["last_ids"] == -1)


def test_transmittance_threshold_stops_before_the_gaussian_that_reaches_it() -> None:
    layers = 6
    scene = on_axis(
        means=[[0, 0, 4 + i] for i in range(layers)],
        quats=[[1, 0, 0, 0]] * layers,
        scales=[[0.5] * 3] * layers,
        opacities=[0.9] * layers,
        colors=np.eye(3)[[0, 1, 2, 0, 1, 2]],
    )
    out = render(scene.with_(transmittance_threshold=0.005))
    assert out["transmittance"][16, 16] == pytest.approx(0.01)  # 0.1 ** 3 would fall below
    assert out["rgba"][16, 16, 3] == pytest.approx(0.99)


def test_single_precision_stays_close() -> None:
    scene = random_scene(36, count=40, width=64, height=48)
    exact, rounded = render(scene), render(scene, dtype="f32")
    assert rounded["rgba"].dtype == np.float32
    assert np.abs(exact["rgba"] - rounded["rgba"]).mean() < 1e-5


def test_clip_planes_cull() -> None:
    scene = random_scene(37, count=20)
    graph = ir.Graph("clip")
    values = declare(graph, scene)
    clip = graph.input("clip", [2], "f64")
    prepared = ir.splat_prepare(
        *(values[n] for n in ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics")),
        clip,
        **{k: scene.attrs[k] for k in ("width", "height", "sh_degree")},
    )
    graph.output("radii", prepared.radii)
    feeds = {k: v for k, v in scene.feeds().items() if k != "background"}
    graph_inputs = {**feeds, "background": scene.arrays["background"], "clip": np.array([2.0, 3.0])}
    radii = Session("reference").compile(graph).run(graph_inputs)["radii"]
    a = scene.arrays
    z = a["means"] @ a["viewmat"][2, :3] + a["viewmat"][2, 3]
    assert np.all(radii[(z < 2) | (z > 3)] == 0)
    assert np.any(radii > 0)


def test_prepared_values_of_culled_gaussians_are_zero() -> None:
    """Colours by SH among them; colours that are given are handed on as they are."""
    for sh_degree in (-1, 1):
        scene = random_scene(38, count=6, sh_degree=sh_degree)
        scene.arrays["opacities"][2] = 0.001
        out = render(scene)
        for name in ("means2d", "conics", "opacities", "depths", "radii"):
            assert np.all(out[name][2] == 0), name
        np.testing.assert_array_equal(out["colors"][2], scene.arrays["colors"][2] if sh_degree < 0 else 0.0)
        assert (out["radii"][[0, 1, 3, 4, 5]] > 0).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sh_degree", [-1, 0, 2])
def test_a_gaussian_whose_color_is_not_finite_is_skipped(value: float, sh_degree: int) -> None:
    """By the rasterizer: it is projected like the others, and drawn nowhere, whatever clamping makes of infinity."""
    scene = random_scene(39, count=6, sh_degree=sh_degree)
    without = scene.with_(opacities=np.where(np.arange(6) == 4, 0.0, scene.arrays["opacities"]))
    scene.arrays["colors"][4, ..., 1] = value
    out, wanted = render(scene), render(without)
    assert np.all(out["radii"][4] > 0)
    assert not np.isfinite(out["colors"][4, 1])
    np.testing.assert_array_equal(out["rgba"], wanted["rgba"])
    np.testing.assert_array_equal(out["counts"], wanted["counts"])
