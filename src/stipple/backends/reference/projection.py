"""From Gaussians in the world to footprints on the image, and back: the first half of splat_prepare.

Only the Gaussians that survive culling are computed; the rest keep zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stipple import numerics as nx
from stipple.backends.host import geometry
from stipple.backends.host.camera_check import check_camera
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import PASS_THROUGH

Array = np.ndarray


@dataclass
class Camera:
    """A pinhole camera: rotation [3, 3] and translation [3] world to camera, focal lengths and centre."""

    rotation: Array
    translation: Array
    focal: Array
    center: Array
    near: float
    far: float
    size: Array

    @classmethod
    def of(cls, viewmat: Array, intrinsics: Array, clip: Array, attrs: Mapping[str, AttrValue]) -> Camera:
        check_camera(viewmat, intrinsics, clip)
        focal = np.array([intrinsics[0, 0], intrinsics[1, 1]])
        size = np.array([attrs["width"], attrs["height"]], dtype=np.float64)
        return cls(viewmat[:3, :3], viewmat[:3, 3], focal, intrinsics[:2, 2], clip[0], clip[1], size)

    @property
    def position(self) -> Array:
        """The camera's centre in the world (the rotation is orthonormal)."""
        return np.asarray(-self.rotation.T @ self.translation)

    def jacobian_limits(self) -> tuple[Array, Array]:
        """Smallest and largest x/z, y/z that the Jacobian follows: the frame and a margin around it."""
        margin = nx.JACOBIAN_MARGIN * 0.5 * self.size / self.focal
        return -self.center / self.focal - margin, (self.size - self.center) / self.focal + margin


@dataclass
class CameraGradient:
    """Gradients of a camera, summed over Gaussians."""

    rotation: Array
    translation: Array
    focal: Array
    center: Array

    @classmethod
    def zeros(cls) -> CameraGradient:
        return cls(np.zeros((3, 3)), np.zeros(3), np.zeros(2), np.zeros(2))

    def matrices(self) -> tuple[Array, Array]:
        """As gradients of viewmat [4, 4] and intrinsics [3, 3]."""
        viewmat, intrinsics = np.zeros((4, 4)), np.zeros((3, 3))
        viewmat[:3, :3], viewmat[:3, 3] = self.rotation, self.translation
        intrinsics[0, 0], intrinsics[1, 1] = self.focal
        intrinsics[:2, 2] = self.center
        return viewmat, intrinsics


@dataclass
class Gaussians:
    """Gaussians in the world; ``subset`` picks some by index."""

    means: Array
    quats: Array
    scales: Array
    opacities: Array

    def subset(self, ids: Array) -> Gaussians:
        return Gaussians(self.means[ids], self.quats[ids], self.scales[ids], self.opacities[ids])


@dataclass
class Footprints:
    """Footprints of the Gaussians ``ids``, in order of index."""

    ids: Array
    means2d: Array
    conics: Array
    opacities: Array
    depths: Array
    radii: Array


@dataclass
class FootprintGradients:
    """What arrives from the rasterizer, for the same Gaussians."""

    means2d: Array
    conics: Array
    opacities: Array
    depths: Array


def support(opacities: Array, alpha_cutoff: float) -> Array:
    """The largest sigma at which a Gaussian of this opacity still counts."""
    limit = np.full_like(opacities, 0.5 * nx.EXTENT_SIGMA**2)
    if alpha_cutoff <= 0:
        return limit
    return np.asarray(np.minimum(limit, np.log(opacities / alpha_cutoff)))


def project(g: Gaussians, camera: Camera, colors_finite: Array, attrs: Mapping[str, AttrValue]) -> Footprints:
    """Footprints of the visible Gaussians. ``colors_finite`` says which have usable colours."""
    ids = np.flatnonzero(_candidates(g, camera, colors_finite, attrs))
    sub = g.subset(ids)
    with np.errstate(all="ignore"):  # what overflows is culled just below
        terms = _ewa_terms(sub, camera, attrs) if attrs["projection"] == "ewa" else _ray_terms(sub, camera)
        opacities = sub.opacities * terms.compensation
        reach = support(opacities, attrs["alpha_cutoff"])
        low, high = _extents(terms.conics, reach, terms.means2d, camera, attrs["projection"])
    numbers = np.column_stack([terms.means2d, terms.conics, opacities, terms.mean_c])
    good = terms.valid & np.isfinite(numbers).all(axis=1) & (opacities > 0) & (reach >= 0)
    radii = np.minimum(np.ceil(np.maximum(-low, high)), nx.MAX_RADIUS)
    outside = (terms.means2d + radii <= 0) | (terms.means2d - radii >= camera.size)
    good &= (radii > 0).all(axis=1) & ~outside.any(axis=1)
    return Footprints(
        ids[good],
        terms.means2d[good],
        terms.conics[good],
        opacities[good],
        terms.mean_c[good, 2],
        radii[good].astype(np.int32),
    )


