"""The camera models: projection of points, its Jacobian, and the gradients of both.

All but ``ortho`` use the slopes s = (x/z, y/z) of a point. A lens maps a slope to

    D(s) = s F(t) + (2 p1 a b + p2 (t + 2 a^2), p1 (t + 2 b^2) + 2 p2 a b),    t = |s|^2, s = (a, b),

and the pixel is focal * D(s) + center:

* ``pinhole``: F = 1 without distortion; with it OpenCV's rational model,
  F = (1 + k1 t + k2 t^2 + k3 t^3) / (1 + k4 t + k5 t^2 + k6 t^3), and its tangential terms p1, p2.
* ``fisheye``: OpenCV's equidistant model (Kannala and Brandt, "A generic camera model and calibration method for
  conventional, wide-angle, and fish-eye lenses", 2006), F = theta (1 + k1 theta^2 + ... + k4 theta^8) / r with
  r = sqrt(t) and theta = atan(r); no tangential terms.
* ``ortho``: the pixel is focal * (x, y) + center, focal lengths being pixels per world unit.

D has a symmetric derivative H(s), so the Jacobian of a pixel with respect to the point is diag(focal) H(s) S with
S = [[1, 0, -a], [0, 1, -b]] / z. For a pinhole's Jacobian, s is clamped to limits around the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stipple import numerics as nx
from stipple.backends.host.camera_check import check_camera
from stipple.backends.host.distortion import RATIONAL_LENGTH, max_slope_squared
from stipple.ir.attributes import AttrValue

Array = np.ndarray
_NEAR_AXIS = 0.01
"""Below this squared slope, the functions of a fisheye are evaluated by their series."""


class Radial(NamedTuple):
    """F and its first two derivatives in t."""

    value: Array
    first: Array
    second: Array


@dataclass
class Lens:
    """A lens without distortion, and the base class of the others."""

    radial: Array
    tangential: Array

    @classmethod
    def of(cls, camera_model: str, distortion: Array) -> Lens:
        none = np.zeros(2)
        if camera_model == "fisheye":
            return FisheyeLens(distortion, none)
        if len(distortion) == RATIONAL_LENGTH:
            return RationalLens(distortion[:6], distortion[6:])
        return Lens(distortion, none)

    def factor(self, t: Array) -> Radial:
        """F(t), F'(t), F''(t)."""
        return Radial(np.ones_like(t), np.zeros_like(t), np.zeros_like(t))

    def factor_gradient(self, t: Array, v_value: Array, v_first: Array) -> Array:
        """Gradient of the radial coefficients from the gradients of F and F'."""
        return np.zeros_like(self.radial)

    def distort(self, s: Array) -> Array:
        """D(s) for slopes [n, 2]."""
        a, b = s.T
        p1, p2 = self.tangential
        t = a * a + b * b
        shift = [2 * p1 * a * b + p2 * (t + 2 * a * a), p1 * (t + 2 * b * b) + 2 * p2 * a * b]
        return np.asarray(s * self.factor(t).value[:, None] + np.column_stack(shift))

    def derivative(self, s: Array) -> Array:
        """H(s) [n, 2, 2]."""
        a, b = s.T
        p1, p2 = self.tangential
        f = self.factor(a * a + b * b)
        h_aa = f.value + 2 * f.first * a * a + 2 * p1 * b + 6 * p2 * a
        h_ab = 2 * f.first * a * b + 2 * p1 * a + 2 * p2 * b
        h_bb = f.value + 2 * f.first * b * b + 6 * p1 * b + 2 * p2 * a
        return np.moveaxis(np.array([[h_aa, h_ab], [h_ab, h_bb]]), 2, 0)

    def distort_backward(self, s: Array, v: Array) -> tuple[Array, Array]:
        """Gradients of slopes and coefficients from the gradient of D(s)."""
        a, b = s.T
        va, vb = v.T
        t = a * a + b * b
        v_s = np.einsum("nij,nj->ni", self.derivative(s), v)
        v_radial = self.factor_gradient(t, a * va + b * vb, np.zeros_like(t))
        v_p1 = np.sum(2 * a * b * va + (t + 2 * b * b) * vb)
        v_p2 = np.sum((t + 2 * a * a) * va + 2 * a * b * vb)
        return v_s, self._coefficients(v_radial, v_p1, v_p2)

    def derivative_backward(self, s: Array, v: Array) -> tuple[Array, Array]:
        """Gradients of slopes and coefficients from the gradient [n, 2, 2] of H(s)."""
        a, b = s.T
        p1, p2 = self.tangential
        t = a * a + b * b
        f = self.factor(t)
        v_aa, v_ab, v_bb = v[:, 0, 0], v[:, 0, 1] + v[:, 1, 0], v[:, 1, 1]
        v_value = v_aa + v_bb
        v_first = 2 * (a * a * v_aa + a * b * v_ab + b * b * v_bb)
        v_t = v_value * f.first + v_first * f.second
        v_a = 2 * a * v_t + f.first * (4 * a * v_aa + 2 * b * v_ab) + p1 * 2 * v_ab + p2 * (6 * v_aa + 2 * v_bb)
        v_b = 2 * b * v_t + f.first * (2 * a * v_ab + 4 * b * v_bb) + p1 * (2 * v_aa + 6 * v_bb) + p2 * 2 * v_ab
        v_p1 = np.sum(2 * b * v_aa + 2 * a * v_ab + 6 * b * v_bb)
        v_p2 = np.sum(6 * a * v_aa + 2 * b * v_ab + 2 * a * v_bb)
        v_radial = self.factor_gradient(t, v_value, v_first)
        return np.column_stack([v_a, v_b]), self._coefficients(v_radial, v_p1, v_p2)

    def _coefficients(self, v_radial: Array, v_p1: Array, v_p2: Array) -> Array:
        """The gradient of the operand ``distortion``."""
        return v_radial


