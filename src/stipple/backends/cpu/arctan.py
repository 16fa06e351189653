"""atan(r) / r, needed for fisheye lenses, and its derivatives, for LANES values at once."""

from __future__ import annotations

import math

import numpy as np

from stipple.backends.cpu.compile import inline
from stipple.backends.cpu.simd import horner, maximum, minimum, sqrt, where

f4 = np.float32
ONE, THREE, HALF = f4(1), f4(3), f4(0.5)
HALF_PI = f4(math.pi / 2)

# Polynomials of atan(r) / r and of its first two derivatives in t = r^2 for 0 <= t <= 1, highest power first,
# interpolated at Chebyshev nodes. Relative errors 5e-10, 1e-8 and 2e-7.
_ARCTAN = (
    0.00105760712, -0.0070306682, 0.0219129436, -0.0439284071, 0.0668528154, -0.0878504291,
    0.110507712, -0.142785758, 0.199995577, -0.333333224, 1.0,
)  # fmt: skip
_ARCTAN_FIRST = (
    -0.00748547027, 0.0485949032, -0.145962149, 0.275865853, -0.382423431, 0.436339319,
    -0.44962427, 0.443866134, -0.428535789, 0.399999142, -0.333333343,
)  # fmt: skip
_ARCTAN_SECOND = (
    0.0585174859, -0.372482598, 1.08565891, -1.95751643, 2.52065182, -2.57231092,
    2.26369452, -1.81304717, 1.33301818, -0.857135177, 0.399999976,
)  # fmt: skip


@inline
def arctan_ratio(t):
    """A = atan(r) / r and its derivatives in t = r^2. Beyond 1, atan(r) = pi/2 - atan(1/r) and A + 2 t A' =
    1 / (1 + t)."""
    inverse = ONE / maximum(t, ONE)
    inverse_root = sqrt(inverse)
    far = (HALF_PI - horner(inverse, _ARCTAN) * inverse_root) * inverse_root
    ratio = ONE / (ONE + t)
    far_first = (ratio - far) * inverse * HALF
    far_second = (-(ratio * ratio) - THREE * far_first) * inverse * HALF
    near, close = t <= ONE, minimum(t, ONE)
    return (
        where(near, horner(close, _ARCTAN), far),
        where(near, horner(close, _ARCTAN_FIRST), far_first),
        where(near, horner(close, _ARCTAN_SECOND), far_second),
    )