def _candidates(g: Gaussians, camera: Camera, colors_finite: Array, attrs: Mapping[str, AttrValue]) -> Array:
    """Gaussians worth projecting: finite, in front of the camera, with a rotation and some opacity."""
    packed = np.column_stack([g.means, g.quats, g.scales, g.opacities])
    finite: Array = np.isfinite(packed).all(axis=1) & colors_finite
    safe = np.where(finite[:, None], g.means, 0.0)
    z = safe @ camera.rotation[2] + camera.translation[2]
    in_front = (z >= camera.near) & (z <= camera.far)
    turned = np.sum(np.where(finite[:, None], g.quats, 0.0) ** 2, axis=1) > 0
    opaque = np.where(finite, g.opacities, 0.0) > 0
    keep: Array = finite & in_front & turned & opaque
    if attrs["projection"] == "ray":  # a flat Gaussian has no frame to measure a ray in
        keep &= (np.where(finite[:, None], g.scales, 0.0) > 0).all(axis=1)
    return keep


@dataclass
class _Terms:
    """Intermediate results that forward and backward share."""

    valid: Array
    mean_c: Array
    unit_quats: Array
    axes: Array
    means2d: Array
    conics: Array
    compensation: Array


@dataclass
class _EwaTerms(_Terms):
    factor: Array  # M = axes * scales, [n, 3, 3]
    world_cov: Array
    jacobian: Array  # [n, 2, 3]
    clamped: Array  # [n, 2]
    slope: Array  # clamped x/z, y/z
    image_cov: Array  # before eps2d
    blurred: Array
    det: Array  # of blurred
    ratio: Array  # of the determinants, image_cov's to blurred's


def _camera_terms(g: Gaussians, camera: Camera) -> tuple[Array, Array, Array, Array]:
    mean_c = g.means @ camera.rotation.T + camera.translation
    unit_quats = geometry.normalise(g.quats)
    axes = geometry.rotation_matrices(unit_quats)
    means2d = camera.focal * mean_c[:, :2] / mean_c[:, 2:] + camera.center
    return mean_c, unit_quats, axes, means2d


def _ewa_terms(g: Gaussians, camera: Camera, attrs: Mapping[str, AttrValue]) -> _EwaTerms:
    mean_c, unit_quats, axes, means2d = _camera_terms(g, camera)
    factor = axes * g.scales[:, None, :]
    world_cov = factor @ np.swapaxes(factor, 1, 2)
    z = mean_c[:, 2]
    low, high = camera.jacobian_limits()
    raw = mean_c[:, :2] / z[:, None]
    slope = np.clip(raw, low, high)
    jacobian = np.zeros((len(z), 2, 3))
    jacobian[:, 0, 0] = camera.focal[0] / z
    jacobian[:, 1, 1] = camera.focal[1] / z
    jacobian[:, :, 2] = -camera.focal * slope / z[:, None]
    to_image = jacobian @ camera.rotation
    image_cov = to_image @ world_cov @ np.swapaxes(to_image, 1, 2)
    blurred = image_cov + attrs["eps2d"] * np.eye(2)
    # det(image_cov), as the area of two vectors: of a needle's entries the difference would be rounding alone
    rows = to_image @ factor
    sharp = np.sum(np.cross(rows[:, 0], rows[:, 1]) ** 2, axis=1)
    det = sharp + attrs["eps2d"] * (np.trace(image_cov, axis1=1, axis2=2) + attrs["eps2d"])
    conics = np.column_stack([blurred[:, 1, 1], -blurred[:, 0, 1], blurred[:, 0, 0]]) / det[:, None]
    compensation = np.ones(len(z))
    if attrs["antialiased"]:
        compensation = np.sqrt(np.maximum(sharp / det, nx.MIN_COMPENSATION))
    return _EwaTerms(
        det > 0,
        mean_c,
        unit_quats,
        axes,
        means2d,
        conics,
        compensation,
        factor,
        world_cov,
        jacobian,
        raw != slope,
        slope,
        image_cov,
        blurred,
        det,
        sharp / det,
    )


