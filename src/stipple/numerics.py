"""Every constant of the rendering contract, in one place, and the basis of the spherical harmonics (SH).

All backends take their numbers from here. The conventions are those of gsplat (Ye et al., "gsplat: An
open-source library for Gaussian splatting", 2024), which follows Kerbl et al., "3D Gaussian Splatting for
Real-Time Radiance Field Rendering", 2023, unless a constant's comment says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

# --- compositing ------------------------------------------------------------------------------------------
MAX_ALPHA: Final = 0.99
"""Upper bound of a Gaussian's alpha in one pixel, so that 1 - alpha never vanishes."""

ALPHA_CUTOFF: Final = 1.0 / 255.0
"""Contributions below this alpha are skipped: an 8-bit image could not show them."""

TRANSMITTANCE_THRESHOLD: Final = 1e-4
"""A pixel stops before the Gaussian that would bring its transmittance to this value or below."""

# --- projection -------------------------------------------------------------------------------------------
EPS2D: Final = 0.3
"""Variance in pixels squared added to both axes of a projected covariance: a pixel-sized low-pass filter."""

JACOBIAN_MARGIN: Final = 0.3
"""How far beyond the frame, in units of tan(fov / 2), the projection's Jacobian is evaluated at the mean itself."""

DISTORTED_JACOBIAN_MARGIN: Final = 1.3
"""The same for a pinhole with distortion, whose frame may reach larger slopes than its focal length suggests."""

EXTENT_SIGMA: Final = 3.33
"""A Gaussian's support ends at this many standard deviations, whatever its opacity."""

MIN_COMPENSATION: Final = 2.5e-5
"""Lower bound of det(cov) / det(cov + eps2d) in antialiased mode."""

NEAR: Final = 0.01
FAR: Final = 1e10

TILE_SIZE: Final = 16

MAX_RADIUS: Final = 1 << 30
"""Radii are reported as int32; larger ones are reported as this."""

# --- images -----------------------------------------------------------------------------------------------
SSIM_WINDOW: Final = 11
SSIM_SIGMA: Final = 1.5
SSIM_C1: Final = 0.01**2
SSIM_C2: Final = 0.03**2
"""Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, for images
in [0, 1]; the window is normalised to sum to one."""

# --- training noise ---------------------------------------------------------------------------------------
NOISE_STEEPNESS: Final = 100.0
NOISE_MIDDLE: Final = 0.995
"""The gate of MCMC's noise is sigmoid(NOISE_STEEPNESS ((1 - opacity) - NOISE_MIDDLE)): Kheradmand et al., 2024."""

PCG_FACTOR: Final = 1664525
PCG_TERM: Final = 1013904223
"""Constants of pcg4d, the hash that generates the noise: Jarzynski and Olano, "Hash Functions for GPU Rendering",
2020."""

# --- SH ---------------------------------------------------------------------------------------------------
MAX_SH_DEGREE: Final = 4
SH_OFFSET: Final = 0.5
"""Added to the evaluated SH: a zero coefficient is mid-grey."""

Monomial = tuple[float, int, int, int]
"""coefficient, power of x, power of y, power of z"""


