"""Splats by definition: every Gaussian at every pixel, one number at a time in float64.

What lies next to a discrete choice (a cutoff, an early stop, the largest alpha, the order of two depths) is *unsafe*:
a rounding error decides what comes out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuzz.cameras import MARGIN, Camera, Vector, dot

Sigma = Callable[[float, float], float]
Shifts = Mapping[int, tuple[float, float]]
_MAX_ALPHA, _EXTENT, _MIN_COMPENSATION = 0.99, 3.33, 2.5e-5


@dataclass
class Scene:
    """Operands as plain numbers."""

    values: dict[str, Vector]
    attrs: Mapping[str, Any]
    coefficients: int
    channels: int

    @property
    def count(self) -> int:
        return len(self.values["opacities"])

    def row(self, name: str, i: int, width: int) -> Vector:
        return self.values[name][i * width : (i + 1) * width]


@dataclass
class Footprint:
    """A Gaussian on the image: sigma at an offset from its mean, and where that is small enough to count."""

    mean: tuple[float, float]
    depth: float
    compensation: float
    sigma: Sigma
    conic: Vector
    opacity: float
    reach: float
    box: list[tuple[float, float]]
    """Offsets from the mean between which it counts, per axis."""


def reach_of(opacity: float, cutoff: float) -> tuple[float, bool]:
    """The largest sigma at which a Gaussian counts, and whether which limit that is was close."""
    reach = 0.5 * _EXTENT**2
    if cutoff <= 0:
        return reach, False
    limit = math.log(opacity / cutoff)
    return min(reach, limit), abs(limit) < MARGIN or abs(limit - reach) < MARGIN


def footprint(scene: Scene, i: int) -> tuple[Footprint | None, bool]:
    """A Gaussian's footprint, None if its sigma counts nowhere or the camera does not take it; and whether that was
    close, or its derivatives have a kink there. Footprints outside the image are footprints too."""
    attrs, values = scene.attrs, scene.values
    mean, quat, scale = scene.row("means", i, 3), scene.row("quats", i, 4), scene.row("scales", i, 3)
    opacity = values["opacities"][i]
    if not all(math.isfinite(n) for n in (*mean, *quat, *scale, opacity)) or dot(quat, quat) == 0 or opacity <= 0:
        return None, False
    if attrs["projection"] == "ray" and min(scale) <= 0:
        return None, False
    camera = Camera.of(values, attrs)
    point = camera.point(mean)
    seen, close = camera.sees(point)
    if not seen:
        return None, close
    axes = _axes([q / math.sqrt(dot(quat, quat)) for q in quat])
    u, v = camera.pixel(point)
    if attrs["projection"] == "ray":
        sigma, conic = _ray(point, axes, scale, camera)
        compensation, near_kink, variances = 1.0, False, None
    else:
        covariance, compensation, near_kink = _ewa(point, axes, scale, camera, attrs)
        sigma, conic = _quadratic(covariance)
        variances = (covariance[0], covariance[2])
    opacity *= compensation
    reach, near_cutoff = reach_of(opacity, attrs["alpha_cutoff"])
    close = close or near_kink or near_cutoff
    if reach < 0:
        return None, close
    box = (
        [(-math.sqrt(2 * reach * s), math.sqrt(2 * reach * s)) for s in variances]
        if variances
        else _ray_box(point, axes, scale, camera, reach)
    )
    return Footprint((u, v), point[2], compensation, sigma, conic, opacity, reach, box), close


def _axes(q: Vector) -> list[Vector]:
    """Rows of the rotation that a unit quaternion wxyz is."""
    w, x, y, z = q
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


# --- footprints -------------------------------------------------------------------------------------------
def _ewa(
    point: Vector, axes: list[Vector], scale: Vector, camera: Camera, attrs: Mapping[str, Any]
) -> tuple[tuple[float, float, float], float, bool]:
    """The local affine approximation: cov2d = J W cov W^T J^T + eps2d as (xx, xy, yy), and the compensation."""
    held, near_kink = camera.held(point)
    rows = []
    for row in camera.jacobian(held):
        to_world = camera.to_world(row)
        rows.append([dot(to_world, [axes[k][a] for k in range(3)]) * scale[a] for a in range(3)])
    eps = attrs["eps2d"]
    xx, xy, yy = dot(rows[0], rows[0]), dot(rows[0], rows[1]), dot(rows[1], rows[1])
    compensation = 1.0
    if attrs["antialiased"]:
        ratio = (xx * yy - xy * xy) / ((xx + eps) * (yy + eps) - xy * xy)
        near_kink = near_kink or abs(ratio - _MIN_COMPENSATION) < MARGIN * _MIN_COMPENSATION
        compensation = math.sqrt(max(ratio, _MIN_COMPENSATION))
    return (xx + eps, xy, yy + eps), compensation, near_kink


def _quadratic(covariance: tuple[float, float, float]) -> tuple[Sigma, Vector]:
    """Half the squared Mahalanobis distance, and its conic."""
    xx, xy, yy = covariance
    det = xx * yy - xy * xy
    conic = [yy / det, -xy / det, xx / det]
    return sigma_of(conic), conic


def sigma_of(conic: Sequence[float]) -> Sigma:
    """Sigma at an offset as splat_project's documentation has it, for conics of either length."""
    a, b, c = conic[:3]
    if len(conic) == 3:
        return lambda dx, dy: 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    p, q, e, f, g = conic[3:]

    def sigma(dx: float, dy: float) -> float:
        ratio = 1 + 2 * (p * dx + q * dy) + e * dx * dx + 2 * f * dx * dy + g * dy * dy
        return (0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy) / ratio if ratio > 0 else math.inf

    return sigma


