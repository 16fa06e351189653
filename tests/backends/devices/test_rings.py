"""Gradients of rasterization by Gaussian, at the borders of the rings in which pixels move: lists of about the length
of a ring; tiles that the image covers in part; pixels that are done in the middle of a list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.devices.held_to_reference import compare
from stipple import ir
from stipple.ir.ops.splat import RasterizeOperands, splat_backward_node
from stipple.runtime import Session

Arrays = dict[str, np.ndarray]

LENGTHS = (0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 130)
"""Entries of each tile's list. Rings have 8 threads (Mesa's software device), 32 (without subgroups), or up to 128."""
HEIGHT = 13
WRT = RasterizeOperands._fields[:5]


def footprints(projection: str, features: int, opaque: bool, tile_size: int = 16) -> Arrays:
    """A row of tiles with lists of LENGTHS, of wide footprints that reach every pixel of a small tile."""
    rng = np.random.default_rng(features)
    count, ids = sum(LENGTHS), rng.permutation(sum(LENGTHS))
    left = np.empty(count)
    left[ids] = tile_size * np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    conics = np.column_stack([rng.uniform(0.003, 0.01, count), np.zeros(count), rng.uniform(0.003, 0.01, count)])
    conics[:, 1] = rng.uniform(-0.002, 0.002, count)
    if projection == "ray":
        conics = np.column_stack([conics, rng.uniform(-1, 1, (count, 5)) * ([1e-3] * 2 + [1e-5] * 3)])
    ends = np.cumsum(LENGTHS)
    arrays = {
        "means2d": np.column_stack([left + rng.uniform(-5, tile_size + 5, count), rng.uniform(-5, HEIGHT + 5, count)]),
        "conics": conics,
        "opacities": rng.uniform(0.2, 0.999, count) if opaque else rng.uniform(0.005, 0.05, count),
        "features": rng.uniform(-1, 1, (count, features)),
        "background": rng.uniform(-1, 1, features),
    }
    rounded = {name: array.astype(np.float32) for name, array in arrays.items()}
    ranges = np.stack([ends - LENGTHS, ends], -1)
    return {**rounded, "tile_ranges": ranges.astype(np.int32), "sorted_ids": ids.astype(np.int32)}


def results(session: Session, arrays: Arrays, magnitudes: bool = True, **attrs: Any) -> Arrays:
    """last_ids, and the gradients of a weighted loss, with the magnitudes of the means' or without."""
    exact = session.device == "reference"
    dtype = "f64" if exact else "f32"
    graph = ir.Graph("t")
    values = [graph.input(n, a.shape, "i32" if a.dtype == np.int32 else dtype) for n, a in arrays.items()]
    size = {"width": attrs["tile_size"] * len(LENGTHS) - 3, "height": min(HEIGHT, attrs["tile_size"])}
    r = ir.splat_rasterize(*values, **size, alpha_cutoff=0.0, **attrs)
    rng = np.random.default_rng(1)
    weights = [graph.constant(rng.normal(size=v.shape.static), dtype) for v in (r.image, r.alpha)]
    loss = ir.sum(r.image * weights[0]) + ir.sum(r.alpha * weights[1])
    for name, value in zip(WRT, ir.grad(graph, loss, values[: len(WRT)]), strict=True):
        graph.output(f"v_{name}", value)
    if magnitudes:
        graph.output("v_means2d_abs", splat_backward_node(graph).result("v_means2d_abs"))
    graph.output("last_ids", r.last_ids)
    feeds = {n: a.astype(np.float64) if exact and a.dtype == np.float32 else a for n, a in arrays.items()}
    return session.compile(graph).run(feeds)


@pytest.mark.parametrize("features", [1, 4, 6, 7, 23])
@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_lists_of_every_length(projection: str, features: int, gpu_session: Session) -> None:
    arrays = footprints(projection, features, opaque=False)
    attrs = {"projection": projection, "tile_size": 16}
    given, wanted = (results(s, arrays, **attrs) for s in (gpu_session, Session("reference")))
    ends = arrays["tile_ranges"][:, 1]
    assert {int(ends[k]) - 1 for k in range(1, len(LENGTHS))} <= set(wanted["last_ids"].reshape(-1).tolist())
    for name in wanted.keys() - {"last_ids"}:
        compare(name, given[name], wanted[name])


@pytest.mark.parametrize("tile_size", [5, 16, 20, 40])
@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_pixels_that_are_done_early(projection: str, tile_size: int, gpu_session: Session) -> None:
    arrays = footprints(projection, 3, True, tile_size)
    attrs = {"projection": projection, "tile_size": tile_size}
    given, wanted = (results(s, arrays, **attrs) for s in (gpu_session, Session("reference")))
    depth = wanted["last_ids"][:, -2:] - arrays["tile_ranges"][-1, 0]
    assert 0 < depth.min() <= depth.max() < 60
    assert (given["last_ids"] != wanted["last_ids"]).mean() < 0.01
    for name in wanted.keys() - {"last_ids"}:
        compare(name, given[name], wanted[name])


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_the_same_bits_every_time_with_magnitudes_or_without(projection: str, gpu_session: Session) -> None:
    arrays = footprints(projection, 7, True)
    attrs = {"projection": projection, "tile_size": 16}
    first = results(gpu_session, arrays, **attrs)
    for _ in range(3):
        again = results(gpu_session, arrays, **attrs)
        assert all(np.array_equal(again[name], array) for name, array in first.items())
    without = results(gpu_session, arrays, magnitudes=False, **attrs)
    for name, array in without.items():
        np.testing.assert_array_equal(array, first[name], err_msg=name)
