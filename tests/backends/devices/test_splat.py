"""Every device's splat kernels held to the reference, on random and degenerate scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.devices.held_to_reference import check, compare, gradients, render_on, rounded, run_all
from scenes import OPERANDS, Scene, declare, random_scene, render, split_attrs
from stipple import ir
from stipple.errors import InputError, LimitWarning
from stipple.ir.autodiff import pullback
from stipple.runtime import Session

SCENES: dict[str, dict[str, Any]] = {
    "plain": {},
    "large": {"count": 400, "width": 131, "height": 90},
    "small tiles": {"tile_size": 5},
    "large tiles": {"tile_size": 40},
    "one channel": {"channels": 1},
    "seven channels": {"channels": 7},
    "seven channels, large tiles": {"channels": 7, "tile_size": 40},
    "SH 0": {"sh_degree": 0},
    "SH 2": {"sh_degree": 2},
    "SH 4": {"sh_degree": 4},
    "five-channel SH": {"sh_degree": 1, "channels": 5},
    "opaque": {"opaque": True, "count": 120},
    "other cutoff": {"alpha_cutoff": 0.05},
    "no cutoff": {"alpha_cutoff": 0.0},
    "early stop": {"transmittance_threshold": 0.2, "count": 100},
}


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("name", list(SCENES))
def test_random_scenes(name: str, projection: str, session: Session) -> None:
    options = {"count": 60, "width": 50, "height": 37, **SCENES[name]}
    for seed in range(2):
        check(random_scene(100 + seed, projection=projection, **options), session)


@pytest.mark.parametrize("eps2d", [0.05, 0.3])
def test_antialiased(eps2d: float, session: Session) -> None:
    scene = random_scene(102, count=60, width=50, height=37, antialiased=True, eps2d=eps2d)
    scene.arrays["scales"] *= 0.3
    check(scene, session)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_fused_render(projection: str, session: Session) -> None:
    check(random_scene(103, count=60, width=50, height=37, projection=projection), session, fused=True)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_clamped_jacobian(projection: str, session: Session) -> None:
    scene = random_scene(104, count=8, projection=projection)
    rng = np.random.default_rng(7)
    x, y = [-3, 3, -3.2, 3.1, 0, 0.2, -2.9, 2.5], [0, 0.2, 1.5, -1, -3, 3, -2.6, 2.2]
    points = np.column_stack([x, y, np.linspace(1.8, 2.2, 8)])
    viewmat = scene.arrays["viewmat"]
    means = (points - viewmat[:3, 3]) @ viewmat[:3, :3]
    check(scene.with_(means=means, scales=rng.uniform(0.7, 1.3, (8, 3)), opacities=rng.uniform(0.5, 0.9, 8)), session)


@pytest.mark.parametrize("antialiased", [False, True])
def test_needles(antialiased: bool, session: Session) -> None:
    """Footprints a thousand pixels long and half a pixel wide, against their covariance's axes: differences of its
    entries would be wrong by per cents in float32. Without blur too, where nothing but the width holds them up."""
    angles, lengths, width = np.linspace(0.1, 3, 7), np.geomspace(3, 10, 7), 0.004
    halves = 0.5 * angles
    zero = np.zeros(7)
    for eps2d in (0.3, 0.0):
        scene = random_scene(107, count=7, width=60, height=60, antialiased=antialiased, eps2d=eps2d, off_center=False)
        scene = scene.with_(
            means=np.column_stack([zero, zero, np.full(7, 1.0)]),
            quats=np.column_stack([np.cos(halves), zero, zero, np.sin(halves)]),
            scales=np.column_stack([lengths, np.full(7, width), np.full(7, 0.01)]),
            viewmat=np.eye(4), intrinsics=np.array([[100.0, 0, 30], [0, 100, 30], [0, 0, 1]]),
        )  # fmt: skip
        given = render_on(scene, session)
        along, across = (100 * lengths) ** 2 + eps2d, (100 * width) ** 2 + eps2d
        c, s = np.cos(angles), np.sin(angles)
        conics = [c * c / along + s * s / across, c * s * (1 / along - 1 / across), s * s / along + c * c / across]
        np.testing.assert_allclose(given["conics"], np.column_stack(conics), rtol=1e-4, atol=1e-6)
        sharpness = np.sqrt((100 * lengths * 100 * width) ** 2 / (along * across)) if antialiased else 1.0
        np.testing.assert_allclose(given["opacities"], scene.arrays["opacities"] * sharpness, rtol=1e-4)
        out = run_all(scene, session)
        assert all(np.isfinite(out[f"v_{n}"]).all() for n in OPERANDS)


def test_limits(session: Session) -> None:
    with pytest.warns(LimitWarning, match="max_splat_steps = 2 cut"):
        check(random_scene(105, count=40, max_splat_steps=2), session)
    scene = rounded(random_scene(106, count=30, tile_size=4, max_list_entries=60))
    with pytest.warns(LimitWarning, match=r"max_list_entries = 60 cut \d+ of \d+"):
        given = render_on(scene, session)
    assert len(given["sorted_ids"]) == 60
    nearest = np.argsort(np.where(given["radii"][:, 0] > 0, given["depths"], np.inf), kind="stable")
    kept = np.unique(given["sorted_ids"])
    assert set(kept) == set(nearest[: len(kept)])


BROKEN: dict[str, dict[str, Any]] = {
    "behind": {"point": [0, 0, -2]},
    "at the camera": {"point": [0, 0, 0]},
    "left": {"point": [-50, 0, 3]},
    "above": {"point": [0, -50, 3]},
    "zero quaternion": {"quats": 0.0},
    "tiny quaternion": {"quats": 1e-30},
    "huge quaternion": {"quats": 1e30},
    "opacity 0": {"opacities": 0.0},
    "opacity 1": {"opacities": 1.0},
    "NaN mean": {"means": np.nan},
    "NaN quaternion": {"quats": np.nan},
    "NaN scale": {"scales": np.nan},
    "infinite scale": {"scales": np.inf},
    "one infinite scale": {"scales": [0.1, np.inf, 0.2]},
    "one infinite coordinate": {"means": [0.1, 0.2, -np.inf]},
    "one infinite quaternion entry": {"quats": [1, 0.2, np.inf, 0.1]},
    "NaN opacity": {"opacities": np.nan},
    "infinite opacity": {"opacities": np.inf},
    "infinite color": {"colors": -np.inf},
    "huge mean": {"means": 3e38},
    "zero scale": {"scales": 0.0},
    "tiny scale": {"scales": 1e-20},
}


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("sh_degree", [-1, 1])
@pytest.mark.parametrize("case", list(BROKEN))
def test_degenerate_gaussians(case: str, projection: str, sh_degree: int, session: Session) -> None:
    scene = random_scene(107, count=12, projection=projection, sh_degree=sh_degree)
    values = dict(BROKEN[case])
    if "point" in values:
        viewmat = scene.arrays["viewmat"]
        values = {"means": (np.array(values["point"]) - viewmat[:3, 3]) @ viewmat[:3, :3], "scales": 0.05}
    for name, value in values.items():
        scene.arrays[name][3] = value
    if case == "zero scale" and projection == "ewa":
        viewmat = scene.arrays["viewmat"]
        scene.arrays["means"][3] = (np.array([0, 0, 2.0]) - viewmat[:3, 3]) @ viewmat[:3, :3]
    wanted, given = render(rounded(scene)), render_on(scene, session)
    assert np.isfinite(given["rgba"]).all()
    if case != "tiny scale":  # its ray footprint is beyond float32, and smaller than any pixel
        np.testing.assert_array_equal(given["radii"] > 0, wanted["radii"] > 0)
    assert np.abs(given["rgba"] - wanted["rgba"]).max() < 1e-4
    out = run_all(scene, session)
    if case == "infinite color":  # stays what it is: the rasterizer skips the Gaussian
        assert not np.isfinite(out["colors"][3]).any()
        out["colors"] = np.delete(out["colors"], 3, axis=0)
    for name, array in out.items():
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("options", [{"count": 0}, {"count": 1}, {"count": 5, "width": 1, "height": 1}])
def test_small_sizes(projection: str, options: dict[str, int], session: Session) -> None:
    check(random_scene(108, projection=projection, **options), session, flips=1.0)


def crowd(count: int, width: int, height: int, **arrays: Any) -> Scene:
    """Many Gaussians on the axis of a camera."""
    rng = np.random.default_rng(109)
    scene = random_scene(109, count=count, width=width, height=height, off_center=False)
    return scene.with_(
        viewmat=np.eye(4),
        means=np.column_stack([np.zeros(count), np.zeros(count), rng.uniform(2, 3, count)]),
        **arrays,
    )


def test_a_million_on_one_pixel(session: Session) -> None:
    count = 1_000_000
    scene = crowd(count, 3, 3, scales=np.full((count, 3), 0.01), opacities=np.full(count, 0.01))
    out = render_on(scene, session)
    assert len(out["sorted_ids"]) == count
    assert 500 < out["last_ids"][1, 1] < 2000
    assert np.isfinite(out["rgba"]).all()


def test_nothing_is_read_or_written_out_of_bounds(session: Session) -> None:
    """Scenes that try: far left, above, behind, huge, tiny, not finite, all at once, at odd image sizes.

    Results must be well formed and finite. Colours stay moderate: beyond 1e19 their products overflow.
    """
    rng = np.random.default_rng(110)
    wild = np.array([0, 1e-30, 1e-5, 1, 1e5, 1e20, 3e38, np.nan, np.inf, -np.inf, -1, -1e10], np.float32)
    for width, height, tile in ((1, 1, 16), (17, 33, 16), (40, 23, 7), (100, 16, 64)):
        for projection in ("ewa", "ray"):
            scene = random_scene(111, count=300, width=width, height=height, projection=projection, tile_size=tile)
            for name in OPERANDS[:5]:
                array = scene.arrays[name]
                hit = rng.uniform(size=array.shape) < 0.15
                array[hit] = rng.choice(np.append(wild[7:11], 1e3) if name == "colors" else wild, size=int(hit.sum()))
            out = run_all(scene, session)
            ids, ranges = out["sorted_ids"], out["tile_ranges"]
            assert len(ids) == 0 or (ids.min() >= 0 and ids.max() < 300)
            assert ranges[0, 0] == 0
            assert ranges[-1, 1] == len(ids)
            assert np.all(ranges[1:, 0] == ranges[:-1, 1])
            assert np.isfinite(out["rgba"]).all()
            assert all(np.isfinite(out[f"v_{n}"]).all() for n in OPERANDS)


def test_bad_indices_are_refused_not_followed(session: Session) -> None:
    graph = ir.Graph("t")
    shapes = {"means2d": [4, 2], "conics": [4, 3], "opacities": [4], "features": [4, 3], "background": [3]}
    values = [graph.input(n, s) for n, s in shapes.items()]
    lists = [graph.input("tile_ranges", [1, 2], "i32"), graph.input("sorted_ids", ["E"], "i32")]
    graph.output("image", ir.splat_rasterize(*values, *lists, width=8, height=8).image)
    exe = session.compile(graph)
    feeds = {n: np.ones(s, np.float32) for n, s in shapes.items()}
    for ranges, ids in (
        ([[0, 2]], [0, 4]),
        ([[0, 2]], [-1, 0]),
        ([[0, 3]], [0, 1]),
        ([[2, 1]], [0, 1]),
        ([[-1, 1]], [0, 1]),
    ):
        bad = {**feeds, "tile_ranges": np.array(ranges, np.int32), "sorted_ids": np.array(ids, np.int32)}
        with pytest.raises(InputError, match="must be between"):
            exe.run(bad)


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_wild_footprints_given_straight_to_the_rasterizer(projection: str, session: Session) -> None:
    """Nothing but finite ellipses is drawn, and the rest is followed nowhere; the reference agrees."""
    rng = np.random.default_rng(113)
    count, conic = 200, 3 if projection == "ewa" else 8
    shapes = {"means2d": [count, 2], "conics": [count, conic], "opacities": [count], "features": [count, 4]}
    arrays = {
        "means2d": rng.uniform(0, 40, (count, 2)),
        "conics": rng.uniform(-0.02, 0.3, (count, conic)) * ([1, 0.3, 1] + [0.01] * 5)[:conic],
        "opacities": rng.uniform(-0.1, 1, count),
    }
    for name, array in arrays.items():
        hit = rng.uniform(size=array.shape) < 0.1
        large = np.nan if name == "means2d" else 1e20  # a mean far off squares beyond float32
        array[hit] = rng.choice([np.nan, np.inf, -np.inf, large, -large, 0.0], size=int(hit.sum()))
    features = np.column_stack([rng.uniform(size=(count, 3)), rng.uniform(1, 2, count)])
    features[rng.uniform(size=count) < 0.05, 1] = rng.choice([np.nan, np.inf])
    arrays |= {"features": features, "background": np.ones(4)}
    feeds = {k: v.astype(np.float32) for k, v in arrays.items()}
    feeds["sorted_ids"] = np.tile(np.arange(count), 9).astype(np.int32)
    feeds["tile_ranges"] = np.array([[i * count, (i + 1) * count] for i in range(9)], np.int32)
    graph = ir.Graph("t")
    values = {n: graph.input(n, s) for n, s in {**shapes, "background": [4]}.items()}
    lists = [graph.input("tile_ranges", [9, 2], "i32"), graph.input("sorted_ids", ["E"], "i32")]
    r = ir.splat_rasterize(*values.values(), *lists, width=40, height=40, projection=projection)
    graph.output("image", r.image)
    graph.output("alpha", r.alpha)
    loss = ir.sum(r.image) + ir.sum(r.alpha)
    wrt = [values["means2d"], values["opacities"]]
    for name, value in zip(("means2d", "opacities"), ir.grad(graph, loss, wrt), strict=True):
        graph.output(f"v_{name}", value)
    given, wanted = (s.compile(graph).run(feeds) for s in (session, Session("reference")))
    assert np.isfinite(given["image"]).all()
    assert given["alpha"].max() > 0.5
    apart = np.abs(given["image"] - wanted["image"]).max(axis=2) > 1e-4
    assert (apart | (np.abs(given["alpha"] - wanted["alpha"]) > 1e-4)).mean() < 0.02
    assert np.isfinite(given["v_opacities"]).all()


def test_garden(session: Session) -> None:
    """The garden's points at full size against the reference, on a part of the view."""
    data = Path(__file__).parents[3] / "examples" / "data" / "garden_points.npz"
    with np.load(data) as file:
        means, colors = file["means3d"], file["colors"] / 255.0
        viewmat, intrinsics = file["viewmats"][0], file["Ks"][0]
    rng = np.random.default_rng(42)
    count = len(means)
    intrinsics = intrinsics.copy()
    intrinsics[:2, 2] -= [280, 250]
    scene = Scene(
        {
            "means": means.astype(float),
            "quats": rng.normal(size=(count, 4)),
            "scales": rng.uniform(0.01, 0.03, (count, 3)),
            "opacities": rng.uniform(0.05, 1, count),
            "colors": colors,
            "viewmat": viewmat.astype(float),
            "intrinsics": intrinsics.astype(float),
            "background": np.zeros(3),
        },
        {"width": 64, "height": 48},
    )
    scene = rounded(scene)
    height, width = 48, 64
    weights = (rng.normal(size=(height, width, 4)), rng.normal(size=(height, width)))
    wanted = gradients(scene, Session("reference"), "f64", weights)
    given = gradients(scene, session, "f32", weights)
    apart = np.abs(given["rgba"] - wanted["rgba"]).max(axis=2) > 1e-4
    assert apart.mean() < 0.02
    for name in ("v_means", "v_quats", "v_scales", "v_opacities", "v_colors", "v_background"):
        compare(name, given[name], wanted[name])