def _sh_basis() -> tuple[tuple[Monomial, ...], ...]:
    """Real spherical harmonics up to degree 4 as polynomials of the unit view direction.

    Order and signs are those of the 3DGS files: band l holds m = -l..l, and odd m is negated. The
    polynomials are the textbook ones (for instance Sloan, "Efficient Spherical Harmonic Evaluation", 2013).
    """
    pi, sqrt = math.pi, math.sqrt
    c0 = 0.5 * sqrt(1 / pi)
    c1 = sqrt(3 / (4 * pi))
    c2a, c2b, c2c = 0.5 * sqrt(15 / pi), 0.25 * sqrt(5 / pi), 0.25 * sqrt(15 / pi)
    c3a, c3b = 0.25 * sqrt(35 / (2 * pi)), 0.5 * sqrt(105 / pi)
    c3c, c3d = 0.25 * sqrt(21 / (2 * pi)), 0.25 * sqrt(7 / pi)
    c3e = 0.25 * sqrt(105 / pi)
    c4a, c4b = 0.75 * sqrt(35 / pi), 0.75 * sqrt(35 / (2 * pi))
    c4c, c4d = 0.75 * sqrt(5 / pi), 0.75 * sqrt(5 / (2 * pi))
    c4e, c4f, c4g = 3 / 16 * sqrt(1 / pi), 0.375 * sqrt(5 / pi), 3 / 16 * sqrt(35 / pi)
    return (
        ((c0, 0, 0, 0),),
        # band 1
        ((-c1, 0, 1, 0),),
        ((c1, 0, 0, 1),),
        ((-c1, 1, 0, 0),),
        # band 2
        ((c2a, 1, 1, 0),),
        ((-c2a, 0, 1, 1),),
        ((2 * c2b, 0, 0, 2), (-c2b, 2, 0, 0), (-c2b, 0, 2, 0)),
        ((-c2a, 1, 0, 1),),
        ((c2c, 2, 0, 0), (-c2c, 0, 2, 0)),
        # band 3
        ((-3 * c3a, 2, 1, 0), (c3a, 0, 3, 0)),
        ((c3b, 1, 1, 1),),
        ((-4 * c3c, 0, 1, 2), (c3c, 2, 1, 0), (c3c, 0, 3, 0)),
        ((2 * c3d, 0, 0, 3), (-3 * c3d, 2, 0, 1), (-3 * c3d, 0, 2, 1)),
        ((-4 * c3c, 1, 0, 2), (c3c, 3, 0, 0), (c3c, 1, 2, 0)),
        ((c3e, 2, 0, 1), (-c3e, 0, 2, 1)),
        ((-c3a, 3, 0, 0), (3 * c3a, 1, 2, 0)),
        # band 4
        ((c4a, 3, 1, 0), (-c4a, 1, 3, 0)),
        ((-3 * c4b, 2, 1, 1), (c4b, 0, 3, 1)),
        ((6 * c4c, 1, 1, 2), (-c4c, 3, 1, 0), (-c4c, 1, 3, 0)),
        ((-4 * c4d, 0, 1, 3), (3 * c4d, 2, 1, 1), (3 * c4d, 0, 3, 1)),
        (
            (8 * c4e, 0, 0, 4),
            (-24 * c4e, 2, 0, 2),
            (-24 * c4e, 0, 2, 2),
            (3 * c4e, 4, 0, 0),
            (6 * c4e, 2, 2, 0),
            (3 * c4e, 0, 4, 0),
        ),
        ((-4 * c4d, 1, 0, 3), (3 * c4d, 3, 0, 1), (3 * c4d, 1, 2, 1)),
        ((6 * c4f, 2, 0, 2), (-6 * c4f, 0, 2, 2), (-c4f, 4, 0, 0), (c4f, 0, 4, 0)),
        ((-c4b, 3, 0, 1), (3 * c4b, 1, 2, 1)),
        ((c4g, 4, 0, 0), (-6 * c4g, 2, 2, 0), (c4g, 0, 4, 0)),
    )


SH_BASIS: Final = _sh_basis()
SH_C0: Final = SH_BASIS[0][0][0]


def sh_coeff_count(degree: int) -> int:
    """Number of coefficients per channel of SH up to ``degree``."""
    return (degree + 1) ** 2


# --- cameras ----------------------------------------------------------------------------------------------
DISTORTION_LENGTHS: Mapping[str, tuple[int, ...]] = {"pinhole": (0, 8), "ortho": (0,), "fisheye": (4,)}
"""How many coefficients a lens may have, by camera model: k1 to k6, p1, p2 of a pinhole, k1 to k4 of a fisheye."""
