"""The camera models for LANES points at once: pixels, their Jacobian, and the gradients of both.

The formulas are those of the reference (``backends/reference/camera.py``, which explains them): a lens maps the slopes
(a, b) = (x/z, y/z) to D, whose derivative H is symmetric, and the Jacobian is diag(fx, fy) H S with
S = [[1, 0, -a], [0, 1, -b]] / z.

Kernels get a camera as one of the records below, and are compiled for its type.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.arctan import arctan_ratio
from stipple.backends.cpu.compile import chosen_by_type, inline, record_type
from stipple.backends.cpu.simd import broadcast, maximum, minimum, where
from stipple.backends.host.distortion import RATIONAL_LENGTH, max_slope_squared

Array = np.ndarray
f4 = np.float32
ZERO, ONE, TWO, THREE, FOUR, SIX = f4(0), f4(1), f4(2), f4(3), f4(4), f4(6)


# --- records ----------------------------------------------------------------------------------------------
# Numbers are float32. low and high limit the slopes at which the Jacobian is evaluated; max_slope_squared is the
# largest (x/z)^2 + (y/z)^2 within a lens's range. An orthographic fx and fy are pixels per world unit.
Pinhole = namedtuple("Pinhole", "fx fy cx cy low_x low_y high_x high_y")
Distorted = namedtuple("Distorted", "fx fy cx cy low_x low_y high_x high_y max_slope_squared k1 k2 k3 k4 k5 k6 p1 p2")
Fisheye = namedtuple("Fisheye", "fx fy cx cy max_slope_squared k1 k2 k3 k4")
Ortho = namedtuple("Ortho", "fx fy cx cy")

MAX_CAMERA_GRADIENT = 4 + RATIONAL_LENGTH
"""Maximum length of a camera's gradient: fx, fy, cx, cy, then the distortion's."""

PINHOLE_TYPE = record_type(Pinhole, *["f4"] * len(Pinhole._fields))


def camera_record(camera_model: str, intrinsics: Array, distortion: Array, size: tuple[int, int]) -> Any:
    """The record of a camera for an image of (width, height)."""
    focal, center = intrinsics[[0, 1], [0, 1]].astype(np.float64), intrinsics[:2, 2].astype(np.float64)
    base = [*focal, *center]
    limit = max_slope_squared(camera_model, distortion)
    record: Any
    if camera_model == "ortho":
        record, numbers = Ortho, base
    elif camera_model == "fisheye":
        record, numbers = Fisheye, [*base, limit, *distortion]
    else:
        margin = nx.DISTORTED_JACOBIAN_MARGIN if len(distortion) else nx.JACOBIAN_MARGIN
        beyond = margin * 0.5 * np.array(size) / focal
        low, high = -center / focal - beyond, (np.array(size) - center) / focal + beyond
        record, numbers = Pinhole, [*base, *low, *high]
        if len(distortion):
            record, numbers = Distorted, [*numbers, limit, *distortion]
    return record(*map(f4, numbers))


# --- lenses: F(t) of t = a^2 + b^2 ------------------------------------------------------------------------
@inline
def _rational(camera, t):
    """F, F', F'' of the rational model, and its denominator with its derivative."""
    n = ONE + t * (camera.k1 + t * (camera.k2 + t * camera.k3))
    n_first = camera.k1 + t * (TWO * camera.k2 + t * (THREE * camera.k3))
    n_second = TWO * camera.k2 + t * (SIX * camera.k3)
    q = ONE + t * (camera.k4 + t * (camera.k5 + t * camera.k6))
    q_first = camera.k4 + t * (TWO * camera.k5 + t * (THREE * camera.k6))
    q_second = TWO * camera.k5 + t * (SIX * camera.k6)
    value = n / q
    first = (n_first - value * q_first) / q
    second = (n_second - TWO * first * q_first - value * q_second) / q
    return value, first, second, q, q_first


@inline
def _rational_factor(camera, t):
    value, first, second, _, _ = _rational(camera, t)
    return value, first, second


@inline
def _rational_gradient(camera, t, v_value, v_first, v_p1, v_p2):
    """Gradient of the coefficients from the gradients of F, F' and the tangential terms."""
    value, first, _, q, q_first = _rational(camera, t)
    v_n_first = v_first / q
    v_n = v_value / q - v_n_first * q_first / q
    v_q = -(v_n * value) - v_n_first * first
    v_q_first = -(v_n_first * value)
    t2 = t * t
    t3 = t2 * t
    return (
        v_n * t + v_n_first, v_n * t2 + TWO * t * v_n_first, v_n * t3 + THREE * t2 * v_n_first,
        v_q * t + v_q_first, v_q * t2 + TWO * t * v_q_first, v_q * t3 + THREE * t2 * v_q_first,
        v_p1, v_p2,
    )  # fmt: skip


