"""Noise on means, as in MCMC training: faint Gaussians explore, along their own extent."""

from __future__ import annotations

from stipple.ir.graph import Operandish, Value
from stipple.ir.op import OpDef, Operand, register
from stipple.ir.ops.structure import one

register(
    OpDef(
        "splat_noise",
        (
            Operand("means", "N 3"),
            Operand("quats", "N 4"),
            Operand("scales", "N 3"),
            Operand("opacities", "N"),
            Operand("amount", "", finite=True),
            Operand("key", "2", "i32"),
        ),
        ("means",),
        lambda c: [c.types[0]],
        "means + amount * gate(opacity) * covariance @ normal: the noise of MCMC training. The normals depend on "
        "key = (seed, step) and a Gaussian's index alone. Means stay where a Gaussian is not finite.",
        inplace={0: 0},
    )
)


def splat_noise(means: Value, quats: Value, scales: Value, opacities: Value, amount: Operandish, key: Value) -> Value:
    """Means [N, 3] moved at random by ``amount`` * gate * covariance @ normal (Kheradmand et al., "3D Gaussian
    Splatting as Markov Chain Monte Carlo", 2024).

    quats [N, 4] wxyz, scales [N, 3] linear, opacities [N] in [0, 1]; the gate is a sigmoid that lets faint Gaussians
    move and keeps opaque ones in place. ``key`` [2] i32 is (seed, step): the same key gives the same noise on every
    device, up to rounding. There is no gradient.
    """
    lifted = means.graph.lift(amount, means.dtype)
    return one("splat_noise", [means, quats, scales, opacities, lifted, key])