def _ray(point: Vector, axes: list[Vector], scale: Vector, camera: Camera) -> tuple[Sigma, Vector]:
    """Half the squared distance of the pixel's ray from the mean, in the frame where the Gaussian is the unit one. The
    conic is what differences of numerator and denominator say of two quadratics."""
    (fx, fy), (cx, cy), (u, v) = camera.focal, camera.center, camera.pixel(point)

    def to_unit(vector: Sequence[float]) -> Vector:
        world = camera.to_world(vector)
        return [math.fsum(axes[k][a] * world[k] for k in range(3)) / scale[a] for a in range(3)]

    def parts(dx: float, dy: float) -> tuple[float, float]:
        """|o x d|^2 and |d|^2 of the ray at an offset from the mean's pixel."""
        a, b = (u + dx - cx) / fx, (v + dy - cy) / fy
        if camera.model == "ortho":
            origin, d = to_unit([a - point[0], b - point[1], -point[2]]), to_unit([0.0, 0.0, 1.0])
        else:
            origin, d = to_unit([-p for p in point]), to_unit([a, b, 1.0])
        cross = (
            origin[1] * d[2] - origin[2] * d[1],
            origin[2] * d[0] - origin[0] * d[2],
            origin[0] * d[1] - origin[1] * d[0],
        )
        return dot(cross, cross), dot(d, d)

    def sigma(dx: float, dy: float) -> float:
        top, bottom = parts(dx, dy)
        return 0.5 * top / bottom

    whole = parts(0.0, 0.0)[1]
    corners = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    (n, d) = ({c: parts(float(c[0]), float(c[1]))[k] / whole for c in corners} for k in range(2))
    mixed = [(t[1, 1] - t[1, -1] - t[-1, 1] + t[-1, -1]) / 8 for t in (n, d)]
    conic = [(n[1, 0] + n[-1, 0]) / 2, mixed[0], (n[0, 1] + n[0, -1]) / 2]
    conic += [(d[1, 0] - d[-1, 0]) / 4, (d[0, 1] - d[0, -1]) / 4]
    return sigma, [*conic, (d[1, 0] + d[-1, 0]) / 2 - 1, mixed[1], (d[0, 1] + d[0, -1]) / 2 - 1]


