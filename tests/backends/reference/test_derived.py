"""Median depth and normals, which ordinary ops make, against plain NumPy and central differences."""

from __future__ import annotations

import numpy as np
import pytest

from compositor import composite
from scenes import OPERANDS, declare, prepare_and_rasterize, random_scene, relative_error, rotation
from stipple import ir
from stipple.runtime import Session


def rotation_matrix(q: np.ndarray) -> np.ndarray:
    """Of a quaternion wxyz, by Rodrigues' formula."""
    w, v = q[0] / np.linalg.norm(q), q[1:] / np.linalg.norm(q)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


# --- median depth -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("seed", [60, 61])
def test_median_depth_is_where_half_of_the_light_is_gone(seed: int, projection: str) -> None:
    """Against compositing one Gaussian more at a time: the median is the one that takes transmittance to a half."""
    scene = random_scene(seed, count=14, opaque=seed == 61, projection=projection)
    graph = ir.Graph("median")
    prepared, image = prepare_and_rasterize(declare(graph, scene), scene.attrs)
    graph.output("median", ir.splat_median_depth(prepared.depths, image.median_ids))
    for name, value in {**prepared._asdict(), **image._asdict()}.items():
        graph.output(name, value)
    out = Session("reference").compile(graph).run(scene.feeds())
    height, width = scene.attrs["height"], scene.attrs["width"]
    wanted, ids, counts = np.zeros((height, width)), np.full((height, width), -1), np.zeros((height, width), int)
    visible = np.flatnonzero(out["radii"][:, 0] > 0)
    order = visible[np.argsort(out["depths"][visible], kind="stable")]
    before = np.ones((height, width))
    for k, i in enumerate(order):
        first = {**out, "radii": np.where(np.isin(np.arange(14), order[: k + 1])[:, None], out["radii"], 0)}
        light = 1 - composite(first, scene.arrays["background"], scene.attrs).rgba[..., 3]
        adds = light < before
        takes = adds & (before > 0.5)
        wanted[takes], ids[takes] = out["depths"][i], i
        counts += adds
        before = light
    np.testing.assert_array_equal(out["median_ids"], ids)
    np.testing.assert_array_equal(out["counts"], counts)
    np.testing.assert_allclose(out["median"], wanted, rtol=1e-14)
    halved = out["transmittance"] <= 0.5
    assert 0 < halved.mean() < 1, "some pixels keep more than half of their light, and some do not"
    assert np.all(out["median"][~halved & (ids >= 0)] > 0)
    assert np.all(out["median"][ids < 0] == 0)


def test_gradients_of_median_depth_are_differences() -> None:
    """They go to the depths of the median Gaussians, and through them to means and camera."""
    scene = random_scene(62, count=10)
    graph = ir.Graph("median")
    values = declare(graph, scene)
    prepared, image = prepare_and_rasterize(values, scene.attrs)
    weights = np.random.default_rng(0).normal(size=(scene.attrs["height"], scene.attrs["width"]))
    loss = ir.sum(ir.splat_median_depth(prepared.depths, image.median_ids) * graph.constant(weights))
    graph.output("loss", loss)
    graph.output("ids", image.median_ids)
    names = ("means", "viewmat", "quats")
    for name, gradient in zip(names, ir.grad(graph, loss, [values[n] for n in names]), strict=True):
        graph.output(f"v_{name}", gradient)
    exe = Session("reference").compile(graph)
    out = exe.run(scene.feeds())
    assert len(np.unique(out["ids"])) > 4
    assert np.all(out["v_quats"] == 0)
    for name in ("means", "viewmat"):
        wanted = np.zeros_like(scene.arrays[name])
        for i in range(wanted.size if name == "means" else 12):
            ends = []
            for step in (-1e-7, 1e-7):
                moved = scene.arrays[name].copy()
                moved.flat[i] += step
                end = exe.run(scene.with_(**{name: moved}).feeds())
                np.testing.assert_array_equal(end["ids"], out["ids"])
                ends.append(float(end["loss"]))
            wanted.flat[i] = (ends[1] - ends[0]) / 2e-7
        assert relative_error(out[f"v_{name}"], wanted) < 1e-6, name


