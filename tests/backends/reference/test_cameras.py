"""Camera models, projection and SH of the reference: against OpenCV, definitions, and central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from cameras import CASES, DISTORTIONS, FISHEYE, RATIONAL, attributes, model_of, operands, rotated
from scenes import intrinsics, relative_error
from stipple.backends.host.distortion import max_slope_squared
from stipple.backends.reference.binning import bin_tiles
from stipple.backends.reference.camera import Camera, CameraGradient, Lens
from stipple.backends.reference.project import project, project_backward
from stipple.backends.reference.sh import sh, sh_backward
from stipple.errors import InputError
from stipple.ir.ops.splat import (
    BinOperands,
    ProjectBackwardOperands,
    ShBackwardOperands,
    ShOperands,
)


def camera_of(lens: str, distortion: np.ndarray | None = None, **attrs: Any) -> Camera:
    k = intrinsics(21.0, 19.0, 15.5, 9.25)
    coefficients = DISTORTIONS[lens] if distortion is None else distortion
    attrs = {"width": 32, "height": 20, "camera_model": model_of(lens), **attrs}
    return Camera.of(np.eye(4), k, coefficients, np.array([0.01, 1e10]), attrs)


def points_before(seed: int, count: int = 40, spread: float = 1.2) -> np.ndarray:
    """Camera-space points: slopes up to ``spread`` and a few on and very near the axis."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 4, count)
    slopes = rng.uniform(-spread, spread, (count, 2))
    slopes[:4] *= np.array([0, 1e-9, 1e-4, 0.09])[:, None]
    return np.column_stack([slopes * z[:, None], z])


def test_pinholes_are_opencvs() -> None:
    points = points_before(0)
    k1, k2, k3, k4, k5, k6, p1, p2 = RATIONAL
    for lens, coefficients in (("pinhole", np.zeros(0)), ("distorted", np.array([k1, k2, p1, p2, k3, k4, k5, k6]))):
        camera = camera_of(lens)
        zero = np.zeros(3)
        wanted, _ = cv2.projectPoints(points, zero, zero, intrinsics(21.0, 19.0, 15.5, 9.25), coefficients)
        np.testing.assert_allclose(camera.pixels(points), wanted[:, 0], rtol=1e-12)


def test_fisheye_is_opencvs() -> None:
    points = np.concatenate([points_before(1), points_before(2, spread=30.0)])
    zero = np.zeros((3, 1))
    wanted, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, intrinsics(21.0, 19.0, 15.5, 9.25), FISHEYE)
    np.testing.assert_allclose(camera_of("fisheye").pixels(points), wanted[:, 0], rtol=1e-9)


def test_orthographic_pixels_do_not_depend_on_depth() -> None:
    pixels = camera_of("ortho").pixels(np.array([[0.5, -0.25, 1.0], [0.5, -0.25, 7.0]]))
    np.testing.assert_allclose(pixels, [[26.0, 4.5]] * 2, rtol=1e-15)


