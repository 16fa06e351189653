"""Colours from spherical harmonics (SH): ``splat_sh`` and its gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stipple import numerics as nx
from stipple.backends.host import geometry
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import ShBackwardOperands, ShBackwardResults, ShOperands, ShResults

Array = np.ndarray
Attrs = Mapping[str, AttrValue]


def sh(x: ShOperands, attrs: Attrs) -> ShResults:
    """max(SH + 0.5, 0) of visible Gaussians, zeros for others; NaN and infinity are kept."""
    ids = _visible(x.radii)
    colors = np.zeros((len(x.means), x.sh.shape[2]))
    with np.errstate(all="ignore"):  # coefficients may be infinite; then the colour is not finite
        unclamped = _unclamped(x.means[ids], x.sh[ids], _position(x.viewmat), attrs["sh_degree"])
    colors[ids] = np.where((unclamped < 0) & np.isfinite(unclamped), 0.0, unclamped)
    return ShResults(colors)


def sh_backward(x: ShBackwardOperands, attrs: Attrs) -> ShBackwardResults:
    """Gradients of ``sh``; a Gaussian whose colour is not finite gets none."""
    degree, position = attrs["sh_degree"], _position(x.viewmat)
    ids = _visible(x.radii)
    with np.errstate(all="ignore"):
        finite = np.isfinite(_unclamped(x.means[ids], x.sh[ids], position, degree)).all(axis=1)
    ids = ids[finite]
    means, coefficients = x.means[ids], x.sh[ids, : nx.sh_coeff_count(degree)]
    v_raw = np.where(_unclamped(means, coefficients, position, degree) > 0, x.v_colors[ids], 0.0)
    offsets = means - position
    directions = geometry.normalise(offsets)
    basis = geometry.sh_basis(directions, degree)
    v_sh, v_means = np.zeros_like(x.sh), np.zeros_like(x.means)
    v_sh[ids, : basis.shape[1]] = basis[:, :, None] * v_raw[:, None, :]
    v_basis = np.einsum("nkc,nc->nk", coefficients, v_raw)
    v_directions = np.einsum("nk,nkd->nd", v_basis, geometry.sh_basis_gradient(directions, degree))
    v_means[ids] = geometry.normalise_backward(offsets, v_directions)
    # the position is -R^T t
    rotation, translation, v_position = x.viewmat[:3, :3], x.viewmat[:3, 3], -v_means.sum(axis=0)
    v_viewmat = np.zeros((4, 4))
    v_viewmat[:3, :3] = -np.outer(translation, v_position)
    v_viewmat[:3, 3] = -rotation @ v_position
    return ShBackwardResults(v_means, v_sh, v_viewmat)


def _visible(radii: Array) -> Array:
    return np.flatnonzero((radii > 0).all(axis=1))


def _position(viewmat: Array) -> Array:
    """The camera's centre in the world (the rotation is orthonormal)."""
    return np.asarray(-viewmat[:3, :3].T @ viewmat[:3, 3])


def _unclamped(means: Array, coefficients: Array, position: Array, degree: int) -> Array:
    basis = geometry.sh_basis(geometry.normalise(means - position), degree)
    return np.asarray(np.einsum("nk,nkc->nc", basis, coefficients[:, : basis.shape[1]]) + nx.SH_OFFSET)
