"""Projection of Gaussians to footprints on the image: ``splat_project`` and its gradients.

Only the Gaussians that may be visible are computed; the rest keep zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stipple import numerics as nx
from stipple.backends.reference import ewa, ray
from stipple.backends.reference.camera import Camera, CameraGradient
from stipple.backends.reference.gaussians import Gaussians, pose, pose_backward
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import (
    CONIC_LENGTH,
    ProjectBackwardOperands,
    ProjectBackwardResults,
    ProjectOperands,
    ProjectResults,
)

Array = np.ndarray
Attrs = Mapping[str, AttrValue]


def project(x: ProjectOperands, attrs: Attrs) -> ProjectResults:
    """Footprints of the visible Gaussians, zeros for culled ones."""
    g = Gaussians(x.means, x.quats, x.scales, x.opacities)
    camera = Camera.of(x.viewmat, x.intrinsics, x.distortion, x.clip, attrs)
    ids = np.flatnonzero(_candidates(g, camera, attrs))
    g = g.subset(ids)
    with np.errstate(all="ignore"):  # Gaussians that overflow are culled below
        posed = pose(g, camera)
        means2d = camera.pixels(posed.points)
        if attrs["projection"] == "ewa":
            terms = ewa.footprints(posed, camera, attrs["eps2d"], attrs["antialiased"])
            conics, compensation, good = terms.conics, terms.compensation, terms.valid
        else:
            conics = ray.footprints(posed, camera).conics
            compensation, good = np.ones(len(conics)), np.ones(len(conics), dtype=bool)
        opacities = g.opacities * compensation
        reach = support(opacities, attrs["alpha_cutoff"])
        low, high = _extents(conics, reach, means2d, camera, attrs["projection"])
        radii = np.minimum(np.ceil(np.maximum(-low, high)), nx.MAX_RADIUS)
        outside = (means2d + radii <= 0) | (means2d - radii >= camera.size)
    numbers = np.column_stack([means2d, conics, opacities, posed.points])
    good = good & np.isfinite(numbers).all(axis=1) & (opacities > 0) & (reach >= 0)
    good &= (radii > 0).all(axis=1) & ~outside.any(axis=1)
    results = ProjectResults(
        means2d=np.zeros((len(x.means), 2)),
        conics=np.zeros((len(x.means), CONIC_LENGTH[attrs["projection"]])),
        depths=np.zeros(len(x.means)),
        radii=np.zeros((len(x.means), 2), dtype=np.int32),
        compensation=np.zeros(len(x.means)),
    )
    visible = ProjectResults(means2d, conics, posed.points[:, 2], radii, compensation)
    for into, values in zip(results, visible, strict=True):
        into[ids[good]] = values[good]
    return results


def project_backward(x: ProjectBackwardOperands, attrs: Attrs) -> ProjectBackwardResults:
    """Gradients of the visible Gaussians and of the camera."""
    camera = Camera.of(x.viewmat, x.intrinsics, x.distortion, x.clip, attrs)
    ids = np.flatnonzero((x.radii > 0).all(axis=1))
    g = Gaussians(x.means, x.quats, x.scales, x.opacities).subset(ids)
    posed = pose(g, camera)
    into = CameraGradient.zeros(len(x.distortion))
    if attrs["projection"] == "ewa":
        terms = ewa.footprints(posed, camera, attrs["eps2d"], attrs["antialiased"])
        v_compensation = x.v_compensation[ids] if attrs["antialiased"] else None
        v_posed = ewa.footprints_backward(posed, camera, terms, x.v_conics[ids], v_compensation, into)
    else:
        v_posed = ray.footprints_backward(posed, camera, ray.footprints(posed, camera), x.v_conics[ids], into)
    v_posed.points += camera.pixels_backward(posed.points, x.v_means2d[ids], into)
    v_posed.points[:, 2] += x.v_depths[ids]
    v_means, v_quats, v_scales = np.zeros_like(x.means), np.zeros_like(x.quats), np.zeros_like(x.scales)
    v_means[ids], v_quats[ids] = pose_backward(g, camera, v_posed, into)
    v_scales[ids] = v_posed.scales
    return ProjectBackwardResults(v_means, v_quats, v_scales, into.viewmat(), into.intrinsics(), into.distortion)


def _candidates(g: Gaussians, camera: Camera, attrs: Attrs) -> Array:
    """Gaussians worth projecting: finite, in the camera's range, with a valid rotation and a positive opacity."""
    finite = np.isfinite(np.column_stack([g.means, g.quats, g.scales, g.opacities])).all(axis=1)
    rotated = np.sum(np.where(finite[:, None], g.quats, 0.0) ** 2, axis=1) > 0
    opaque = np.where(finite, g.opacities, 0.0) > 0
    covered = camera.covers(camera.to_camera(np.where(finite[:, None], g.means, 0.0)))
    keep = finite & rotated & opaque & covered
    if attrs["projection"] == "ray":  # a flat Gaussian has no unit frame
        keep &= (np.where(finite[:, None], g.scales, 0.0) > 0).all(axis=1)
    return np.asarray(keep)


# --- extents ----------------------------------------------------------------------------------------------
def support(opacities: Array, alpha_cutoff: float) -> Array:
    """The largest sigma at which a Gaussian of this opacity still contributes."""
    limit = np.full_like(opacities, 0.5 * nx.EXTENT_SIGMA**2)
    if alpha_cutoff <= 0:
        return limit
    return np.asarray(np.minimum(limit, np.log(opacities / alpha_cutoff)))


def support_quadratics(conics: Array, reach: Array, projection: str) -> Array:
    """Quadratics A, B, C, P, R, k [n, 6] whose region A x^2 + 2B xy + C y^2 + 2P x + 2R y <= k is where a Gaussian
    contributes, x and y being offsets from its mean."""
    k = 2 * reach
    zero = np.zeros_like(k)
    a, b, c = conics[:, 0], conics[:, 1], conics[:, 2]
    if projection == "ewa":
        return np.column_stack([a, b, c, zero, zero, k])
    p, q, e, f, g = conics[:, 3:].T
    return np.column_stack([a - k * e, b - k * f, c - k * g, -k * p, -k * q, k])


def _extents(conics: Array, reach: Array, means2d: Array, camera: Camera, projection: str) -> tuple[Array, Array]:
    """Offsets from the mean between which a Gaussian contributes, per axis. A region that is not an ellipse (the
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