def differences(function: Callable[[np.ndarray], Any], at: np.ndarray, step: float) -> np.ndarray:
    """Derivatives of a scalar or array by every element of ``at``: fourth-order central differences, last axis."""
    columns = []
    for i in range(at.size):
        move = np.zeros(at.size)
        move[i] = step
        f = [function(at + factor * move.reshape(at.shape)) for factor in (-2, -1, 1, 2)]
        columns.append((f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("lens", list(DISTORTIONS))
def test_jacobian_is_the_derivative_of_the_pixel(lens: str) -> None:
    camera = camera_of(lens, width=400, height=400)  # the whole of what is seen: no limit is met
    points = points_before(3)
    for point, jacobian in zip(points, camera.jacobian(points), strict=True):
        wanted = differences(lambda p: camera.pixels(p[None])[0], point, 1e-4)
        np.testing.assert_allclose(jacobian, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("lens", list(DISTORTIONS))
def test_gradients_of_pixels_and_jacobian(lens: str) -> None:
    points = points_before(4, count=12)
    rng = np.random.default_rng(0)
    v_pixels, v_jacobian = rng.normal(size=(12, 2)), rng.normal(size=(12, 2, 3))
    base = np.array([21.0, 19.0, 15.5, 9.25, *DISTORTIONS[lens]])

    def moved(numbers: np.ndarray) -> Camera:
        camera = camera_of(lens, width=400, height=400)
        camera.focal, camera.center = numbers[:2], numbers[2:4]
        camera.lens = Lens.of(camera.model, numbers[4:])
        return camera

    def loss(points: np.ndarray, numbers: np.ndarray) -> float:
        camera = moved(numbers)
        return float(np.sum(camera.pixels(points) * v_pixels) + np.sum(camera.jacobian(points) * v_jacobian))

    into = CameraGradient.zeros(len(DISTORTIONS[lens]))
    camera = moved(base)
    v_points = camera.pixels_backward(points, v_pixels, into) + camera.jacobian_backward(points, v_jacobian, into)
    wanted = differences(lambda p: loss(p, base), points, 1e-4).reshape(points.shape)
    assert relative_error(v_points, wanted) < 1e-8
    given = np.concatenate([into.focal, into.center, into.distortion])
    assert relative_error(given, differences(lambda n: loss(points, n), base, 1e-4)) < 1e-8


# --- where distortions end --------------------------------------------------------------------------------
def radius(model: str, k: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Distorted radius of undistorted ones, by the definitions."""
    if model == "fisheye":
        theta = np.arctan(r)
        return theta * (1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8)
    return r * (1 + k[0] * r**2 + k[1] * r**4 + k[2] * r**6) / (1 + k[3] * r**2 + k[4] * r**4 + k[5] * r**6)


@pytest.mark.parametrize("seed", range(30))
def test_a_distortion_ends_where_its_radius_stops_growing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = ("pinhole", "fisheye")[seed % 2]
    k = rng.normal(size=8 if model == "pinhole" else 4) * 0.2
    limit = np.sqrt(max_slope_squared(model, k))
    r = np.linspace(0, min(limit * 0.999, 50), 4000)
    assert np.all(np.diff(radius(model, k, r)) > 0)
    if np.isfinite(limit):
        beyond = radius(model, k, limit * np.array([0.999, 1.001]))
        around = radius(model, k, np.array([limit]))[0]
        assert np.all(beyond < around) or np.abs(around) > 1e6  # a largest value, or a pole


def test_known_limits() -> None:
    assert max_slope_squared("pinhole", np.zeros(0)) == np.inf
    assert max_slope_squared("pinhole", np.zeros(8)) == np.inf
    assert max_slope_squared("ortho", np.zeros(0)) == np.inf
    assert max_slope_squared("fisheye", np.zeros(4)) == np.inf  # pi, beyond any point before the camera
    barrel = np.array([-1 / 3, 0, 0, 0, 0, 0, 0.1, 0.1])  # r - r^3 / 3: up to 1, whatever p1 and p2 are
    assert max_slope_squared("pinhole", barrel) == pytest.approx(1, rel=1e-12)
    pole = np.array([0, 0, 0, -0.25, 0, 0, 0, 0])  # r / (1 - r^2 / 4)
    assert max_slope_squared("pinhole", pole) == pytest.approx(4, rel=1e-12)
    narrow = np.array([-1 / 3, 0, 0, 0])  # theta - theta^3 / 3: up to 1
    assert max_slope_squared("fisheye", narrow) == pytest.approx(np.tan(1) ** 2, rel=1e-12)


def test_points_beyond_the_limit_are_culled() -> None:
    slopes = np.array([0.9, 0.99, 1.01, 1.5, 1.7])
    for model, k in (("pinhole", [-1 / 3, 0, 0, 0, 0, 0, 0, 0]), ("fisheye", [-1 / 3, 0, 0, 0])):
        x = slopes if model == "pinhole" else np.tan([0.9, 0.99, 1.01, 1.5, 1.55])
        means = np.column_stack([x, np.zeros(5), np.ones(5)])
        result = project(operands(5, means=means, scales=np.full((5, 3), 0.01), distortion=k), attributes(model))
        np.testing.assert_array_equal(result.radii[:, 0] > 0, [True, True, False, False, False])
        np.testing.assert_array_equal(result.compensation, [1, 1, 0, 0, 0])


def test_a_distortion_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="distortion: coefficients must be finite"):
        project(operands(3, distortion=[np.nan, 0, 0, 0]), attributes("fisheye"))


# --- the ops ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lens", "projection", "antialiased"),
    [(lens, p, a) for lens, p in CASES for a in (False, True) if not (a and p == "ray")],  # a ray has no low-pass
)
def test_gradients_of_projection(lens: str, projection: str, antialiased: bool) -> None:
    """All operands, element by element, through all results."""
    attrs = attributes(model_of(lens), projection, antialiased=antialiased)
    x = rotated(operands(11, distortion=DISTORTIONS[lens]), 2)
    result = project(x, attrs)
    assert (result.radii[:, 0] > 0).sum() >= 5
    rng = np.random.default_rng(3)
    names = ("means2d", "conics", "depths", "compensation")
    weights = {n: rng.normal(size=getattr(result, n).shape) for n in names}
    weights["conics"][:, :3] *= 30

    def loss(**moved: np.ndarray) -> float:
        out = project(x._replace(**moved), attrs)
        np.testing.assert_array_equal(out.radii > 0, result.radii > 0)
        return float(sum(np.sum(getattr(out, n) * w) for n, w in weights.items()))

    back = project_backward(ProjectBackwardOperands(*x, result.radii, *weights.values()), attrs)
    for name in ("means", "quats", "scales", "viewmat", "intrinsics", "distortion"):
        array = getattr(x, name)
        if not array.size:
            assert getattr(back, f"v_{name}").shape == (0,)
            continue
        wanted = np.zeros(array.size)
        free = {"viewmat": range(12), "intrinsics": (0, 2, 4, 5)}.get(name, range(array.size))
        for i in free:
            direction = np.zeros(array.size)
            direction[i] = 1

            def along(step: np.ndarray, name: str = name, direction: np.ndarray = direction) -> float:
                return loss(**{name: getattr(x, name) + step * direction.reshape(getattr(x, name).shape)})

            wanted[i] = differences(along, np.zeros(()), 2e-5).item()
        given = getattr(back, f"v_{name}")
        assert np.linalg.norm(given) > 0, name
        assert relative_error(given, wanted.reshape(array.shape)) < 1e-6, name


@pytest.mark.parametrize("lens", ["pinhole", "distorted"])
def test_gradients_beyond_the_frame(lens: str) -> None:
    """Where the Jacobian's slopes are held, with the limits' own dependence on the intrinsics."""
    count = 6
    means = np.column_stack([[-4.5, 4.5, 0.1, 0.2, 4.6, -4.4], [0.1, 0, -4.2, 4.1, 3.9, -4.0], np.full(count, 1.5)])
    scales = np.full((count, 3), 0.9) + np.arange(count)[:, None] * 0.03
    x = operands(5, means=means, scales=scales, distortion=DISTORTIONS[lens] * 0.2)
    attrs = attributes("pinhole")
    result = project(x, attrs)
    assert (result.radii[:, 0] > 0).sum() >= 4
    weights = np.random.default_rng(0).normal(size=result.conics.shape) * 30
    zeros = np.zeros_like
    back = project_backward(
        ProjectBackwardOperands(
            *x, result.radii, zeros(result.means2d), weights, zeros(result.depths), zeros(result.compensation)
        ),
        attrs,
    )
    for name, elements in (("means", range(3 * count)), ("intrinsics", (0, 2, 4, 5)), ("distortion", range(8))):
        array, given = getattr(x, name), getattr(back, f"v_{name}").ravel()
        for i in elements if array.size else ():
            direction = np.zeros(array.size)
            direction[i] = 1

            def along(step: np.ndarray, name: str = name, direction: np.ndarray = direction) -> Any:
                moved = getattr(x, name) + step * direction.reshape(getattr(x, name).shape)
                return np.sum(project(x._replace(**{name: moved}), attrs).conics * weights)

            wanted = differences(along, np.zeros(()), 2e-5).item()
            assert abs(given[i] - wanted) <= 1e-6 * np.abs(given).max(), (name, i)


@pytest.mark.parametrize("model", ["pinhole", "ortho"])
def test_ray_conics_are_the_distance_to_the_ray(model: str) -> None:
    """The exponent by a conic against the smallest Mahalanobis distance along the ray, found by hand."""
    x = rotated(operands(13), 4)
    result = project(x, attributes(model, "ray"))
    r, t = x.viewmat[:3, :3], x.viewmat[:3, 3]
    fx, fy, cx, cy = x.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
    for i in np.flatnonzero(result.radii[:, 0] > 0):
        w, *v = x.quats[i] / np.linalg.norm(x.quats[i])
        cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        axes = np.eye(3) + 2 * w * cross + 2 * cross @ cross
        cov = r @ axes @ np.diag(x.scales[i] ** 2) @ axes.T @ r.T
        inverse, mean = np.linalg.inv(cov), r @ x.means[i] + t
        for offset in ((0.0, 0.0), (2.5, -1.5), (-3.0, 4.0)):
            px, py = result.means2d[i] + offset
            origin, ray = np.zeros(3), np.array([(px - cx) / fx, (py - cy) / fy, 1.0])
            if model == "ortho":
                origin, ray = np.array([*ray[:2], 0.0]), np.array([0.0, 0.0, 1.0])
            rest = origin - mean
            nearest = rest - ray * (ray @ inverse @ rest) / (ray @ inverse @ ray)
            dx, dy = offset
            a, b, c, p, q, e, f, g = result.conics[i]
            sigma = (0.5 * (a * dx**2 + c * dy**2) + b * dx * dy) / (
                1 + 2 * (p * dx + q * dy) + e * dx**2 + 2 * f * dx * dy + g * dy**2
            )
            np.testing.assert_allclose(sigma, 0.5 * nearest @ inverse @ nearest, rtol=1e-9, atol=1e-12)


def test_antialiasing_reports_the_compensation() -> None:
    x = operands(14)
    x = x._replace(scales=x.scales * 0.1)
    plain, result = (project(x, attributes("pinhole", antialiased=a)) for a in (False, True))
    visible = result.radii[:, 0] > 0
    assert visible.sum() >= 4
    assert np.all(plain.compensation[visible] == 1)
    a, b, c = result.conics[visible].T
    cov = np.array([[c, -b], [-b, a]]) / (a * c - b * b)
    sharp = np.moveaxis(cov, 2, 0) - 0.3 * np.eye(2)
    ratio = np.linalg.det(sharp) * (a * c - b * b)
    np.testing.assert_allclose(result.compensation[visible], np.sqrt(np.maximum(ratio, 2.5e-5)), rtol=1e-6)


def test_colors_that_are_not_finite_stay_so_and_get_no_gradient() -> None:
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(5, 9, 3))
    coefficients[1, 2, 0], coefficients[2, 0, 1] = np.nan, np.inf
    radii = np.ones((5, 2), np.int32)
    radii[4] = 0
    x = ShOperands(rng.normal(size=(5, 3)), coefficients, np.eye(4), radii)
    result = sh(x, {"sh_degree": 2}).colors
    assert not np.isfinite(result[1, 0])
    assert not np.isfinite(result[2, 1])
    assert np.isfinite(result[[0, 3]]).all()
    assert not result[4].any()
    back = sh_backward(ShBackwardOperands(*x, np.ones((5, 3))), {"sh_degree": 2})
    assert not back.v_sh[[1, 2, 4]].any()
    assert not back.v_means[[1, 2, 4]].any()
    assert back.v_sh[[0, 3]].any()


def test_bins_hold_every_pixel_that_counts() -> None:
    """Each pixel at which a Gaussian counts has it in its tile's list, by brute force; lists are by depth."""
    for model, projection in (("pinhole", "ewa"), ("pinhole", "ray"), ("ortho", "ray")):
        attrs = attributes(model, projection, tile_size=7, max_list_entries=0)
        x = operands(15, count=30)
        p = project(x, attrs)
        lists = bin_tiles(BinOperands(p.means2d, p.conics, x.opacities, p.radii, p.depths), attrs)
        tiles = [lists.sorted_ids[a:b] for a, b in lists.tile_ranges]
        for ids in tiles:
            assert np.all(np.diff(p.depths[ids]) >= 0)
            assert np.all(p.radii[ids] > 0)
        touched: list[set[int]] = [set() for _ in tiles]
        for row, column in np.ndindex(48, 64):
            d = np.array([column + 0.5, row + 0.5]) - p.means2d
            a, b, c = p.conics[:, :3].T
            sigma = 0.5 * (a * d[:, 0] ** 2 + c * d[:, 1] ** 2) + b * d[:, 0] * d[:, 1]
            if projection == "ray":
                pp, q, e, f, g = p.conics[:, 3:].T
                sigma = sigma / (
                    1 + 2 * (pp * d[:, 0] + q * d[:, 1])
                    + e * d[:, 0] ** 2 + 2 * f * d[:, 0] * d[:, 1] + g * d[:, 1] ** 2
                )  # fmt: skip
            counts = (p.radii[:, 0] > 0) & (x.opacities * np.exp(-sigma) >= 1 / 255) & (sigma <= 0.5 * 3.33**2)
            touched[row // 7 * 10 + column // 7] |= set(np.flatnonzero(counts))
        assert sum(len(t) for t in touched) > 100
        for ids, wanted in zip(tiles, touched, strict=True):
            assert set(ids) >= wanted
        listed = sum(len(ids) for ids in tiles)
        assert listed < 1.1 * sum(len(t) for t in touched) + 10
