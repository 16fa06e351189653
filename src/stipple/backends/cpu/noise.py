"""The noise of MCMC training: counter-based normals, so that any block can start anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.quaternion import rotation
from stipple.backends.cpu.threads import Threads
from stipple.backends.host import checks
from stipple.ir.graph import Node

Array = np.ndarray
f4, u4 = np.float32, np.uint32
ONE, TWO, HALF = f4(1), f4(2), f4(0.5)
FACTOR, TERM = u4(nx.PCG_FACTOR), u4(nx.PCG_TERM)
SHIFT, TOP = u4(16), u4(8)
STEP = f4(2.0**-24)
TURN = f4(2 * math.pi)
STEEPNESS, MIDDLE = f4(nx.NOISE_STEEPNESS), f4(1 - nx.NOISE_MIDDLE)
_BLOCK = 8192


@inline
def hash4(a, b, c, d):
    """pcg4d, as in the reference backend."""
    a, b, c, d = u4(a * FACTOR + TERM), u4(b * FACTOR + TERM), u4(c * FACTOR + TERM), u4(d * FACTOR + TERM)
    a = u4(a + b * d)
    b = u4(b + c * a)
    c = u4(c + a * b)
    d = u4(d + b * c)
    a, b, c, d = u4(a ^ (a >> SHIFT)), u4(b ^ (b >> SHIFT)), u4(c ^ (c >> SHIFT)), u4(d ^ (d >> SHIFT))
    a = u4(a + b * d)
    b = u4(b + c * a)
    c = u4(c + a * b)
    d = u4(d + b * c)
    return a, b, c, d


@inline
def uniform(word):
    """A number in (0, 1) from the upper 24 bits."""
    return (f4(word >> TOP) + HALF) * STEP


@inline
def normals(index, seed, step):
    """Three standard normals of a Gaussian, by Box and Muller's transform."""
    a, b, c, d = hash4(u4(index), seed, step, u4(0))
    r, s = math.sqrt(-TWO * math.log(uniform(a))), math.sqrt(-TWO * math.log(uniform(c)))
    return r * math.cos(TURN * uniform(b)), r * math.sin(TURN * uniform(b)), s * math.cos(TURN * uniform(d))


@inline
def shift(x, i, noise, amount):
    """amount * gate(opacity) * covariance @ noise of Gaussian i."""
    n0, n1, n2 = noise
    w, a, b, c = x.quats[i, 0], x.quats[i, 1], x.quats[i, 2], x.quats[i, 3]
    length = math.sqrt(w * w + a * a + b * b + c * c)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(w / length, a / length, b / length, c / length)
    gate = amount / (ONE + math.exp(STEEPNESS * (x.opacities[i] - MIDDLE)))
    s0, s1, s2 = x.scales[i, 0], x.scales[i, 1], x.scales[i, 2]
    l0 = gate * s0 * s0 * (r00 * n0 + r10 * n1 + r20 * n2)
    l1 = gate * s1 * s1 * (r01 * n0 + r11 * n1 + r21 * n2)
    l2 = gate * s2 * s2 * (r02 * n0 + r12 * n1 + r22 * n2)
    return r00 * l0 + r01 * l1 + r02 * l2, r10 * l0 + r11 * l1 + r12 * l2, r20 * l0 + r21 * l1 + r22 * l2


class Gaussians(NamedTuple):
    """The operands that the noise depends on."""

    means: Array
    quats: Array
    scales: Array
    opacities: Array


class Noise(NamedTuple):
    """Its amount, and its key (seed, step)."""

    amount: np.float32
    seed: np.uint32
    step: np.uint32


_ROWS = "f4[:,::1]"
_GAUSSIANS_TYPE = record_type(Gaussians, _ROWS, _ROWS, _ROWS, "f4[::1]")


@kernel(("i8", "i8", _GAUSSIANS_TYPE, record_type(Noise, "f4", "u4", "u4"), _ROWS))
def perturb(start, end, x, noise, out):
    """Move means start to end; one that would become infinite or NaN stays."""
    for i in range(start, end):
        d0, d1, d2 = shift(x, i, normals(i, noise.seed, noise.step), noise.amount)
        m0, m1, m2 = x.means[i, 0] + d0, x.means[i, 1] + d1, x.means[i, 2] + d2
        if math.isfinite(m0) and math.isfinite(m1) and math.isfinite(m2):
            out[i, 0], out[i, 1], out[i, 2] = m0, m1, m2
        else:
            out[i, 0], out[i, 1], out[i, 2] = x.means[i, 0], x.means[i, 1], x.means[i, 2]


@dataclass(frozen=True)
class NoiseKernel:
    """Runs a splat_noise node."""

    node: Node
    threads: Threads
    name: str = "numba.splat_noise"
    owns_outputs: bool = False

    def check(self, inputs: Sequence[Array], dims: Mapping[str, int]) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(
        self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Mapping[str, int]
    ) -> Sequence[Array]:
        x = self.node.definition.named_operands(inputs)
        out = np.empty_like(x.means) if outputs[0] is None else outputs[0]
        noise = Noise(f4(x.amount), *(u4(int(k) & 0xFFFFFFFF) for k in x.key))
        gaussians = Gaussians(x.means, x.quats, x.scales, x.opacities)
        self.threads.blocks(len(x.means), _BLOCK, lambda a, b: perturb(a, b, gaussians, noise, out))
        return [out]