@inline
def _angle(t, a, a_first):
    """u = theta^2 = t A^2 and its derivatives: u' = A (A + 2 t A') = A / (1 + t)."""
    ratio = ONE / (ONE + t)
    return t * a * a, a * ratio, (a_first - a * ratio) * ratio


@inline
def _fisheye_factor(camera, t):
    """F = A P(u), P = 1 + k1 u + ... + k4 u^4, with its derivatives in t."""
    a, a_first, a_second = arctan_ratio(t)
    u, u_first, u_second = _angle(t, a, a_first)
    p = ONE + u * (camera.k1 + u * (camera.k2 + u * (camera.k3 + u * camera.k4)))
    p_first = camera.k1 + u * (TWO * camera.k2 + u * (THREE * camera.k3 + u * (FOUR * camera.k4)))
    p_second = TWO * camera.k2 + u * (SIX * camera.k3 + u * (f4(12) * camera.k4))
    first = a_first * p + a * p_first * u_first
    second = a_second * p + TWO * a_first * p_first * u_first + a * (p_second * u_first * u_first + p_first * u_second)
    return a * p, first, second


@inline
def _fisheye_gradient(camera, t, v_value, v_first, v_p1, v_p2):
    """Gradient of the coefficients from the gradients of F and F'; there are no tangential terms."""
    a, a_first, _ = arctan_ratio(t)
    u, u_first, _ = _angle(t, a, a_first)
    by_power = v_value * a + v_first * a_first
    by_slope = v_first * a * u_first
    u2 = u * u
    u3 = u2 * u
    return (
        by_power * u + by_slope, by_power * u2 + TWO * u * by_slope,
        by_power * u3 + THREE * u2 * by_slope, by_power * u2 * u2 + FOUR * u3 * by_slope,
    )  # fmt: skip


# --- pinhole ----------------------------------------------------------------------------------------------
@inline
def _pinhole_pixel(camera, point):
    x, y, z = point
    return camera.fx * (x / z) + camera.cx, camera.fy * (y / z) + camera.cy


@inline
def _held(camera, a, b):
    """Slopes clamped to the limits."""
    return minimum(maximum(a, camera.low_x), camera.high_x), minimum(maximum(b, camera.low_y), camera.high_y)


@inline
def _pinhole_jacobian(camera, point):
    x, y, z = point
    a, b = _held(camera, x / z, y / z)
    per_z = ONE / z
    jx, jy, zero = camera.fx * per_z, camera.fy * per_z, broadcast(ZERO)
    return jx, zero, -(jx * a), zero, jy, -(jy * b)


@inline
def _slopes_backward(z, a, b, v_a, v_b):
    """Gradient of a point from the gradient of its slopes."""
    v_x, v_y = v_a / z, v_b / z
    return v_x, v_y, -(v_x * a + v_y * b)


@inline
def _pinhole_pixel_backward(camera, point, v_u, v_v):
    x, y, z = point
    a, b = x / z, y / z
    return _slopes_backward(z, a, b, camera.fx * v_u, camera.fy * v_v), (a * v_u, b * v_v, v_u, v_v)


@inline
def _held_backward(camera, point, v_a, v_b, v_z):
    """Gradients of a point, focal lengths and centre from those of the slopes of the Jacobian: within the limits these
    are x/z and y/z; beyond, a limit that depends on focal length and centre."""
    x, y, z = point
    a, b = x / z, y / z
    held_a, held_b = _held(camera, a, b)
    free_x, free_y = a == held_a, b == held_b
    v_x, v_y, v_z_slopes = _slopes_backward(z, a, b, where(free_x, v_a, ZERO), where(free_y, v_b, ZERO))
    v_cx = where(free_x, ZERO, -(v_a / camera.fx))
    v_cy = where(free_y, ZERO, -(v_b / camera.fy))
    return (v_x, v_y, v_z + v_z_slopes), (v_cx * held_a, v_cy * held_b, v_cx, v_cy)


