"""Footprints by the local affine approximation (Zwicker et al., "EWA Splatting", 2002), forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stipple import numerics as nx
from stipple.backends.reference.camera import Camera, CameraGradient
from stipple.backends.reference.gaussians import Posed, PosedGradient

Array = np.ndarray


@dataclass
class EwaFootprints:
    """Conics [n, 3], compensation [n], which of them are valid, and what the backward pass needs."""

    valid: Array
    conics: Array
    compensation: Array
    factor: Array  # M = axes * scales [n, 3, 3]
    world_cov: Array
    jacobian: Array  # [n, 2, 3]
    image_cov: Array  # before eps2d
    det: Array  # of image_cov + eps2d
    ratio: Array  # of det(image_cov) to det


def footprints(posed: Posed, camera: Camera, eps2d: float, antialiased: bool) -> EwaFootprints:
    """Footprints of Gaussians in front of a camera."""
    factor = posed.axes * posed.scales[:, None, :]
    world_cov = factor @ np.swapaxes(factor, 1, 2)
    jacobian = camera.jacobian(posed.points)
    to_image = jacobian @ camera.rotation
    image_cov = to_image @ world_cov @ np.swapaxes(to_image, 1, 2)
    blurred = image_cov + eps2d * np.eye(2)
    # det(image_cov), as the squared area of two vectors: for a needle, the usual difference would be nothing but
    # rounding
    rows = to_image @ factor
    sharp = np.sum(np.cross(rows[:, 0], rows[:, 1]) ** 2, axis=1)
    det = sharp + eps2d * (np.trace(image_cov, axis1=1, axis2=2) + eps2d)
    conics = np.column_stack([blurred[:, 1, 1], -blurred[:, 0, 1], blurred[:, 0, 0]]) / det[:, None]
    ratio = sharp / det
    compensation = np.sqrt(np.maximum(ratio, nx.MIN_COMPENSATION)) if antialiased else np.ones(len(ratio))
    return EwaFootprints(det > 0, conics, compensation, factor, world_cov, jacobian, image_cov, det, ratio)


def footprints_backward(
    posed: Posed,
    camera: Camera,
    t: EwaFootprints,
    v_conics: Array,
    v_compensation: Array | None,
    into: CameraGradient,
) -> PosedGradient:
    """Gradients of Gaussians in front of a camera; ``v_compensation`` is None where it is the constant 1."""
    inverse = _symmetric(t.conics[:, 0], t.conics[:, 1], t.conics[:, 2])
    v_inverse = _symmetric(v_conics[:, 0], 0.5 * v_conics[:, 1], v_conics[:, 2])
    v_cov = -inverse @ v_inverse @ inverse
    if v_compensation is not None:
        v_cov = v_cov + _compensation_backward(t, inverse, v_compensation)
    to_image = t.jacobian @ camera.rotation
    v_to_image = 2 * v_cov @ to_image @ t.world_cov
    v_factor = 2 * np.swapaxes(to_image, 1, 2) @ v_cov @ to_image @ t.factor
    into.rotation += np.einsum("nki,nkj->ij", t.jacobian, v_to_image)
    v_points = camera.jacobian_backward(posed.points, v_to_image @ camera.rotation.T, into)
    return PosedGradient(v_points, v_factor * posed.scales[:, None, :], np.sum(v_factor * posed.axes, axis=1))


def _compensation_backward(t: EwaFootprints, inverse: Array, v_compensation: Array) -> Array:
    """Gradient of the covariance through sqrt(det(cov) / det(cov + eps2d)), 0 where that is clamped."""
    adjugate = _symmetric(t.image_cov[:, 1, 1], -t.image_cov[:, 0, 1], t.image_cov[:, 0, 0])
    slope = adjugate / t.det[:, None, None] - t.ratio[:, None, None] * inverse
    v_ratio = np.where(t.ratio > nx.MIN_COMPENSATION, v_compensation / (2 * t.compensation), 0.0)
    return np.asarray(v_ratio[:, None, None] * slope)


def _symmetric(xx: Array, xy: Array, yy: Array) -> Array:
    """Matrices [n, 2, 2] of three entries each."""
    return np.moveaxis(np.array([[xx, xy], [xy, yy]]), 2, 0)
