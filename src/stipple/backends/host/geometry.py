"""Rotations and spherical harmonics with their derivatives, in NumPy."""

from __future__ import annotations

import numpy as np

from stipple import numerics as nx

Array = np.ndarray


# --- quaternions ------------------------------------------------------------------------------------------
def rotation_matrices(quats: Array) -> Array:
    """Rotation matrices [n, 3, 3] of unit quaternions wxyz [n, 4]."""
    w, x, y, z = quats.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def rotation_matrices_backward(quats: Array, v_matrices: Array) -> Array:
    """Gradient of unit quaternions from the gradient of their matrices, by the formula above."""
    w, x, y, z = quats.T
    zero = np.zeros_like(w)
    by_component = [
        [[zero, -z, y], [z, zero, -x], [-y, x, zero]],
        [[zero, y, z], [y, -2 * x, -w], [z, w, -2 * x]],
        [[-2 * y, x, w], [x, zero, z], [-w, z, -2 * y]],
        [[-2 * z, -w, x], [w, -2 * z, y], [x, y, zero]],
    ]
    jacobian = 2 * np.array(by_component)  # [4, 3, 3, n]
    return np.asarray(np.einsum("kijn,nij->nk", jacobian, v_matrices))


def normalise(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def normalise_backward(vectors: Array, v_unit: Array) -> Array:
    """Gradient through ``normalise``."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = vectors / length
    across = v_unit - unit * np.sum(unit * v_unit, axis=-1, keepdims=True)
    return np.asarray(across / length)


# --- SH ---------------------------------------------------------------------------------------------------
def sh_basis(directions: Array, degree: int) -> Array:
    """Basis values [n, K] for unit directions [n, 3]."""
    x, y, z = directions.T
    columns = [
        sum(c * x**i * y**j * z**k for c, i, j, k in terms) for terms in nx.SH_BASIS[: nx.sh_coeff_count(degree)]
    ]
    return np.stack([np.broadcast_to(c, x.shape) for c in columns], axis=1)


def sh_basis_gradient(directions: Array, degree: int) -> Array:
    """Derivatives [n, K, 3] of the basis with respect to x, y, z, from the same polynomials."""
    x, y, z = directions.T
    result = np.zeros((len(directions), nx.sh_coeff_count(degree), 3))
    for index, terms in enumerate(nx.SH_BASIS[: nx.sh_coeff_count(degree)]):
        for c, i, j, k in terms:
            if i:
                result[:, index, 0] += c * i * x ** (i - 1) * y**j * z**k
            if j:
                result[:, index, 1] += c * j * x**i * y ** (j - 1) * z**k
            if k:
                result[:, index, 2] += c * k * x**i * y**j * z ** (k - 1)
    return result