@dataclass
class _RayTerms(_Terms):
    to_unit: Array  # world axes to unit frame: B = diag(1/s) axes^T
    camera_to_unit: Array  # M = B R^T
    origin: Array  # o = -M mean_c: the camera's centre in the unit frame
    column_x: Array  # change of the ray's direction per pixel in x
    column_y: Array
    direction: Array  # d0: the ray through the projected mean
    norm: Array  # 1 / |d0|^2
    moment_x: Array  # o x column_x
    moment_y: Array


def _ray_terms(g: Gaussians, camera: Camera) -> _RayTerms:
    mean_c, unit_quats, axes, means2d = _camera_terms(g, camera)
    to_unit = np.swapaxes(axes, 1, 2) / g.scales[:, :, None]
    camera_to_unit = to_unit @ camera.rotation.T
    origin = -np.einsum("nij,nj->ni", camera_to_unit, mean_c)
    column_x = camera_to_unit[:, :, 0] / camera.focal[0]
    column_y = camera_to_unit[:, :, 1] / camera.focal[1]
    direction = -origin / mean_c[:, 2:]
    norm = 1 / _dot(direction, direction)
    moment_x, moment_y = np.cross(origin, column_x), np.cross(origin, column_y)
    conics = norm[:, None] * np.column_stack(
        [
            _dot(moment_x, moment_x),
            _dot(moment_x, moment_y),
            _dot(moment_y, moment_y),
            _dot(direction, column_x),
            _dot(direction, column_y),
            _dot(column_x, column_x),
            _dot(column_x, column_y),
            _dot(column_y, column_y),
        ]
    )
    return _RayTerms(
        np.ones(len(norm), dtype=bool),
        mean_c,
        unit_quats,
        axes,
        means2d,
        conics,
        np.ones(len(norm)),
        to_unit,
        camera_to_unit,
        origin,
        column_x,
        column_y,
        direction,
        norm,
        moment_x,
        moment_y,
    )


def _dot(a: Array, b: Array) -> Array:
    product: Array = np.sum(a * b, axis=-1)
    return product


# --- extents ----------------------------------------------------------------------------------------------
def support_quadratics(conics: Array, reach: Array, projection: str) -> Array:
    """Quadratics A, B, C, P, R, k [n, 6] whose region A x^2 + 2B xy + C y^2 + 2P x + 2R y <= k is where a
    Gaussian counts, x and y being offsets from its mean."""
    k = 2 * reach
    zero = np.zeros_like(k)
    a, b, c = conics[:, 0], conics[:, 1], conics[:, 2]
    if projection == "ewa":
        return np.column_stack([a, b, c, zero, zero, k])
    p, q, e, f, g = conics[:, 3:].T
    return np.column_stack([a - k * e, b - k * f, c - k * g, -k * p, -k * q, k])


def _extents(conics: Array, reach: Array, means2d: Array, camera: Camera, projection: str) -> tuple[Array, Array]:
    """Offsets from the mean between which a Gaussian counts, per axis. A region that is no ellipse (the
    Gaussian reaches the camera's plane) extends over the whole image and beyond."""
    a, b, c, p, r, k = support_quadratics(conics, reach, projection).T
    det = a * c - b * b
    center_x, center_y = (b * r - c * p) / det, (b * p - a * r) / det
    height = k - (p * center_x + r * center_y)
    half = np.sqrt(np.maximum(np.column_stack([c, a]) * (height / det)[:, None], 0))
    center = np.column_stack([center_x, center_y])
    bounded = ((a > 0) & (det > 0))[:, None]
    whole = np.abs(means2d) + camera.size + 1
    return np.where(bounded, center - half, -whole), np.where(bounded, center + half, whole)


# --- backward ---------------------------------------------------------------------------------------------
def project_backward(
    g: Gaussians, camera: Camera, v: FootprintGradients, attrs: Mapping[str, AttrValue]
) -> tuple[Gaussians, CameraGradient]:
    """Gradients of visible Gaussians (all given ones) and of the camera."""
    into = CameraGradient.zeros()
    if attrs["projection"] == "ewa":
        ewa = _ewa_terms(g, camera, attrs)
        terms: _Terms = ewa
        v_mean_c, v_axes, v_scales, v_opacities = _ewa_backward(g, camera, ewa, v, attrs, into)
    else:
        ray = _ray_terms(g, camera)
        terms = ray
        v_mean_c, v_axes, v_scales = _ray_backward(g, camera, ray, v, into)
        v_opacities = v.opacities
    v_mean_c = v_mean_c + _mean2d_backward(camera, terms.mean_c, v, into)
    v_means = v_mean_c @ camera.rotation
    into.rotation += v_mean_c.T @ g.means
    into.translation += v_mean_c.sum(axis=0)
    v_unit = geometry.rotation_matrices_backward(terms.unit_quats, v_axes)
    v_quats = geometry.normalise_backward(g.quats, v_unit)
    return Gaussians(v_means, v_quats, v_scales, v_opacities), into


