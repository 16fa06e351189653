"""splat_rasterize on the CPU beside the reference: every variant of the kernels, and what they must not trip over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cpu import calls
from backends.cpu.rasterize_cases import (
    EVERYTHING,
    GRADIENTS,
    SIGNED,
    THREADS,
    USUAL,
    backward_operands,
    check,
    exactly,
    make_attrs,
    make_footprints,
)
from stipple.backends.cpu import composite_backward, reduction
from stipple.backends.cpu.threads import Threads
from stipple.backends.reference import composite as reference
from stipple.errors import InputError, LimitWarning
from stipple.ir.ops.splat import RasterizeResults

PROJECTIONS = ["ewa", "ray"]


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("features", range(1, 7))
def test_any_number_of_features(features: int, projection: str) -> None:
    attrs = make_attrs(projection=projection)
    check(make_footprints(features, features, attrs), attrs)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("features", [3, 9])
def test_medians_counts_and_magnitudes(features: int, projection: str) -> None:
    attrs = make_attrs(projection=projection)
    x = make_footprints(11, features, attrs, count=15)
    check(x, attrs, EVERYTHING, magnitudes=True)
    usual, everything = (calls.rasterized(x, attrs, THREADS, used) for used in (USUAL, EVERYTHING))
    for name in ("image", "alpha", "transmittance", "last_ids"):
        np.testing.assert_array_equal(getattr(usual, name), getattr(everything, name))
    assert len(np.unique(everything.median_ids)) > 5
    assert (everything.median_ids == -1).any()
    np.testing.assert_array_equal(everything.counts == 0, everything.last_ids == -1)


def test_an_image_alone() -> None:
    """What nothing uses is not written, and changes nothing else."""
    attrs = make_attrs()
    x = make_footprints(13, 4, attrs)
    alone = calls.rasterized(x, attrs, THREADS, RasterizeResults(True, True, False, False, False, False))
    usual = calls.rasterized(x, attrs, THREADS, USUAL)
    for name in ("image", "alpha"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(usual, name))
    assert all(a is None for a in alone[2:])


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("size", [1, 5, 16, 17, 40, 1024])
def test_any_size_of_tiles(size: int, projection: str) -> None:
    """Smaller than a block, a block, and several."""
    attrs = make_attrs(projection=projection, tile_size=size)
    check(make_footprints(3, 3, attrs, count=20), attrs)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 15), (8, 33), (3, 40)])
def test_any_size_of_images(width: int, height: int) -> None:
    attrs = make_attrs(width, height)
    check(make_footprints(4, 4, attrs, count=15), attrs)


@pytest.mark.every_width
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_all_results(projection: str) -> None:
    """In chunks of features, and three at once."""
    attrs = make_attrs(projection=projection)
    check(make_footprints(1, 3, attrs), attrs)
    check(make_footprints(1, 5, attrs), attrs, EVERYTHING, magnitudes=True)


@pytest.mark.every_width
@pytest.mark.parametrize("size", [1, 5, 40])
def test_tiles_of_other_sizes_than_blocks(size: int) -> None:
    attrs = make_attrs(tile_size=size)
    check(make_footprints(2, 3, attrs, 20), attrs)


@pytest.mark.parametrize("steps", [1, 3])
def test_limits_of_steps(steps: int) -> None:
    attrs = make_attrs(max_splat_steps=steps)
    x = make_footprints(5, 3, attrs)
    with pytest.warns(LimitWarning, match=f"max_splat_steps = {steps} cut") as ours:
        made = calls.rasterized(x, attrs, THREADS, EVERYTHING)
    with pytest.warns(LimitWarning) as theirs:
        wanted = reference.rasterize(exactly(x), attrs)
    assert str(ours[0].message) == str(theirs[0].message)
    np.testing.assert_allclose(made.image, wanted.image, atol=2e-5)
    assert made.counts.max() == steps
    with pytest.warns(LimitWarning):
        check(x, attrs, EVERYTHING)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("features", [4, 5])
def test_nothing_to_draw(features: int, projection: str) -> None:
    attrs = make_attrs(projection=projection)
    for count in (0, 30):
        x = make_footprints(6, features, attrs, count)
        x = x._replace(tile_ranges=np.zeros_like(x.tile_ranges), sorted_ids=x.sorted_ids[:0])
        made = calls.rasterized(x, attrs, THREADS, EVERYTHING)
        np.testing.assert_array_equal(made.image, np.broadcast_to(x.background, made.image.shape))
        assert not made.alpha.any()
        assert (made.transmittance == 1).all()
        assert (made.last_ids == -1).all()
        assert (made.median_ids == -1).all()
        assert not made.counts.any()
        operands = backward_operands(x, made)
        given = calls.rasterize_backward(operands, attrs, THREADS, GRADIENTS)
        for name in ("v_means2d", "v_conics", "v_opacities", "v_features", "v_means2d_abs"):
            assert not getattr(given, name).any(), name
        np.testing.assert_allclose(given.v_background, operands.v_image.sum(axis=(0, 1)), rtol=1e-3)


BROKEN: dict[str, tuple[str, Any]] = {
    "NaN mean": ("means2d", [np.nan, 5]),
    "infinite mean": ("means2d", [5, np.inf]),
    "far mean": ("means2d", [1e20, -1e20]),
    "NaN conic": ("conics", np.nan),
    "infinite conic": ("conics", np.inf),
    "zero conic": ("conics", 0),
    "no ellipse": ("conics", [1, 2, 1]),
    "negative": ("conics", [-1, 0, -1]),
    "needle": ("conics", [1e-6, 0, 10]),
    "wide": ("conics", [1e-12, 0, 1e-12]),
    "NaN opacity": ("opacities", np.nan),
    "infinite opacity": ("opacities", np.inf),
    "opacity 0": ("opacities", 0),
    "negative opacity": ("opacities", -1),
    "opacity beyond 1": ("opacities", 3),
    "NaN feature": ("features", np.nan),
    "infinite feature": ("features", -np.inf),
    "large feature": ("features", 1e30),
}


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("features", [3, 6])
@pytest.mark.parametrize("case", list(BROKEN))
def test_broken_footprints(case: str, features: int, projection: str) -> None:
    """One Gaussian in ten is out of the ordinary; those that cannot be drawn are skipped, and get no gradient."""
    attrs = make_attrs(projection=projection)
    x = make_footprints(7, features, attrs)
    name, value = BROKEN[case]
    array = getattr(x, name)
    if name == "conics":
        array[::10, :3] = value
    elif name == "features":
        array[::10, -1] = value
    else:
        array[::10] = value
    if case == "large feature":
        made, wanted = calls.rasterized(x, attrs, THREADS, USUAL), reference.rasterize(exactly(x), attrs)
        np.testing.assert_allclose(made.image, wanted.image, rtol=1e-3, atol=1e27)
        return
    check(x, attrs)
    drawn = case in ("opacity beyond 1", "needle", "wide")
    images = calls.rasterized(x, attrs, THREADS, USUAL)
    given = calls.rasterize_backward(backward_operands(x, images), attrs, THREADS, SIGNED)
    assert given.v_features[::10].any() == drawn


@pytest.mark.parametrize("cutoff", [0.0, 0.3])
def test_other_cutoffs_and_thresholds(cutoff: float) -> None:
    attrs = make_attrs(alpha_cutoff=cutoff, transmittance_threshold=0.2)
    check(make_footprints(8, 3, attrs), attrs)


def test_alpha_is_held_below_one() -> None:
    """At MAX_ALPHA a footprint's shape has no gradient, and its features have all of theirs."""
    attrs = make_attrs(20, 20, tile_size=20, transmittance_threshold=0.0)
    x = make_footprints(9, 3, attrs, count=4)
    x = x._replace(
        means2d=np.full((4, 2), 10, np.float32),
        conics=np.tile(np.array([1e-4, 0, 1e-4], np.float32), (4, 1)),
        opacities=np.array([2, 0.5, 2, 0.9], np.float32),
        sorted_ids=np.array([1, 3, 0, 2], np.int32),
    )
    check(x, attrs)
    images = calls.rasterized(x, attrs, THREADS, USUAL)
    given = calls.rasterize_backward(backward_operands(x, images), attrs, THREADS, SIGNED)
    assert not given.v_opacities[[0, 2]].any()
    assert given.v_opacities[[1, 3]].all()
    assert given.v_features.all()


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("features", [3, 6])
def test_threads_do_not_change_a_bit(features: int, projection: str) -> None:
    attrs = make_attrs(projection=projection)
    x = make_footprints(10, features, attrs, count=150)
    alone = calls.rasterized(x, attrs, Threads(1), EVERYTHING)
    operands = backward_operands(x, alone)
    alone_back = calls.rasterize_backward(operands, attrs, Threads(1), GRADIENTS)
    for count in (2, 3, 7):
        threads = Threads(count)
        for one, many in zip(alone, calls.rasterized(x, attrs, threads, EVERYTHING), strict=True):
            np.testing.assert_array_equal(one, many)
        for one, many in zip(alone_back, calls.rasterize_backward(operands, attrs, threads, GRADIENTS), strict=True):
            np.testing.assert_array_equal(one, many)