@inline
def _pinhole_jacobian_backward(camera, point, v):
    x, y, z = point
    a, b = _held(camera, x / z, y / z)
    per_z = ONE / z
    v00, _, v02, _, v11, v12 = v
    v_jx, v_jy = v00 - a * v02, v11 - b * v12
    v_z = -((camera.fx * v_jx + camera.fy * v_jy) * per_z * per_z)
    v_point, (v_fx, v_fy, v_cx, v_cy) = _held_backward(
        camera, point, -(camera.fx * per_z * v02), -(camera.fy * per_z * v12), v_z
    )
    return v_point, (v_fx + v_jx * per_z, v_fy + v_jy * per_z, v_cx, v_cy)


# --- pinhole with distortion, fisheye ---------------------------------------------------------------------
@inline
def _rational_tangential(camera):
    return camera.p1, camera.p2


@inline
def _no_tangential(camera):
    return ZERO, ZERO


@inline
def _lens_covers(camera, point):
    x, y, z = point
    a, b = x / z, y / z
    return a * a + b * b <= camera.max_slope_squared


@inline
def _lens_distort(camera, a, b):
    """D, and H as its three entries."""
    p1, p2 = tangential(camera)
    t = a * a + b * b
    value, first, _ = factor(camera, t)
    d_a = a * value + TWO * p1 * a * b + p2 * (t + TWO * a * a)
    d_b = b * value + p1 * (t + TWO * b * b) + TWO * p2 * a * b
    h_aa = value + TWO * first * a * a + TWO * p1 * b + SIX * p2 * a
    h_ab = TWO * first * a * b + TWO * p1 * a + TWO * p2 * b
    h_bb = value + TWO * first * b * b + SIX * p1 * b + TWO * p2 * a
    return d_a, d_b, h_aa, h_ab, h_bb


@inline
def _lens_pixel(camera, point):
    x, y, z = point
    d_a, d_b, _, _, _ = _lens_distort(camera, x / z, y / z)
    return camera.fx * d_a + camera.cx, camera.fy * d_b + camera.cy


@inline
def _lens_jacobian(camera, point):
    x, y, z = point
    a, b = jacobian_slopes(camera, x / z, y / z)
    _, _, h_aa, h_ab, h_bb = _lens_distort(camera, a, b)
    jx, jy = camera.fx / z, camera.fy / z
    return (
        jx * h_aa, jx * h_ab, -(jx * (h_aa * a + h_ab * b)),
        jy * h_ab, jy * h_bb, -(jy * (h_ab * a + h_bb * b)),
    )  # fmt: skip


@inline
def _lens_pixel_backward(camera, point, v_u, v_v):
    x, y, z = point
    a, b = x / z, y / z
    d_a, d_b, h_aa, h_ab, h_bb = _lens_distort(camera, a, b)
    v_da, v_db = camera.fx * v_u, camera.fy * v_v
    v_point = _slopes_backward(z, a, b, h_aa * v_da + h_ab * v_db, h_ab * v_da + h_bb * v_db)
    t = a * a + b * b
    v_p1 = TWO * a * b * v_da + (t + TWO * b * b) * v_db
    v_p2 = (t + TWO * a * a) * v_da + TWO * a * b * v_db
    v_k = factor_gradient(camera, t, a * v_da + b * v_db, broadcast(ZERO), v_p1, v_p2)
    return v_point, (d_a * v_u, d_b * v_v, v_u, v_v, *v_k)