def _mean2d_backward(camera: Camera, mean_c: Array, v: FootprintGradients, into: CameraGradient) -> Array:
    """Gradient in camera-space means through the projected means and the depths."""
    z = mean_c[:, 2:]
    slope = mean_c[:, :2] / z
    into.focal += np.sum(slope * v.means2d, axis=0)
    into.center += np.sum(v.means2d, axis=0)
    v_xy = camera.focal / z * v.means2d
    v_z = v.depths - np.sum(v_xy * slope, axis=1)
    return np.column_stack([v_xy, v_z])


def _ewa_backward(
    g: Gaussians,
    camera: Camera,
    t: _EwaTerms,
    v: FootprintGradients,
    attrs: Mapping[str, AttrValue],
    into: CameraGradient,
) -> tuple[Array, Array, Array, Array]:
    """Gradients in camera-space means, axes, scales and opacities through the footprint's covariance."""
    inverse = np.empty_like(t.blurred)
    inverse[:, 0, 0], inverse[:, 1, 1] = t.conics[:, 0], t.conics[:, 2]
    inverse[:, 0, 1] = inverse[:, 1, 0] = t.conics[:, 1]
    v_inverse = np.empty_like(inverse)
    v_inverse[:, 0, 0], v_inverse[:, 1, 1] = v.conics[:, 0], v.conics[:, 2]
    v_inverse[:, 0, 1] = v_inverse[:, 1, 0] = 0.5 * v.conics[:, 1]
    v_cov = -inverse @ v_inverse @ inverse
    if attrs["antialiased"]:
        v_cov = v_cov + _compensation_backward(t, inverse, v.opacities * g.opacities)

    rotation, z = camera.rotation, t.mean_c[:, 2]
    to_image = t.jacobian @ rotation
    v_to_image = 2 * v_cov @ to_image @ t.world_cov
    v_factor = 2 * np.swapaxes(to_image, 1, 2) @ v_cov @ to_image @ t.factor
    into.rotation += np.einsum("nki,nkj->ij", t.jacobian, v_to_image)
    v_jacobian = v_to_image @ rotation.T

    v_diagonal = np.column_stack([v_jacobian[:, 0, 0], v_jacobian[:, 1, 1]])
    v_last = v_jacobian[:, :, 2]
    per_z = 1 / z[:, None]
    into.focal += np.sum((v_diagonal - v_last * t.slope) * per_z, axis=0)
    v_slope = -camera.focal * per_z * v_last
    v_z = np.sum(-camera.focal * per_z**2 * (v_diagonal - v_last * t.slope), axis=1)
    # Inside the frame the slope is x/z; beyond, it is a limit that depends on focal length and centre.
    v_free = np.where(t.clamped, 0.0, v_slope)
    v_held = np.where(t.clamped, v_slope, 0.0)
    into.focal += np.sum(-v_held * t.slope / camera.focal, axis=0)
    into.center += np.sum(-v_held / camera.focal, axis=0)
    v_xy = v_free * per_z
    v_z = v_z - np.sum(v_xy * t.slope, axis=1)

    v_axes = v_factor * g.scales[:, None, :]
    v_scales = np.sum(v_factor * t.axes, axis=1)
    return np.column_stack([v_xy, v_z]), v_axes, v_scales, v.opacities * t.compensation


def _compensation_backward(t: _EwaTerms, inverse: Array, v_compensation: Array) -> Array:
    """Gradient in the covariance through sqrt(det(cov) / det(cov + eps2d)), 0 where that is held."""
    adjugate = np.empty_like(t.image_cov)
    adjugate[:, 0, 0], adjugate[:, 1, 1] = t.image_cov[:, 1, 1], t.image_cov[:, 0, 0]
    adjugate[:, 0, 1] = adjugate[:, 1, 0] = -t.image_cov[:, 0, 1]
    slope = adjugate / t.det[:, None, None] - t.ratio[:, None, None] * inverse
    v_ratio = np.where(t.ratio > nx.MIN_COMPENSATION, v_compensation / (2 * t.compensation), 0.0)
    made: Array = v_ratio[:, None, None] * slope
    return made