# --- normals ----------------------------------------------------------------------------------------------
def normals_graph() -> ir.Graph:
    graph = ir.Graph("normals")
    means, quats, scales = (graph.input(n, ["N", k], "f64") for n, k in (("means", 3), ("quats", 4), ("scales", 3)))
    viewmat = graph.input("viewmat", [4, 4], "f64")
    normals = ir.splat_normals(means, quats, scales, viewmat)
    graph.output("normals", normals)
    loss = ir.sum(normals * graph.input("weights", ["N", 3], "f64"))
    graph.output("loss", loss)
    for name, gradient in zip(
        ("means", "quats", "scales", "viewmat"), ir.grad(graph, loss, [means, quats, scales, viewmat]), strict=True
    ):
        graph.output(f"v_{name}", gradient)
    return graph


def normals_feeds(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(70)
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation(rng), rng.normal(size=3)
    return {
        "means": rng.normal(size=(count, 3)) * 2,
        "quats": rng.normal(size=(count, 4)) * 3,
        "scales": rng.uniform(0.1, 1, (count, 3)),
        "viewmat": viewmat,
        "weights": rng.normal(size=(count, 3)),
    }


def test_normals_are_the_shortest_axes_towards_the_camera() -> None:
    feeds = normals_feeds(20)
    feeds["scales"][0], feeds["scales"][1] = 0.4, [0.5, 0.2, 0.2]  # of equal ones the first
    given = Session("reference").compile(normals_graph()).run(feeds)["normals"]
    view = feeds["viewmat"][:3, :3]
    for i, (mean, quat, scale) in enumerate(zip(feeds["means"], feeds["quats"], feeds["scales"], strict=True)):
        axis = view @ rotation_matrix(quat)[:, [0, 1][i] if i < 2 else int(np.argmin(scale))]
        towards = -(view @ mean + feeds["viewmat"][:3, 3])
        np.testing.assert_allclose(given[i], axis * np.sign(axis @ towards), atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, rtol=1e-12)


def test_gradients_of_normals_are_differences() -> None:
    feeds = normals_feeds(6)
    exe = Session("reference").compile(normals_graph())
    out = exe.run(feeds)
    for name in ("means", "quats", "scales", "viewmat"):
        wanted = np.zeros_like(feeds[name])
        for i in range(wanted.size if name != "viewmat" else 12):
            ends = []
            for step in (-2e-5, -1e-5, 1e-5, 2e-5):
                moved = {**feeds, name: feeds[name].copy()}
                moved[name].flat[i] += step
                ends.append(float(exe.run(moved)["loss"]))
            wanted.flat[i] = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / 12e-5
        if name in ("means", "scales"):
            assert np.all(out[f"v_{name}"] == 0)
            assert np.abs(wanted).max() < 1e-9
        else:
            assert relative_error(out[f"v_{name}"], wanted) < 1e-8, name


def test_an_image_of_normals_is_their_weighted_mean() -> None:
    """Normals are features like colours: against compositing them as colours over nothing."""
    scene = random_scene(71, count=10)
    graph = ir.Graph("normals")
    values = declare(graph, scene)
    prepared, _ = prepare_and_rasterize(values, scene.attrs)
    normals = ir.splat_normals(values["means"], values["quats"], values["scales"], values["viewmat"])
    nothing = graph.constant(np.zeros(3))
    size = {k: scene.attrs[k] for k in ("width", "height")}
    image = ir.splat_rasterize(
        prepared.means2d, prepared.conics, prepared.opacities, normals, nothing, prepared.tile_ranges,
        prepared.sorted_ids, **size,
    )  # fmt: skip
    graph.output("image", image.image)
    graph.output("normals", normals)
    for name in ("means2d", "conics", "opacities", "depths", "radii"):
        graph.output(name, getattr(prepared, name))
    loss = ir.sum(image.image)
    for name, gradient in zip(OPERANDS[:4], ir.grad(graph, loss, [values[n] for n in OPERANDS[:4]]), strict=True):
        graph.output(f"v_{name}", gradient)
    out = Session("reference").compile(graph).run(scene.feeds())
    wanted = composite({**out, "colors": out["normals"]}, np.zeros(3), scene.attrs)
    np.testing.assert_allclose(out["image"], wanted.rgba[..., :3], atol=1e-12)
    assert all(np.isfinite(out[f"v_{n}"]).all() for n in OPERANDS[:4])
