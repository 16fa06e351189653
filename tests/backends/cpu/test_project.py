"""Projection and SH on the CPU beside the reference: every camera model, every width of vectors, broken Gaussians."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cpu import calls
from cameras import CASES, DISTORTIONS, attributes, model_of, operands, rotated
from scenes import relative_error, rotation
from stipple.backends.cpu.simd import LANES
from stipple.backends.cpu.threads import Threads
from stipple.backends.reference import project as reference
from stipple.backends.reference import sh as reference_sh
from stipple.ir.ops.splat import (
    ProjectBackwardOperands,
    ProjectBackwardResults,
    ProjectOperands,
    ProjectResults,
    ShBackwardOperands,
    ShBackwardResults,
    ShOperands,
)

pytestmark = pytest.mark.every_width

Array = np.ndarray
ALL = ProjectBackwardResults(*[True] * 6)
NO_CAMERA = ProjectBackwardResults(True, True, True, False, False, False)
FLOATS = ("means2d", "conics", "depths", "compensation")
VARIANTS = [(lens, p, a) for lens, p in CASES for a in (False, True) if not (a and p == "ray")]


def rounded(record: Any) -> tuple[Any, Any]:
    """A record's arrays in float32, and the same numbers in float64."""
    narrow = type(record)(*(a if a.dtype == np.int32 else a.astype(np.float32) for a in record))
    return narrow, type(record)(*(a if a.dtype == np.int32 else a.astype(np.float64) for a in narrow))


def gaussians(lens: str, count: int = 5 * LANES + 3, seed: int = 3) -> tuple[ProjectOperands, ProjectOperands]:
    """Gaussians before a rotated camera, some beyond the frame, some behind it, in float32 and float64."""
    x = operands(seed, count=count, distortion=DISTORTIONS[lens])
    means = x.means * np.where(np.arange(count) % 7 == 0, [[2.5], [2.0], [1.0]], 1.0).T
    means[::11, 2] *= -1
    return rounded(rotated(x._replace(means=means, scales=x.scales * 0.5), seed + 1))


def cotangents(result: ProjectResults, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=getattr(result, n).shape).astype(np.float32) for n in FLOATS]


@pytest.mark.parametrize(("lens", "projection", "antialiased"), VARIANTS)
def test_projection_is_the_references(lens: str, projection: str, antialiased: bool) -> None:
    attrs = attributes(model_of(lens), projection, antialiased=antialiased)
    x, exact = gaussians(lens)
    wanted, given = reference.project(exact, attrs), calls.projected(x, attrs, Threads(1))
    assert 0.3 < np.mean(wanted.radii[:, 0] > 0) < 1
    np.testing.assert_array_equal(given.radii > 0, wanted.radii > 0)
    assert np.abs(given.radii - wanted.radii).max() <= 1
    for name in FLOATS:
        assert relative_error(getattr(given, name), getattr(wanted, name)) < 1e-5, name
        assert not getattr(given, name)[wanted.radii[:, 0] == 0].any(), name


