"""The radius at which a camera's distortion stops growing: points beyond it would fold back into the image."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

RATIONAL_LENGTH = 8
"""Coefficients of a distorted pinhole: k1 k2 k3 k4 k5 k6 p1 p2, OpenCV's rational model in another order."""

FISHEYE_LENGTH = 4
"""Coefficients of OpenCV's fisheye model: k1 k2 k3 k4."""


def max_slope_squared(camera_model: str, distortion: Array) -> float:
    """The largest (x/z)^2 + (y/z)^2 within a camera's range, infinity if there is no limit.

    Up to it the distorted radius, without the tangential terms, grows with the undistorted one.
    """
    k = np.asarray(distortion, np.float64)
    if camera_model == "fisheye":
        return _fisheye_limit(k)
    return _rational_limit(k) if len(k) else math.inf


def _rational_limit(k: Array) -> float:
    """r N / Q with N = 1 + k1 t + k2 t^2 + k3 t^3, Q = 1 + k4 t + k5 t^2 + k6 t^3 and t = r^2 stops growing at the
    first root of N Q + 2 t (N' Q - N Q'), or at Q's, where it is infinite."""
    t = np.polynomial.Polynomial([0.0, 1.0])
    n, q = np.polynomial.Polynomial([1.0, *k[:3]]), np.polynomial.Polynomial([1.0, *k[3:6]])
    return min(_first_root((n * q + 2 * t * (n.deriv() * q - n * q.deriv())).coef), _first_root(q.coef))


def _fisheye_limit(k: Array) -> float:
    """theta (1 + k1 theta^2 + ... + k4 theta^8) stops growing at the first root of its derivative; the slope is
    theta's tangent."""
    theta = math.sqrt(min(_first_root(np.array([1, 3 * k[0], 5 * k[1], 7 * k[2], 9 * k[3]])), math.pi**2))
    return math.tan(theta) ** 2 if theta < math.pi / 2 else math.inf


def _first_root(coefficients: Array) -> float:
    """The smallest positive root of a polynomial given from the constant up, infinity if there is none."""
    roots = np.roots(coefficients[::-1])
    real = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0)]
    return float(real.min()) if real.size else math.inf
