"""The noise of MCMC training, and the counter-based normals that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple import numerics as nx
from stipple.backends.host.geometry import normalise, rotation_matrices
from stipple.ir.graph import Node

Array = np.ndarray


def hash4(words: Sequence[Array]) -> list[Array]:
    """Four well-mixed words from four: pcg4d (Jarzynski and Olano, "Hash Functions for GPU Rendering", 2020)."""
    a, b, c, d = (w.astype(np.uint32) * np.uint32(nx.PCG_FACTOR) + np.uint32(nx.PCG_TERM) for w in words)
    for last in (False, True):
        a = a + b * d
        b = b + c * a
        c = c + a * b
        d = d + b * c
        if not last:
            a, b, c, d = (w ^ (w >> np.uint32(16)) for w in (a, b, c, d))
    return [a, b, c, d]


def normals(count: int, key: Array) -> Array:
    """Standard normals [count, 3] of a key (seed, step), by Box and Muller's transform."""
    index = np.arange(count, dtype=np.uint32)
    seed, step = (np.full(count, np.int64(k) & 0xFFFFFFFF, np.uint32) for k in key)
    u1, u2, u3, u4 = (((w >> np.uint32(8)) + 0.5) * 2.0**-24 for w in hash4([index, seed, step, np.zeros_like(index)]))
    r, s = np.sqrt(-2 * np.log(u1)), np.sqrt(-2 * np.log(u3))
    return np.stack([r * np.cos(2 * np.pi * u2), r * np.sin(2 * np.pi * u2), s * np.cos(2 * np.pi * u4)], axis=1)


def noise(node: Node, x: Sequence[Array], dims: Mapping[str, int]) -> Sequence[Array]:
    means, quats, scales, opacities, amount, key = x
    with np.errstate(all="ignore"):
        rotation = rotation_matrices(normalise(quats))
        local = np.einsum("nji,nj->ni", rotation, normals(len(means), key)) * scales**2
        gate = 1 / (1 + np.exp(nx.NOISE_STEEPNESS * (opacities - (1 - nx.NOISE_MIDDLE))))
        moved = means + amount * gate[:, None] * np.einsum("nij,nj->ni", rotation, local)
    return [np.where(np.isfinite(moved).all(axis=1, keepdims=True), moved, means)]