@dataclass
class RationalLens(Lens):
    """OpenCV's rational model."""

    def _polynomials(self, t: Array) -> tuple[Radial, Radial]:
        """Numerator and denominator of F with their derivatives."""
        k1, k2, k3, k4, k5, k6 = self.radial
        numerator, denominator = (
            Radial(
                1 + t * (c1 + t * (c2 + t * c3)),
                c1 + t * (2 * c2 + t * 3 * c3),
                2 * c2 + 6 * t * c3,
            )
            for c1, c2, c3 in ((k1, k2, k3), (k4, k5, k6))
        )
        return numerator, denominator

    def factor(self, t: Array) -> Radial:
        n, q = self._polynomials(t)
        value = n.value / q.value
        first = (n.first - value * q.first) / q.value
        second = (n.second - 2 * first * q.first - value * q.second) / q.value
        return Radial(value, first, second)

    def factor_gradient(self, t: Array, v_value: Array, v_first: Array) -> Array:
        _, q = self._polynomials(t)
        f = self.factor(t)
        powers = np.stack([t, t**2, t**3])
        power_slopes = np.stack([np.ones_like(t), 2 * t, 3 * t**2])
        v_n = v_value / q.value - v_first * q.first / q.value**2
        v_n_first = v_first / q.value
        v_q = -v_n * f.value - v_n_first * f.first
        v_q_first = -v_n_first * f.value
        by_numerator = powers @ v_n + power_slopes @ v_n_first
        by_denominator = powers @ v_q + power_slopes @ v_q_first
        return np.concatenate([by_numerator, by_denominator])

    def _coefficients(self, v_radial: Array, v_p1: Array, v_p2: Array) -> Array:
        return np.array([*v_radial, v_p1, v_p2])


@dataclass
class FisheyeLens(Lens):
    """OpenCV's equidistant model: F(t) = A P(theta^2), A = atan(r) / r, P(u) = 1 + k1 u + ... + k4 u^4."""

    def factor(self, t: Array) -> Radial:
        a = _arctan_ratio(t)
        u, u_first, u_second = self._angle(t, a)
        k1, k2, k3, k4 = self.radial
        p = 1 + u * (k1 + u * (k2 + u * (k3 + u * k4)))
        p_first = k1 + u * (2 * k2 + u * (3 * k3 + u * 4 * k4))
        p_second = 2 * k2 + u * (6 * k3 + u * 12 * k4)
        first = a.first * p + a.value * p_first * u_first
        second = a.second * p + 2 * a.first * p_first * u_first
        second = second + a.value * (p_second * u_first**2 + p_first * u_second)
        return Radial(a.value * p, first, second)

    def factor_gradient(self, t: Array, v_value: Array, v_first: Array) -> Array:
        a = _arctan_ratio(t)
        u, u_first, _ = self._angle(t, a)
        by_power = [
            v_value * a.value * u**m + v_first * (a.first * u**m + a.value * m * u ** (m - 1) * u_first)
            for m in range(1, 5)
        ]
        return np.asarray(np.sum(by_power, axis=1))

    @staticmethod
    def _angle(t: Array, a: Radial) -> Radial:
        """theta^2 = t A^2 and its derivatives; (t A^2)' = A (A + 2 t A') = A / (1 + t)."""
        return Radial(t * a.value**2, a.value / (1 + t), a.first / (1 + t) - a.value / (1 + t) ** 2)