def _ray_backward(
    g: Gaussians, camera: Camera, t: _RayTerms, v: FootprintGradients, into: CameraGradient
) -> tuple[Array, Array, Array]:
    """Gradients in camera-space means, axes and scales through the quadratics of the ray's distance."""
    va, vb, vc, vp, vq, ve, vf, vg = (v.conics[:, i : i + 1] for i in range(8))
    s = t.norm[:, None]
    v_norm = np.sum(v.conics * t.conics, axis=1, keepdims=True) / s
    v_moment_x = s * (2 * va * t.moment_x + vb * t.moment_y)
    v_moment_y = s * (vb * t.moment_x + 2 * vc * t.moment_y)
    v_direction = s * (vp * t.column_x + vq * t.column_y) - 2 * s**2 * v_norm * t.direction
    v_column_x = s * (vp * t.direction + 2 * ve * t.column_x + vf * t.column_y)
    v_column_y = s * (vq * t.direction + vf * t.column_x + 2 * vg * t.column_y)
    v_column_x = v_column_x + np.cross(v_moment_x, t.origin)
    v_column_y = v_column_y + np.cross(v_moment_y, t.origin)
    v_origin = np.cross(t.column_x, v_moment_x) + np.cross(t.column_y, v_moment_y)
    z = t.mean_c[:, 2:]
    v_origin = v_origin - v_direction / z
    v_z = _dot(t.origin, v_direction) / z[:, 0] ** 2

    v_matrix = -v_origin[:, :, None] * t.mean_c[:, None, :]
    v_matrix[:, :, 0] += v_column_x / camera.focal[0]
    v_matrix[:, :, 1] += v_column_y / camera.focal[1]
    into.focal[0] -= np.sum(t.column_x * v_column_x) / camera.focal[0]
    into.focal[1] -= np.sum(t.column_y * v_column_y) / camera.focal[1]
    v_mean_c = -np.einsum("nij,ni->nj", t.camera_to_unit, v_origin)
    v_mean_c[:, 2] += v_z

    v_to_unit = v_matrix @ camera.rotation
    into.rotation += np.einsum("nij,nik->jk", v_matrix, t.to_unit)
    v_axes = np.swapaxes(v_to_unit / g.scales[:, :, None], 1, 2)
    v_scales = -np.sum(t.to_unit * v_to_unit, axis=2) / g.scales
    return v_mean_c, v_axes, v_scales


# --- colours ----------------------------------------------------------------------------------------------
def usable_colors(colors: Array, sh_degree: int) -> Array:
    """Which Gaussians have finite colours, as far as they are used."""
    used = colors if sh_degree == PASS_THROUGH else colors[:, : nx.sh_coeff_count(sh_degree)]
    finite: Array = np.isfinite(used).all(axis=tuple(range(1, used.ndim)))
    return finite


def evaluate_colors(means: Array, colors: Array, camera: Camera, sh_degree: int) -> Array:
    """Colours [n, C] seen from the camera: as given, or harmonics + 0.5, clamped at 0."""
    if sh_degree == PASS_THROUGH:
        return colors
    return np.asarray(np.maximum(_unclamped_colors(means, colors, camera, sh_degree), 0))


def _unclamped_colors(means: Array, colors: Array, camera: Camera, sh_degree: int) -> Array:
    basis = geometry.sh_basis(geometry.normalise(means - camera.position), sh_degree)
    made: Array = np.einsum("nk,nkc->nc", basis, colors[:, : basis.shape[1]]) + nx.SH_OFFSET
    return made


def evaluate_colors_backward(
    means: Array, colors: Array, camera: Camera, sh_degree: int, v_seen: Array, into: CameraGradient
) -> tuple[Array, Array]:
    """Gradients in means and colours; the camera's position gets its part too."""
    if sh_degree == PASS_THROUGH:
        return np.zeros_like(means), v_seen
    v_raw = np.where(_unclamped_colors(means, colors, camera, sh_degree) > 0, v_seen, 0.0)
    offsets = means - camera.position
    directions = geometry.normalise(offsets)
    basis = geometry.sh_basis(directions, sh_degree)
    v_colors = np.zeros_like(colors)
    v_colors[:, : basis.shape[1]] = basis[:, :, None] * v_raw[:, None, :]
    v_basis = np.einsum("nkc,nc->nk", colors[:, : basis.shape[1]], v_raw)
    v_directions = np.einsum("nk,nkd->nd", v_basis, geometry.sh_basis_gradient(directions, sh_degree))
    v_means = geometry.normalise_backward(offsets, v_directions)
    v_position = -v_means.sum(axis=0)
    into.rotation += -np.outer(camera.translation, v_position)
    into.translation += -camera.rotation @ v_position
    return v_means, v_colors