@inline
def _lens_jacobian_backward(camera, point, v):
    x, y, z = point
    per_z = ONE / z
    a, b = jacobian_slopes(camera, x / z, y / z)
    _, _, h_aa, h_ab, h_bb = _lens_distort(camera, a, b)
    v00, v01, v02, v10, v11, v12 = v
    # rows of H S, and the focal lengths' part of the Jacobian's gradient
    s02, s12 = -(h_aa * a + h_ab * b), -(h_ab * a + h_bb * b)
    v_fx = (v00 * h_aa + v01 * h_ab + v02 * s02) * per_z
    v_fy = (v10 * h_ab + v11 * h_bb + v12 * s12) * per_z
    v_z = -((camera.fx * v_fx + camera.fy * v_fy) * per_z)
    w0, w1 = camera.fx * per_z, camera.fy * per_z
    v_aa = w0 * (v00 - a * v02)
    v_ab = w0 * (v01 - b * v02) + w1 * (v10 - a * v12)
    v_bb = w1 * (v11 - b * v12)
    v_a = -(w0 * v02 * h_aa + w1 * v12 * h_ab)
    v_b = -(w0 * v02 * h_ab + w1 * v12 * h_bb)
    # through H to the slopes and the coefficients
    p1, p2 = tangential(camera)
    t = a * a + b * b
    _, first, second = factor(camera, t)
    v_value, v_first = v_aa + v_bb, TWO * (a * a * v_aa + a * b * v_ab + b * b * v_bb)
    v_t = v_value * first + v_first * second
    v_a += TWO * a * v_t + first * (FOUR * a * v_aa + TWO * b * v_ab)
    v_b += TWO * b * v_t + first * (TWO * a * v_ab + FOUR * b * v_bb)
    v_a += p1 * (TWO * v_ab) + p2 * (SIX * v_aa + TWO * v_bb)
    v_b += p1 * (TWO * v_aa + SIX * v_bb) + p2 * (TWO * v_ab)
    v_p1 = TWO * (b * v_aa + a * v_ab) + SIX * b * v_bb
    v_p2 = SIX * a * v_aa + TWO * (b * v_ab + a * v_bb)
    v_k = factor_gradient(camera, t, v_value, v_first, v_p1, v_p2)
    v_point, (w_fx, w_fy, v_cx, v_cy) = jacobian_slopes_backward(camera, point, v_a, v_b, v_z)
    return v_point, (v_fx + w_fx, v_fy + w_fy, v_cx, v_cy, *v_k)


@inline
def _free(camera, a, b):
    return a, b


@inline
def _free_backward(camera, point, v_a, v_b, v_z):
    x, y, z = point
    v_x, v_y, v_z_slopes = _slopes_backward(z, x / z, y / z, v_a, v_b)
    zero = broadcast(ZERO)
    return (v_x, v_y, v_z + v_z_slopes), (zero, zero, zero, zero)


# --- orthographic -----------------------------------------------------------------------------------------
@inline
def _covers_all(camera, point):
    return point[2] == point[2]


@inline
def _ortho_pixel(camera, point):
    return camera.fx * point[0] + camera.cx, camera.fy * point[1] + camera.cy


@inline
def _ortho_jacobian(camera, point):
    zero = broadcast(ZERO)
    return broadcast(camera.fx), zero, zero, zero, broadcast(camera.fy), zero


@inline
def _ortho_pixel_backward(camera, point, v_u, v_v):
    x, y, _ = point
    return (camera.fx * v_u, camera.fy * v_v, broadcast(ZERO)), (x * v_u, y * v_v, v_u, v_v)


@inline
def _ortho_jacobian_backward(camera, point, v):
    zero = broadcast(ZERO)
    return (zero, zero, zero), (v[0], v[4], zero, zero)


# --- one name for all models ------------------------------------------------------------------------------
def _lenses(rational: Callable[..., Any], fisheye: Callable[..., Any]) -> Any:
    return chosen_by_type({Distorted: rational, Fisheye: fisheye})


# for lenses: F, F', F'' at t; gradient of the coefficients; p1 and p2; the slopes of the Jacobian, and their gradient
factor = _lenses(_rational_factor, _fisheye_factor)
factor_gradient = _lenses(_rational_gradient, _fisheye_gradient)
tangential = _lenses(_rational_tangential, _no_tangential)
jacobian_slopes = _lenses(_held, _free)
jacobian_slopes_backward = _lenses(_held_backward, _free_backward)


def _models(pinhole: Callable[..., Any], lens: Callable[..., Any], ortho: Callable[..., Any]) -> Any:
    return chosen_by_type({Pinhole: pinhole, Distorted: lens, Fisheye: lens, Ortho: ortho})


covers = _models(_covers_all, _lens_covers, _covers_all)
"""covers(camera, point): the mask of points (x, y, z) in camera space that are within the lens's range."""

pixel = _models(_pinhole_pixel, _lens_pixel, _ortho_pixel)
"""pixel(camera, point): u, v."""

jacobian = _models(_pinhole_jacobian, _lens_jacobian, _ortho_jacobian)
"""jacobian(camera, point): the six derivatives of u, then v, with respect to x, y, z."""

pixel_backward = _models(_pinhole_pixel_backward, _lens_pixel_backward, _ortho_pixel_backward)
"""pixel_backward(camera, point, v_u, v_v): gradients of the point, and of fx, fy, cx, cy and the distortion."""

jacobian_backward = _models(_pinhole_jacobian_backward, _lens_jacobian_backward, _ortho_jacobian_backward)
"""jacobian_backward(camera, point, v): the same from the gradient of the six derivatives."""
