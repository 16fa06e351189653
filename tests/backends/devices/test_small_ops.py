"""The small splat ops on every device, held to the reference: camera models, features, results of each pixel, lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from scenes import relative_error, rotation
from stipple import ir
from stipple.ir.ops.splat import RasterizeOperands
from stipple.runtime import Session

Arrays = dict[str, np.ndarray]

LENSES: dict[str, tuple[str, list[float]]] = {
    "pinhole": ("pinhole", []),
    "rational": ("pinhole", [0.1, -0.05, 0.01, 0.02, 0.01, 0.003, 0.01, -0.008]),
    "fisheye": ("fisheye", [0.05, -0.01, 0.003, 0.001]),
    "ortho": ("ortho", []),
}
"""Camera models with distortion, none of them zero."""

WIDTH, HEIGHT, COUNT = 40, 30, 40


@dataclass(frozen=True)
class Case:
    """What a graph of the small ops depends on."""

    lens: str = "pinhole"
    projection: str = "ewa"
    features: int = 3
    antialiased: bool = False
    count: int = COUNT

    @property
    def arrays(self) -> Arrays:
        rng = np.random.default_rng(self.features)
        n = self.count
        points = np.column_stack([rng.uniform(-1.5, 1.5, n), rng.uniform(-1.1, 1.1, n), rng.uniform(1.5, 4, n)])
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation(rng), [0.1, -0.2, 0.3]
        focal = 12.0 if self.lens == "ortho" else 25.0
        return {
            "means": (points - viewmat[:3, 3]) @ viewmat[:3, :3],
            "quats": rng.normal(size=(n, 4)),
            "scales": np.exp(rng.uniform(-3, -1, (n, 3))),
            "opacities": rng.uniform(0.1, 0.95, n),
            "features": rng.uniform(-1, 1, (n, self.features)),
            "viewmat": viewmat,
            "intrinsics": np.array([[focal, 0, WIDTH / 2 + 0.7], [0, 1.1 * focal, HEIGHT / 2 - 0.4], [0, 0, 1]]),
            "distortion": np.array(LENSES[self.lens][1]),
            "background": rng.uniform(size=self.features),
        }

    def fed(self, dtype: Any) -> Arrays:
        """Rounded to float32 for every device, so that all are given the same."""
        return {name: array.astype(np.float32).astype(dtype) for name, array in self.arrays.items()}


def declared(graph: ir.Graph, case: Case, dtype: str) -> dict[str, ir.Value]:
    shapes = {name: list(array.shape) for name, array in case.arrays.items()}
    gaussians = ("means", "quats", "scales", "opacities", "features")
    return {n: graph.input(n, ["N", *s[1:]] if n in gaussians else s, dtype) for n, s in shapes.items()}


def built(case: Case, dtype: str, with_lists: bool = True) -> ir.Graph:
    """All results, and gradients in all operands of a loss over image, alpha, depths and compensation.

    ``with_lists`` gives out the lists too: then nobody may make them longer than they are.
    """
    graph = ir.Graph("small_ops")
    x = declared(graph, case, dtype)
    size = {"width": WIDTH, "height": HEIGHT}
    model = {"camera_model": LENSES[case.lens][0], "antialiased": case.antialiased, "projection": case.projection}
    camera = (x["viewmat"], x["intrinsics"], None, x["distortion"])
    p = ir.splat_project(x["means"], x["quats"], x["scales"], x["opacities"], *camera, **size, **model)
    opacities = x["opacities"] * p.compensation
    lists = ir.splat_bin(p.means2d, p.conics, opacities, p.radii, p.depths, **size, projection=case.projection)
    operands = (p.means2d, p.conics, opacities, x["features"], x["background"], *lists)
    r = ir.splat_rasterize(*operands, **size, projection=case.projection)
    rng = np.random.default_rng(1)
    weights = [graph.constant(rng.normal(size=v.shape.static), dtype) for v in (r.image, r.alpha)]
    loss = ir.sum(r.image * weights[0]) + ir.sum(r.alpha * weights[1])
    loss = loss + 0.01 * ir.sum(p.depths) + 0.1 * ir.sum(p.compensation)
    for name, value in zip(x, ir.grad(graph, loss, list(x.values())), strict=True):
        graph.output(f"v_{name}", value)
    for record in (p, r):
        for name, value in record._asdict().items():
            graph.output(name, value)
    if with_lists:
        for name, value in lists._asdict().items():
            graph.output(name, value)
    return graph


def held(given: Arrays, wanted: Arrays) -> None:
    """Results agree; of the discrete ones all but a few, which may come out on the other side."""
    assert given.keys() == wanted.keys()
    for name, array in wanted.items():
        assert given[name].shape == array.shape, name
        if array.dtype.kind == "i":
            assert np.sum(given[name] != array) <= 0.005 * array.size, name
        else:
            assert relative_error(given[name], array) <= 2e-4, (name, relative_error(given[name], array))


def results(case: Case, session: Session) -> Arrays:
    dtype, fed = ("f64", np.float64) if session.device == "reference" else ("f32", np.float32)
    made = session.compile(built(case, dtype, with_lists=False)).run(case.fed(fed))
    entries = made.pop("last_ids")  # positions in the lists, which may hold entries that reach no pixel
    return {**made, "empty": (entries < 0).astype(np.int32)}


CASES: dict[str, Case] = {
    **{f"{lens}, {n} features": Case(lens, features=n) for lens, n in zip(LENSES, (1, 2, 5, 6), strict=True)},
    **{f"{lens}, antialiased": Case(lens, features=4, antialiased=True) for lens in LENSES},
    "rays": Case(projection="ray"),
    "parallel rays": Case("ortho", "ray"),
    "nobody": Case("fisheye", count=0),
}


@pytest.mark.parametrize("name", CASES)
def test_every_camera_model(name: str, session: Session) -> None:
    case = CASES[name]
    held(results(case, session), results(case, Session("reference")))


def test_a_lens_that_only_the_device_knows(session: Session) -> None:
    """A graph may compute the distortion: to fit it, say."""
    case = Case("fisheye")
    graph = ir.Graph("t")
    x = declared(graph, case, "f32")
    p = ir.splat_project(
        x["means"], x["quats"], x["scales"], x["opacities"], x["viewmat"], x["intrinsics"], None, 0.5 * x["distortion"],
        width=WIDTH, height=HEIGHT, camera_model="fisheye",
    )  # fmt: skip
    graph.output("means2d", p.means2d)
    graph.output("v", ir.grad(graph, ir.sum(ir.square(p.means2d)), [x["distortion"]])[0])
    names = graph.inputs.keys() & {v.name for n in graph.nodes for v in n.inputs}
    assert names
    fed = case.fed(np.float32)
    given, wanted = (s.compile(graph).run(fed) for s in (session, Session("reference")))
    for name, array in wanted.items():
        np.testing.assert_allclose(given[name], array, rtol=2e-4, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("lens", ["rational", "fisheye"])
def test_points_beyond_the_lens_are_culled(lens: str, session: Session) -> None:
    """Where a distortion stops growing: beyond, points would fold back into the image."""
    model, length = LENSES[lens][0], len(LENSES[lens][1])
    angles = np.linspace(0.02, 1.3, 60)
    means = np.column_stack([np.sin(angles), np.zeros(60), np.cos(angles)]).astype(np.float32) * 3
    graph = ir.Graph("t")
    operands = {"means": means, "quats": np.tile([1, 0, 0, 0], (60, 1)), "scales": np.full((60, 3), 0.02)}
    operands |= {
        "opacities": np.full(60, 0.9),
        "viewmat": np.eye(4),
        "distortion": np.array([-0.3] + [0] * (length - 1)),
    }
    operands["intrinsics"] = np.array([[60, 0, 100], [0, 60, 20], [0, 0, 1]])
    x = {n: graph.input(n, a.shape) for n, a in operands.items()}
    p = ir.splat_project(
        x["means"], x["quats"], x["scales"], x["opacities"], x["viewmat"], x["intrinsics"], None, x["distortion"],
        width=200, height=40, camera_model=model,
    )  # fmt: skip
    for name, value in p._asdict().items():
        graph.output(name, value)
    fed = {n: a.astype(np.float32) for n, a in operands.items()}
    given, wanted = (s.compile(graph).run(fed) for s in (session, Session("reference")))
    visible = wanted["radii"][:, 0] > 0
    assert 10 < visible.sum() < 55
    assert (np.diff(given["means2d"][visible, 0]) > 0).all()
    np.testing.assert_array_equal(given["radii"] > 0, wanted["radii"] > 0)
    for name in ("means2d", "depths", "compensation"):
        np.testing.assert_allclose(given[name], wanted[name], rtol=1e-4, atol=1e-3, err_msg=name)


# --- lists ------------------------------------------------------------------------------------------------
def test_lists_are_passed(gpu_session: Session) -> None:
    """What binning knows of a Gaussian's entries reaches the gradients; the same gradients come of a sort."""
    case = Case(features=4)
    fed = case.fed(np.float32)
    passed = gpu_session.compile(built(case, "f32"))
    ops = {d.op for d in passed.dispatch}
    assert {"splat_bin_listed", "splat_rasterize_backward_listed"} <= ops
    assert not {"splat_bin", "splat_rasterize_backward"} & ops
    graph = ir.Graph("lists_given")
    given = passed.run(fed)
    operands = [given[n] for n in ("means2d", "conics")] + [fed["opacities"] * given["compensation"], fed["features"]]
    operands += [fed["background"], given["tile_ranges"], given["sorted_ids"]]
    names = RasterizeOperands._fields
    dtypes = {"tile_ranges": "i32", "sorted_ids": "i32"}
    values = [graph.input(n, a.shape, dtypes.get(n, "f32")) for n, a in zip(names, operands, strict=True)]
    r = ir.splat_rasterize(*values, width=WIDTH, height=HEIGHT)
    rng = np.random.default_rng(1)
    weights = [graph.constant(rng.normal(size=v.shape.static), "f32") for v in (r.image, r.alpha)]
    loss = ir.sum(r.image * weights[0]) + ir.sum(r.alpha * weights[1])
    graph.output("v_features", ir.grad(graph, loss, [values[3]])[0])
    found = gpu_session.compile(graph)
    assert "splat_rasterize_backward" in {d.op for d in found.dispatch}
    v_features = found.run(dict(zip(names, operands, strict=True)))["v_features"]
    np.testing.assert_allclose(v_features, given["v_features"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depths", [[3.0, -2.0, 0.5, -7.0, 0.0, 3.0], [1e-30, 2.0, np.inf, 1.0, -0.0, 0.0]])
def test_any_depths_are_sorted(depths: list[float], session: Session) -> None:
    """Negative ones too, which no projection makes; zeros are equal, and equal ones are by index."""
    graph = ir.Graph("t")
    n = len(depths)
    fed = {
        "means2d": np.full((n, 2), 4.0), "conics": np.tile([0.1, 0.0, 0.1], (n, 1)), "opacities": np.full(n, 0.5),
        "radii": np.full((n, 2), 3), "depths": np.array(depths),
    }  # fmt: skip
    values = [graph.input(k, a.shape, "i32" if k == "radii" else "f32") for k, a in fed.items()]
    graph.output("ids", ir.splat_bin(*values, width=8, height=8).sorted_ids)
    fed = {k: a.astype(np.int32 if k == "radii" else np.float32) for k, a in fed.items()}
    ids = session.compile(graph).run(fed)["ids"]
    assert ids.tolist() == np.argsort(depths, kind="stable").tolist()


# --- results of each pixel --------------------------------------------------------------------------------
@pytest.mark.parametrize("wanted", ["image", "alpha", "median_ids", "counts", "last_ids"])
def test_each_result_alone(wanted: str, session: Session) -> None:
    """Results that nothing uses are left out, and the others are as they were."""
    case = Case()
    graph = built(case, "f32", with_lists=False)
    alone = ir.Graph("alone")
    x = declared(alone, case, "f32")
    camera = (x["viewmat"], x["intrinsics"], None, x["distortion"])
    p = ir.splat_project(x["means"], x["quats"], x["scales"], x["opacities"], *camera, width=WIDTH, height=HEIGHT)
    lists = ir.splat_bin(p.means2d, p.conics, x["opacities"], p.radii, p.depths, width=WIDTH, height=HEIGHT)
    r = ir.splat_rasterize(
        p.means2d, p.conics, x["opacities"], x["features"], x["background"], *lists, width=WIDTH, height=HEIGHT
    )
    alone.output(wanted, getattr(r, wanted))
    fed = case.fed(np.float32)
    given = session.compile(alone).run(fed)[wanted]
    np.testing.assert_array_equal(given, session.compile(graph).run(fed)[wanted])