@pytest.mark.parametrize("sh_degree", [-1, 1])
def test_culled_gaussians_receive_no_gradient(sh_degree: int, session: Session) -> None:
    """Whatever arrives at them; but colours that are passed through get what arrives. That itself stays as it is."""
    scene = random_scene(3, count=20, sh_degree=sh_degree)
    scene = scene.with_(opacities=np.where(np.arange(20) % 3 == 0, 0.0, scene.arrays["opacities"]))
    results = []
    for device, dtype in ((session, np.float32), (Session("reference"), np.float64)):
        graph = ir.Graph("t")
        values = declare(graph, scene, "f32" if dtype == np.float32 else "f64")
        graph.output("background", values["background"])
        prepared = ir.splat_prepare(*(values[n] for n in OPERANDS[:7]), **split_attrs(scene.attrs)[0])
        arriving = graph.input("arriving", ["N", 3], values["means"].dtype) * 2.0
        gradients = pullback([(prepared.colors, arriving)], [values[n] for n in OPERANDS[:5]])
        for name, value in zip(OPERANDS, gradients, strict=False):
            graph.output(f"v_{name}", value)
        graph.output("arriving", arriving * 1.5)
        graph.output("radii", prepared.radii)
        feeds = {n: a for n, a in scene.feeds(dtype).items() if n in graph.inputs}
        feeds["arriving"] = np.random.default_rng(0).normal(size=(20, 3)).astype(dtype)
        results.append(device.compile(graph).run(feeds))
    culled = (results[1]["radii"] == 0).any(axis=1)
    assert 3 <= culled.sum() <= 17
    for name, wanted in results[1].items():
        np.testing.assert_allclose(results[0][name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
        if name.startswith("v_") and not (name == "v_colors" and sh_degree < 0):
            assert not results[0][name][culled].any(), name
    if sh_degree < 0:
        fed = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        np.testing.assert_array_equal(results[0]["v_colors"], fed * 2)