def _ray_box(
    point: Vector, axes: list[Vector], scale: Vector, camera: Camera, reach: float
) -> list[tuple[float, float]]:
    """The box of the ellipsoid |unit|^2 <= 2 reach on the image, by its dual conic; the whole image where the
    ellipsoid reaches the camera's plane."""
    view_axes = [[dot(row[:3], [axes[k][a] for k in range(3)]) * scale[a] for a in range(3)] for row in camera.view]
    mean, box = camera.pixel(point), []
    for axis in range(2):
        own, z = dot(view_axes[axis], view_axes[axis]) * 2 * reach, dot(view_axes[2], view_axes[2]) * 2 * reach
        f, c = camera.focal[axis], camera.center[axis]
        if camera.model == "ortho":
            box.append((-f * math.sqrt(own), f * math.sqrt(own)))
            continue
        dual_zz = z - point[2] ** 2
        if dual_zz >= 0:
            whole = abs(mean[axis]) + camera.size[axis] + 1
            box.append((-whole, whole))
            continue
        dual_xx = own - point[axis] ** 2
        dual_xz = dot(view_axes[axis], view_axes[2]) * 2 * reach - point[axis] * point[2]
        root = math.sqrt(max(dual_xz**2 - dual_xx * dual_zz, 0.0))
        ends = sorted(f * (dual_xz + sign * root) / dual_zz + c - mean[axis] for sign in (-1, 1))
        box.append((ends[0], ends[1]))
    return box


# --- colours ----------------------------------------------------------------------------------------------
def sh_color(
    coefficients: Vector, channels: int, degree: int, mean: Sequence[float], position: Sequence[float]
) -> tuple[Vector, bool]:
    """max(SH + 0.5, 0) up to degree 2, and whether a channel is about to be clamped; what is not finite stays so."""
    assert degree <= 2, "the oracle knows SH up to degree 2"
    offset = [m - p for m, p in zip(mean, position, strict=True)]
    length = math.sqrt(dot(offset, offset))
    x, y, z = (o / length for o in offset)
    pi = math.pi
    c1, c2, c3 = math.sqrt(0.75 / pi), math.sqrt(15 / (4 * pi)), math.sqrt(5 / (16 * pi))
    basis = [0.5 / math.sqrt(pi), -c1 * y, c1 * z, -c1 * x]
    basis += [c2 * x * y, -c2 * y * z, c3 * (3 * z * z - 1), -c2 * x * z, 0.5 * c2 * (x * x - y * y)]
    basis = basis[: (degree + 1) ** 2]
    sums = [0.5 + sum(b * coefficients[k * channels + c] for k, b in enumerate(basis)) for c in range(channels)]
    made = [s if not math.isfinite(s) else max(s, 0.0) for s in sums]
    return made, any(abs(s) < MARGIN for s in sums)


def color(scene: Scene, i: int) -> tuple[Vector, bool]:
    """A Gaussian's colours: those given, or SH; and whether one is about to be clamped at 0."""
    given = scene.row("colors", i, max(scene.coefficients, 1) * scene.channels)
    degree = scene.attrs["sh_degree"]
    if degree < 0:
        return given, False
    position = Camera.of(scene.values, scene.attrs).position()
    return sh_color(given, scene.channels, degree, scene.row("means", i, 3), position)


# --- images -----------------------------------------------------------------------------------------------
@dataclass
class Layer:
    """One Gaussian in the order of compositing: its index and mean, and what it adds."""

    index: int
    mean: tuple[float, float]
    sigma: Sigma
    opacity: float
    reach: float
    features: Vector


@dataclass
class Pixel:
    """What a pixel shows; ``last`` is a position among the layers, and ``half`` says that the median is certain."""

    image: Vector
    light: float
    last: int
    median: int
    count: int
    safe: bool
    half: bool


