"""Conversion between colours and spherical harmonics (SH) of band 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple import numerics as nx


def rgb_to_sh(rgb: ArrayLike) -> np.ndarray:
    """Band-0 coefficients of these colours."""
    return np.asarray((arguments.read("rgb", rgb) - nx.SH_OFFSET) / nx.SH_C0)


def sh_to_rgb(sh: ArrayLike) -> np.ndarray:
    """Colours of band-0 coefficients (not clamped)."""
    return np.asarray(arguments.read("sh", sh) * nx.SH_C0 + nx.SH_OFFSET)


def sh_degree(coefficients: int) -> int | None:
    """The degree of SH that has this many coefficients per channel, or None."""
    for degree in range(nx.MAX_SH_DEGREE + 1):
        if nx.sh_coeff_count(degree) == coefficients:
            return degree
    return None