def test_lists_that_share_entries() -> None:
    """Every tile with the same list: each has sums of its own."""
    attrs = make_attrs()
    x = make_footprints(12, 3, attrs)
    x = x._replace(tile_ranges=np.tile(np.array([[7, 50]], np.int32), (len(x.tile_ranges), 1)))
    check(x, attrs)


def test_indices_that_point_outside_are_refused() -> None:
    attrs = make_attrs(8, 8)
    x = make_footprints(13, 3, attrs, count=4)
    for ranges, ids in (
        ([[0, 2]], [0, 4]),
        ([[0, 2]], [-1, 0]),
        ([[0, 3]], [0, 1]),
        ([[2, 1]], [0, 1]),
        ([[-1, 1]], [0, 1]),
    ):
        bad = x._replace(tile_ranges=np.array(ranges, np.int32), sorted_ids=np.array(ids, np.int32))
        with pytest.raises(InputError, match="must be between"):
            calls.rasterized(bad, attrs, THREADS, USUAL)
        operands = backward_operands(bad, calls.rasterized(x, attrs, THREADS, USUAL))
        with pytest.raises(InputError, match="must be between"):
            calls.rasterize_backward(operands, attrs, THREADS, SIGNED)


# --- reduction --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stride", [9, 12, 16, 20])
def test_reduction_beside_numpy(stride: int) -> None:
    rng = np.random.default_rng(stride)
    lengths = rng.integers(0, 1500, 9)
    ends = np.cumsum(lengths)
    ranges = np.stack([ends - lengths, ends], -1).astype(np.int32)
    walked = rng.integers(0, lengths + 1)
    ids = rng.integers(0, 70, ends[-1]).astype(np.int32)
    sums = rng.normal(size=(ends[-1] + 4, stride)).astype(np.float32)
    slots = composite_backward.Slots(sums.reshape(-1), ends - lengths, walked, stride)
    wanted = np.zeros((70, stride))
    for first, count in zip(ends - lengths, walked, strict=True):
        np.add.at(wanted, ids[first : first + count], sums[first : first + count].astype(np.float64))
    made = [reduction.add_up(ranges, ids, slots, 70, Threads(n))[:, :stride].copy() for n in (1, 2, 5, 100)]
    np.testing.assert_allclose(made[0], wanted, atol=1e-3)
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)