@pytest.mark.parametrize(("lens", "projection", "antialiased"), VARIANTS)
def test_gradients_are_the_references(lens: str, projection: str, antialiased: bool) -> None:
    attrs = attributes(model_of(lens), projection, antialiased=antialiased)
    x, exact = gaussians(lens, seed=5)
    forward = reference.project(exact, attrs)
    v = cotangents(forward)
    wanted = reference.project_backward(
        ProjectBackwardOperands(*exact, forward.radii, *(a.astype(np.float64) for a in v)), attrs
    )
    arriving = ProjectBackwardOperands(*x, forward.radii, *v)
    given = calls.project_backward(arriving, attrs, Threads(1), ALL)
    for name, a, b in zip(ProjectBackwardResults._fields, given, wanted, strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.float32
        if b.size:
            assert np.linalg.norm(b) > 0, name
            assert relative_error(a, b) < 2e-5, name
    without = calls.project_backward(arriving, attrs, Threads(1), NO_CAMERA)
    for name in ("v_means", "v_quats", "v_scales"):
        np.testing.assert_array_equal(getattr(without, name), getattr(given, name))
    assert all(a is None for a in without[3:])


@pytest.mark.parametrize("count", [0, 1, LANES - 1, LANES, LANES + 1, 8192 + LANES // 2])
def test_any_number_of_gaussians(count: int) -> None:
    attrs = attributes("pinhole")
    x, exact = gaussians("pinhole", count=count)
    wanted, given = reference.project(exact, attrs), calls.projected(x, attrs, Threads(2))
    np.testing.assert_array_equal(given.radii > 0, wanted.radii > 0)
    v = cotangents(given)
    back = calls.project_backward(ProjectBackwardOperands(*x, given.radii, *v), attrs, Threads(2), ALL)
    assert [a.shape for a in back[:3]] == [(count, 3), (count, 4), (count, 3)]
    assert all(np.isfinite(a).all() for a in back)
    for name in FLOATS:
        assert relative_error(getattr(given, name), getattr(wanted, name)) < 1e-5 or not count, name


BROKEN: dict[str, tuple[str, float]] = {
    "zero quaternion": ("quats", 0.0),
    "tiny quaternion": ("quats", 1e-30),
    "huge quaternion": ("quats", 1e30),
    "NaN quaternion": ("quats", np.nan),
    "infinite quaternion": ("quats", np.inf),
    "NaN mean": ("means", np.nan),
    "infinite mean": ("means", -np.inf),
    "huge mean": ("means", 3e38),
    "no opacity": ("opacities", 0.0),
    "negative opacity": ("opacities", -1.0),
    "opacity below the cutoff": ("opacities", 0.003),
    "NaN opacity": ("opacities", np.nan),
    "infinite opacity": ("opacities", np.inf),
    "zero scale": ("scales", 0.0),
    "NaN scale": ("scales", np.nan),
    "infinite scale": ("scales", np.inf),
}


@pytest.mark.parametrize(("lens", "projection"), CASES)
def test_broken_gaussians(lens: str, projection: str) -> None:
    """One of each kind among whole ones: culled as in the reference, and without gradients."""
    attrs = attributes(model_of(lens), projection)
    x, exact = gaussians(lens, count=3 * len(BROKEN))
    for k, (name, value) in enumerate(BROKEN.values()):
        for record in (x, exact):
            getattr(record, name)[3 * k + 1] = np.float32(value)
    wanted, given = reference.project(exact, attrs), calls.projected(x, attrs, Threads(1))
    np.testing.assert_array_equal(given.radii > 0, wanted.radii > 0)
    assert all(np.isfinite(a).all() for a in given)
    v = cotangents(given)
    back = calls.project_backward(ProjectBackwardOperands(*x, given.radii, *v), attrs, Threads(1), ALL)
    for name, a in zip(ProjectBackwardResults._fields, back, strict=True):
        assert np.isfinite(a).all(), name
    for a in back[:3]:
        assert not a[given.radii[:, 0] == 0].any()


@pytest.mark.parametrize(("lens", "projection"), CASES)
def test_the_same_bits_for_any_number_of_threads(lens: str, projection: str) -> None:
    attrs = attributes(model_of(lens), projection)
    x, _ = gaussians(lens, count=3 * 8192 + 5)
    results = []
    for threads in (1, 2, 3, 7):
        pool = Threads(threads)
        forward = calls.projected(x, attrs, pool)
        back = calls.project_backward(
            ProjectBackwardOperands(*x, forward.radii, *cotangents(forward)), attrs, pool, ALL
        )
        results.append([a.tobytes() for a in (*forward, *back)])
    assert all(other == results[0] for other in results[1:])


# --- SH ---------------------------------------------------------------------------------------------------
SH_CASES = [
    (degree, coefficients, channels)
    for degree, coefficients in ((0, 1), (1, 4), (2, 9), (3, 16), (4, 25), (0, 16), (1, 16), (2, 25), (4, 30))
    for channels in (1, 3, 4, 7)
]


def coefficients(count: int, degree_count: int, channels: int, seed: int = 0) -> tuple[ShOperands, ShOperands]:
    rng = np.random.default_rng(seed)
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation(rng), rng.normal(size=3)
    radii = np.repeat(rng.uniform(size=(count, 1)) < 0.7, 2, axis=1).astype(np.int32)
    return rounded(
        ShOperands(rng.normal(size=(count, 3)), rng.normal(size=(count, degree_count, channels)), viewmat, radii)
    )


@pytest.mark.parametrize(("degree", "given_count", "channels"), SH_CASES)
def test_sh_is_the_references(degree: int, given_count: int, channels: int) -> None:
    attrs = {"sh_degree": degree}
    x, exact = coefficients(4 * LANES + 5, given_count, channels)
    for record in (x, exact):
        record.sh[[3, 5, 6], 0, [0, channels - 1, 0]] = np.nan, np.inf, -np.inf
        record.radii[[3, 5, 6]] = 9
    wanted, given = reference_sh.sh(exact, attrs).colors, calls.sh_colors(x, attrs, Threads(1)).colors
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isfinite(given), finite)
    assert (~finite).sum() == 3
    assert relative_error(given[finite], wanted[finite]) < 1e-6
    assert not given[x.radii[:, 0] == 0].any()
    v = np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    back = calls.sh_backward(ShBackwardOperands(*x, v), attrs, Threads(1))
    exact_back = reference_sh.sh_backward(ShBackwardOperands(*exact, v.astype(np.float64)), attrs)
    for name, a, b in zip(ShBackwardResults._fields, back, exact_back, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b) + 1e-6, name
    assert not back.v_sh[[3, 5, 6]].any()
    assert not back.v_sh[x.radii[:, 0] == 0].any()


@pytest.mark.parametrize("count", [0, 1, LANES - 1, LANES, 8192, 8192 + 3])
def test_sh_of_any_number_of_gaussians(count: int) -> None:
    x, exact = coefficients(count, 4, 3)
    given = calls.sh_colors(x, {"sh_degree": 1}, Threads(2)).colors
    np.testing.assert_allclose(given, reference_sh.sh(exact, {"sh_degree": 1}).colors, atol=1e-5)
    v = np.ones((count, 3), np.float32)
    results = [calls.sh_backward(ShBackwardOperands(*x, v), {"sh_degree": 1}, Threads(n)) for n in (1, 2, 5)]
    for other in results[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0], other, strict=True))