def _arctan_ratio(t: Array) -> Radial:
    """A = atan(r) / r and its derivatives in t = r^2: from A + 2 t A' = 1 / (1 + t), or by the series
    1 - t/3 + t^2/5 - ... where that would amplify rounding errors."""
    far = np.maximum(t, _NEAR_AXIS)
    r = np.sqrt(far)
    value = np.arctan(r) / r
    first = (1 / (1 + far) - value) / (2 * far)
    second = (-1 / (1 + far) ** 2 - 3 * first) / (2 * far)
    series = np.polynomial.Polynomial([(-1) ** n / (2 * n + 1) for n in range(12)])
    near = np.minimum(t, _NEAR_AXIS)
    parts = zip((series, series.deriv(), series.deriv(2)), (value, first, second), strict=True)
    return Radial(*(np.where(t < _NEAR_AXIS, p(near), other) for p, other in parts))


@dataclass
class Camera:
    """Pose, focal lengths and centre, lens, clip planes and image size."""

    rotation: Array
    translation: Array
    focal: Array
    center: Array
    lens: Lens
    max_slope_squared: float
    near: float
    far: float
    size: Array
    model: str

    @classmethod
    def of(
        cls,
        viewmat: Array,
        intrinsics: Array,
        distortion: Array,
        clip: Array,
        attrs: Mapping[str, AttrValue],
    ) -> Camera:
        check_camera(viewmat, intrinsics, clip, distortion)
        model = attrs["camera_model"]
        return cls(
            rotation=viewmat[:3, :3],
            translation=viewmat[:3, 3],
            focal=np.array([intrinsics[0, 0], intrinsics[1, 1]]),
            center=intrinsics[:2, 2],
            lens=Lens.of(model, distortion),
            max_slope_squared=max_slope_squared(model, distortion),
            near=clip[0],
            far=clip[1],
            size=np.array([attrs["width"], attrs["height"]], dtype=np.float64),
            model=model,
        )

    def to_camera(self, means: Array) -> Array:
        """World points in camera space."""
        return np.asarray(means @ self.rotation.T + self.translation)

    def covers(self, points: Array) -> Array:
        """Which camera-space points are between the clip planes and within the lens's range."""
        x, y, z = points.T
        inside = (z >= self.near) & (z <= self.far)
        if self.model == "ortho":
            return np.asarray(inside)
        z = np.where(inside, z, 1.0)
        return np.asarray(inside & ((x / z) ** 2 + (y / z) ** 2 <= self.max_slope_squared))

    def pixels(self, points: Array) -> Array:
        """Projections [n, 2] of camera-space points."""
        image_plane = points[:, :2] if self.model == "ortho" else self.lens.distort(points[:, :2] / points[:, 2:])
        return np.asarray(self.focal * image_plane + self.center)

    def jacobian(self, points: Array) -> Array:
        """Derivatives [n, 2, 3] of ``pixels``; for a pinhole, beyond the limits, those at the limit."""
        if self.model == "ortho":
            flat = np.zeros((len(points), 2, 3))
            flat[:, 0, 0], flat[:, 1, 1] = self.focal
            return flat
        slopes = self._held_slopes(points)
        return np.asarray(self.focal[:, None] * self.lens.derivative(slopes) @ _slope_jacobian(slopes, points[:, 2]))

    def _held_slopes(self, points: Array) -> Array:
        slopes = points[:, :2] / points[:, 2:]
        return np.asarray(slopes if self.model == "fisheye" else np.clip(slopes, *self._slope_limits()))

    def _slope_limits(self) -> tuple[Array, Array]:
        """Smallest and largest slopes at which a pinhole's Jacobian is evaluated: the frame and a margin around it, a
        wider one with distortion, with which the frame's edge may be at larger slopes."""
        margin = nx.JACOBIAN_MARGIN if type(self.lens) is Lens else nx.DISTORTED_JACOBIAN_MARGIN
        beyond = margin * 0.5 * self.size / self.focal
        return -self.center / self.focal - beyond, (self.size - self.center) / self.focal + beyond

    def pixels_backward(self, points: Array, v: Array, into: CameraGradient) -> Array:
        """Gradient of camera-space points from the gradient of their pixels."""
        into.center += np.sum(v, axis=0)
        if self.model == "ortho":
            into.focal += np.sum(points[:, :2] * v, axis=0)
            return np.column_stack([self.focal * v, np.zeros(len(v))])
        slopes = points[:, :2] / points[:, 2:]
        into.focal += np.sum(self.lens.distort(slopes) * v, axis=0)
        v_slopes, v_distortion = self.lens.distort_backward(slopes, self.focal * v)
        into.distortion += v_distortion
        return _slopes_backward(points, v_slopes)

    def jacobian_backward(self, points: Array, v: Array, into: CameraGradient) -> Array:
        """Gradient of camera-space points from the gradient [n, 2, 3] of the Jacobian."""
        into.focal += np.sum(self.jacobian(points) * v, axis=(0, 2)) / self.focal
        if self.model == "ortho":
            return np.zeros_like(points)
        z, slopes = points[:, 2], self._held_slopes(points)
        derivative, outer = self.lens.derivative(slopes), _slope_jacobian(slopes, z)
        v = self.focal[:, None] * v
        v_slopes, v_distortion = self.lens.derivative_backward(slopes, v @ np.swapaxes(outer, 1, 2))
        into.distortion += v_distortion
        v_outer = derivative @ v
        v_slopes = v_slopes - v_outer[:, :, 2] / z[:, None]
        v_z = -np.sum(v_outer * outer, axis=(1, 2)) / z
        # Within the limits a slope is x/z; beyond, it is a limit that depends on focal length and centre.
        held = slopes != points[:, :2] / points[:, 2:]
        v_held = np.where(held, v_slopes, 0.0)
        into.focal -= np.sum(v_held * slopes, axis=0) / self.focal
        into.center -= np.sum(v_held, axis=0) / self.focal
        v_points = _slopes_backward(points, np.where(held, 0.0, v_slopes))
        v_points[:, 2] += v_z
        return v_points


