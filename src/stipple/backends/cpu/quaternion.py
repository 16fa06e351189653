"""Quaternions wxyz and their rotation matrices, of float32 numbers or of LANES at once."""

from __future__ import annotations

import numpy as np

from stipple.backends.cpu.compile import inline
from stipple.backends.cpu.simd import absolute, maximum, sqrt

f4 = np.float32
ONE, TWO = f4(1), f4(2)


@inline
def rotation(w, x, y, z):
    """The rotation matrix of a unit quaternion, row by row."""
    return (
        ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y),
        TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x),
        TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y),
    )  # fmt: skip


@inline
def rotation_backward(unit, v):
    """Gradient of a unit quaternion from the gradient of its matrix."""
    w, x, y, z = unit
    v00, v01, v02, v10, v11, v12, v20, v21, v22 = v
    vw = TWO * (x * (v21 - v12) + y * (v02 - v20) + z * (v10 - v01))
    vx = TWO * (y * (v01 + v10) + z * (v02 + v20) + w * (v21 - v12) - TWO * x * (v11 + v22))
    vy = TWO * (x * (v01 + v10) + z * (v12 + v21) + w * (v02 - v20) - TWO * y * (v00 + v22))
    vz = TWO * (x * (v02 + v20) + y * (v12 + v21) + w * (v10 - v01) - TWO * z * (v00 + v11))
    return vw, vx, vy, vz


@inline
def normalized(quaternion):
    """Unit quaternions, one over their lengths, and their largest magnitudes: 0 for a zero quaternion, infinite or NaN
    if an element is not finite. Dividing by the largest first keeps squares from overflow and underflow."""
    w, x, y, z = quaternion
    largest = maximum(maximum(absolute(w), absolute(x)), maximum(absolute(y), absolute(z)))
    w, x, y, z = w / largest, x / largest, y / largest, z / largest
    scale = ONE / sqrt(w * w + x * x + y * y + z * z)
    return (w * scale, x * scale, y * scale, z * scale), scale / largest, largest


@inline
def normalized_backward(unit, per_length, v):
    """Gradient of a quaternion from the gradient of its normalised form."""
    w, x, y, z = unit
    vw, vx, vy, vz = v
    along = w * vw + x * vx + y * vy + z * vz
    return (
        (vw - w * along) * per_length, (vx - x * along) * per_length,
        (vy - y * along) * per_length, (vz - z * along) * per_length,
    )  # fmt: skip
