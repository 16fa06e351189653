"""The depth sort and the tile lists of the CPU: beside NumPy, brute force over pixels, and the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cpu import calls
from cameras import attributes, operands, rotated
from stipple.backends.cpu.simd import LANES
from stipple.backends.cpu.sort import depth_order
from stipple.backends.cpu.threads import Threads
from stipple.backends.reference import binning as reference
from stipple.errors import LimitWarning
from stipple.ir.ops.splat import BinOperands, BinResults, ProjectOperands

pytestmark = pytest.mark.every_width

Array = np.ndarray


# --- sort -------------------------------------------------------------------------------------------------
def orders(depths: Array, radii: Array) -> tuple[Array, Array]:
    """The order by the kernels and by NumPy."""
    visible = np.flatnonzero((radii > 0).all(axis=1))
    wanted = visible[np.argsort(depths[visible], kind="stable")]
    return depth_order(radii, depths, Threads(3)), wanted


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 16384, 70_001])
def test_the_order_is_a_stable_argsorts(count: int) -> None:
    rng = np.random.default_rng(count)
    depths = rng.lognormal(0, 3, count).astype(np.float32)
    depths[rng.uniform(size=count) < 0.4] = rng.choice(depths[:10]) if count else 0  # ties
    radii = np.where(rng.uniform(size=(count, 1)) < 0.8, 3, 0).repeat(2, axis=1).astype(np.int32)
    np.testing.assert_array_equal(*orders(depths, radii))


def test_the_order_of_special_depths() -> None:
    special = np.array([0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 1, -1, 3e38, -3e38], np.float32)
    depths = np.random.default_rng(0).choice(special, 500)
    radii = np.ones((500, 2), np.int32)
    radii[7] = 0, 3
    radii[8] = 3, 0
    np.testing.assert_array_equal(*orders(depths, radii))


# --- tiles ------------------------------------------------------------------------------------------------
def binned(x: BinOperands, threads: int = 2, **attrs: Any) -> BinResults:
    return calls.binned(x, attrs, Threads(threads))


def scene(projection: str, count: int = 60, seed: int = 0, **attrs: Any) -> tuple[BinOperands, dict[str, Any]]:
    """Footprints of random Gaussians and the attributes that they were made with."""
    attrs = attributes("pinhole", projection, max_list_entries=0, tile_size=16, **attrs)
    x = rotated(operands(seed, count=count), seed)
    x = ProjectOperands(*(a.astype(np.float32) for a in x))
    p = calls.projected(x, attrs, Threads(1))
    return BinOperands(p.means2d, p.conics, x.opacities * p.compensation, p.radii, p.depths), attrs


def lists(result: BinResults) -> list[Array]:
    return [result.sorted_ids[a:b] for a, b in result.tile_ranges]


def counts_at(x: BinOperands, attrs: dict[str, Any]) -> Array:
    """[n, height, width]: at which pixels each Gaussian counts, by its definition."""
    px, py = np.meshgrid(np.arange(attrs["width"]) + 0.5, np.arange(attrs["height"]) + 0.5)
    conics = x.conics.astype(np.float64)
    result = np.zeros((len(conics), *px.shape), bool)
    with np.errstate(all="ignore"):
        for i, (mean, conic) in enumerate(zip(x.means2d.astype(np.float64), conics, strict=True)):
            dx, dy = px - mean[0], py - mean[1]
            sigma = 0.5 * (conic[0] * dx**2 + conic[2] * dy**2) + conic[1] * dx * dy
            if attrs["projection"] == "ray":
                p, q, e, f, g = conic[3:]
                sigma = sigma / (1 + 2 * (p * dx + q * dy) + e * dx**2 + 2 * f * dx * dy + g * dy**2)
            inside = x.opacities[i] * np.exp(-sigma) >= attrs["alpha_cutoff"]
            result[i] = inside & (sigma <= 0.5 * 3.33**2) & (sigma >= 0) & (x.radii[i] > 0).all()
    return result


def check_lists(x: BinOperands, attrs: dict[str, Any]) -> BinResults:
    """Lists are sorted, in one piece, and no pixel at which a Gaussian counts is lost."""
    result = binned(x, **attrs)
    ranges, size = result.tile_ranges, attrs["tile_size"]
    assert result.sorted_ids.dtype == ranges.dtype == np.int32
    assert ranges[0, 0] == 0
    assert ranges[-1, 1] == len(result.sorted_ids)
    np.testing.assert_array_equal(ranges[1:, 0], ranges[:-1, 1])
    pixels = counts_at(x, attrs)
    columns = -(-attrs["width"] // size)
    for tile, ids in enumerate(lists(result)):
        assert np.all(x.radii[ids] > 0)
        order = np.lexsort((ids, x.depths[ids]))
        np.testing.assert_array_equal(order, np.arange(len(ids)))
        row, column = divmod(tile, columns)
        part = pixels[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        assert set(np.flatnonzero(part.any(axis=(1, 2)))) <= set(ids)
    return result


@pytest.mark.parametrize("projection", ["ewa", "ray"])
@pytest.mark.parametrize("tile_size", [1, 5, 7, 16, 40, 100])
def test_no_pixel_is_lost_and_few_tiles_are_too_many(projection: str, tile_size: int) -> None:
    x, attrs = scene(projection, seed=tile_size)
    attrs["tile_size"] = tile_size
    result = check_lists(x, attrs)
    exact = reference.bin_tiles(BinOperands(*(a if a.dtype == np.int32 else a.astype(float) for a in x)), attrs)
    assert len(exact.sorted_ids) > 50
    assert len(result.sorted_ids) <= 1.002 * len(exact.sorted_ids) + 2
    for ids, wanted in zip(lists(result), lists(exact), strict=True):
        assert set(wanted) <= set(ids)


def test_needles() -> None:
    """Footprints a thousand times as long as wide, at every angle: the box has many tiles, the ellipse few."""
    count = 64
    angles = np.linspace(0, np.pi, count)
    along, across = 400.0**2, 0.4**2
    c, s = np.cos(angles), np.sin(angles)
    conics = [c * c / along + s * s / across, c * s * (1 / along - 1 / across), s * s / along + c * c / across]
    rng = np.random.default_rng(0)
    x = BinOperands(
        rng.uniform(-20, 420, (count, 2)).astype(np.float32),
        np.column_stack(conics).astype(np.float32),
        np.full(count, 0.9, np.float32),
        np.full((count, 2), 1400, np.int32),
        rng.uniform(1, 2, count).astype(np.float32),
    )
    attrs = attributes("pinhole", width=400, height=300, tile_size=16, max_list_entries=0)
    result = check_lists(x, attrs)
    assert len(result.sorted_ids) < 0.25 * count * 25 * 19


@pytest.mark.parametrize("limit", [0, 100_000])
def test_more_tiles_than_are_listed(limit: int) -> None:
    """Large footprints, each in every tile: tiles are found twice instead of being kept."""
    count, tiles = 300, 25 * 19
    rng = np.random.default_rng(2)
    x = BinOperands(
        rng.uniform([0, 0], [400, 300], (count, 2)).astype(np.float32),
        np.tile(np.array([1e-6, 0, 1e-6], np.float32), (count, 1)),
        np.full(count, 0.9, np.float32),
        np.full((count, 2), 4000, np.int32),
        rng.uniform(1, 2, count).astype(np.float32),
    )
    attrs = attributes("pinhole", width=400, height=300, tile_size=16, max_list_entries=limit)
    if not limit:
        result = binned(x, **attrs)
        for ids in lists(result):
            np.testing.assert_array_equal(ids, np.argsort(x.depths, kind="stable"))
        return
    with pytest.warns(LimitWarning, match=f"cut {count * tiles - limit} of {count * tiles}"):
        result = binned(x, **attrs)
    assert len(result.sorted_ids) == limit
    nearest = np.argsort(x.depths, kind="stable")
    for ids in lists(result):
        np.testing.assert_array_equal(ids, nearest[: len(ids)])


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_footprints_that_are_none(projection: str) -> None:
    """Nothing is read or written out of bounds, whatever stands in the operands."""
    x, attrs = scene(projection, count=300)
    rng = np.random.default_rng(1)
    wild = np.array([0, 1e-30, 1e5, 3e38, np.nan, np.inf, -np.inf, -1, -1e10], np.float32)
    for array in (x.means2d, x.conics, x.opacities, x.depths):
        hit = rng.uniform(size=array.shape) < 0.15
        array[hit] = rng.choice(wild, hit.sum())
    x.radii[:] = rng.choice([0, 1, 5, 1 << 30], x.radii.shape)
    result = binned(x, **attrs)
    assert result.tile_ranges[-1, 1] == len(result.sorted_ids)
    assert np.all((result.sorted_ids >= 0) & (result.sorted_ids < 300))
    for ids in lists(result):
        assert len(np.unique(ids)) == len(ids)
    finite = np.isfinite(x.means2d).all(axis=1) & (x.radii > 0).all(axis=1)
    assert finite[np.unique(result.sorted_ids)].all()


@pytest.mark.parametrize("count", [0, 1, LANES + 1, 4096, 12_345])
def test_the_same_bits_for_any_number_of_threads(count: int) -> None:
    x, attrs = scene("ewa", count=count)
    results = [binned(x, threads, **attrs) for threads in (1, 2, 5)]
    for other in results[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("limit", [1, 100, 5000])
def test_a_limit_keeps_the_nearest_entries(limit: int) -> None:
    x, attrs = scene("ewa", count=9000)
    whole = binned(x, **attrs)
    total = len(whole.sorted_ids)
    with pytest.warns(LimitWarning, match=rf"splat_bin: max_list_entries = {limit} cut {total - limit} of {total}"):
        result = binned(x, **{**attrs, "max_list_entries": limit})
    assert len(result.sorted_ids) == limit
    depth_limit = x.depths[result.sorted_ids].max()
    for ids, before in zip(lists(result), lists(whole), strict=True):
        np.testing.assert_array_equal(ids, before[: len(ids)])
        assert np.all(x.depths[before[len(ids) :]] >= depth_limit)