def _slope_jacobian(slopes: Array, z: Array) -> Array:
    """S [n, 2, 3]: the derivatives of x/z and y/z with respect to a point."""
    outer = np.zeros((len(z), 2, 3))
    outer[:, 0, 0] = outer[:, 1, 1] = 1 / z
    outer[:, :, 2] = -slopes / z[:, None]
    return outer


def _slopes_backward(points: Array, v_slopes: Array) -> Array:
    """Gradient of camera-space points from the gradient of x/z and y/z."""
    z = points[:, 2:]
    v_xy = v_slopes / z
    return np.column_stack([v_xy, -np.sum(v_xy * points[:, :2] / z, axis=1)])


@dataclass
class CameraGradient:
    """Gradients of a camera, summed over Gaussians."""

    rotation: Array
    translation: Array
    focal: Array
    center: Array
    distortion: Array

    @classmethod
    def zeros(cls, coefficients: int) -> CameraGradient:
        return cls(np.zeros((3, 3)), np.zeros(3), np.zeros(2), np.zeros(2), np.zeros(coefficients))

    def viewmat(self) -> Array:
        """As the gradient of viewmat [4, 4]."""
        viewmat = np.zeros((4, 4))
        viewmat[:3, :3], viewmat[:3, 3] = self.rotation, self.translation
        return viewmat

    def intrinsics(self) -> Array:
        """As the gradient of intrinsics [3, 3]."""
        intrinsics = np.zeros((3, 3))
        intrinsics[0, 0], intrinsics[1, 1] = self.focal
        intrinsics[:2, 2] = self.center
        return intrinsics