def composite(
    layers: Sequence[Layer], at: tuple[float, float], background: Vector, attrs: Mapping[str, Any], shifts: Shifts
) -> Pixel:
    """One pixel, front to back."""
    threshold, limit = attrs["transmittance_threshold"], attrs["max_splat_steps"] or math.inf
    pixel = Pixel([0.0] * len(background), 1.0, -1, -1, 0, True, True)
    for number, layer in enumerate(layers):
        shift = shifts.get(layer.index, (0.0, 0.0))
        sigma = layer.sigma(at[0] - layer.mean[0] - shift[0], at[1] - layer.mean[1] - shift[1])
        if abs(sigma - layer.reach) < MARGIN * (1 + abs(layer.reach)):
            pixel.safe = False
        if sigma > layer.reach:
            continue
        raw = layer.opacity * math.exp(-sigma)
        alpha = min(raw, _MAX_ALPHA)
        after = pixel.light * (1 - alpha)
        if abs(raw - _MAX_ALPHA) < MARGIN or (threshold and abs(after / threshold - 1) < 0.02):
            pixel.safe = False
        if after <= threshold or pixel.count >= limit:
            break
        pixel.image = [v + pixel.light * alpha * f for v, f in zip(pixel.image, layer.features, strict=True)]
        pixel.half = pixel.half and abs(after - 0.5) > MARGIN
        if pixel.light > 0.5:
            pixel.median = layer.index
        pixel.light, pixel.last, pixel.count = after, number, pixel.count + 1
    pixel.image = [v + pixel.light * b for v, b in zip(pixel.image, background, strict=True)]
    return pixel


@dataclass
class View:
    """All pixels, and each Gaussian's depth (0: culled); ``certain`` says that which are drawn, and in which order, is
    beyond doubt."""

    pixels: list[Pixel]
    depths: Vector
    certain: bool


def pixel_centers(attrs: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(x + 0.5, y + 0.5) for y in range(attrs["height"]) for x in range(attrs["width"])]


def view(scene: Scene, with_depth: bool, shifts: Shifts | None = None) -> View:
    """The image of a scene, its depth as one more feature if wanted. ``shifts`` moves projected means."""
    certain, depths = True, [0.0] * scene.count
    found: list[tuple[float, int, Layer]] = []
    for i in range(scene.count):
        f, close = footprint(scene, i)
        certain = certain and not close
        if f is None:
            continue
        beyond = outside(f, scene.attrs)
        if beyond is not False:
            certain = certain and beyond is True
            continue
        features, close = color(scene, i)
        certain = certain and not close
        depths[i] = f.depth
        if all(math.isfinite(c) for c in features):
            features = [*features, f.depth] if with_depth else features
            found.append((f.depth, i, Layer(i, f.mean, f.sigma, f.opacity, f.reach, features)))
    found.sort(key=lambda item: item[:2])
    certain = certain and all(b[0] - a[0] >= MARGIN for a, b in itertools.pairwise(found))
    layers = [layer for _, _, layer in found]
    background = scene.values["background"] + [0.0] * with_depth
    pixels = [composite(layers, at, background, scene.attrs, shifts or {}) for at in pixel_centers(scene.attrs)]
    return View(pixels, depths, certain)


def radii(f: Footprint) -> list[float]:
    """The larger of both sides of the box per axis, before it is rounded up."""
    return [max(-low, high) for low, high in f.box]


def outside(f: Footprint, attrs: Mapping[str, Any]) -> bool | None:
    """Whether a footprint is culled because it reaches no pixel; None where a rounding error decides."""
    sizes = (attrs["width"], attrs["height"])
    found: list[bool | None] = []
    for mean, radius, size in zip(f.mean, radii(f), sizes, strict=True):
        whole = math.ceil(radius)
        ends = (mean + whole, size - (mean - whole))
        unsure = abs(radius - round(radius)) < MARGIN or min(abs(e) for e in ends) < MARGIN
        found.append(None if unsure and abs(min(ends)) < 1.5 else min(ends) <= 0)
    return True if True in found else None if None in found else False
