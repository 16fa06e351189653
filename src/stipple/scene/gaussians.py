"""A scene: Gaussians as they are stored and trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stipple import numerics as nx
from stipple.errors import InputError
from stipple.scene.harmonics import rgb_to_sh, sh_degree

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N Gaussians in the form that is stored and trained: float32, contiguous, checked when made.

    means [N, 3] in world units; log_scales [N, 3], the logarithm of sigma; quats [N, 4] wxyz, of any length;
    logit_opacities [N], the inverse sigmoid of opacity; sh [N, K, 3] harmonics of degree 0 to 4 (K = 1, 4, 9,
    16, 25). Values may be NaN or infinite: such Gaussians are not drawn.
    """

    means: Array
    log_scales: Array
    quats: Array
    logit_opacities: Array
    sh: Array

    def __post_init__(self) -> None:
        count = len(np.asarray(self.means))
        shapes = {
            "means": (count, 3),
            "log_scales": (count, 3),
            "quats": (count, 4),
            "logit_opacities": (count,),
        }
        for name, shape in shapes.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), shape))
        sh = np.ascontiguousarray(self.sh, np.float32)
        if sh.ndim != 3 or len(sh) != count or sh.shape[2] != 3 or sh_degree(sh.shape[1]) is None:
            raise InputError(f"sh: expected shape [{count}, K, 3] with K = 1, 4, 9, 16 or 25, got {list(sh.shape)}")
        object.__setattr__(self, "sh", sh)

    @classmethod
    def from_linear(
        cls,
        means: ArrayLike,
        scales: ArrayLike,
        opacities: ArrayLike,
        colors: ArrayLike,
        quats: ArrayLike | None = None,
    ) -> Gaussians:
        """From linear values: scales > 0 as [N, 3], [N] or one number; opacities in (0, 1) as [N] or one number;
        colors [N, 3] in [0, 1]; quats the identity by default."""
        points = np.asarray(means, np.float32)
        count = len(points)
        sigma = np.asarray(scales, np.float32)
        spread = np.broadcast_to(sigma[:, None] if sigma.ndim == 1 else sigma, (count, 3))
        if count and not (spread > 0).all():
            raise InputError("scales: expected numbers > 0")
        alpha = np.broadcast_to(np.asarray(opacities, np.float32), (count,))
        if count and not ((alpha > 0) & (alpha < 1)).all():
            raise InputError("opacities: expected numbers between 0 and 1, both excluded")
        turns = (
            np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)) if quats is None else np.asarray(quats, np.float32)
        )
        sh = rgb_to_sh(np.asarray(colors, np.float32)).reshape(count, 1, 3)
        return cls(points, np.log(spread), turns, np.log(alpha / (1 - alpha)), sh)

    @property
    def count(self) -> int:
        return len(self.means)

    def __len__(self) -> int:
        return self.count

    @property
    def sh_degree(self) -> int:
        degree = sh_degree(self.sh.shape[1])
        assert degree is not None
        return degree

    @property
    def scales(self) -> Array:
        """Sigma [N, 3], linear."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.exp(self.log_scales))

    @property
    def opacities(self) -> Array:
        """Opacities [N] in [0, 1]."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(1 / (1 + np.exp(-self.logit_opacities)))

    @property
    def finite(self) -> Array:
        """Which Gaussians [N] hold only finite numbers."""
        parts = [self.means, self.log_scales, self.quats, self.logit_opacities[:, None]]
        flat = np.concatenate([*parts, self.sh.reshape(self.count, 3 * self.sh.shape[1])], axis=1)
        return np.asarray(np.isfinite(flat).all(axis=1))

    def bounds(self, share: float = 1.0) -> tuple[Array, Array]:
        """Lower and upper corner [3] of the box that holds the middle ``share`` of the finite means per axis."""
        means = self.means[np.isfinite(self.means).all(axis=1)]
        if not len(means):
            return np.zeros(3, np.float32), np.zeros(3, np.float32)
        edge = 50 * (1 - share)
        low, high = np.percentile(means, [edge, 100 - edge], axis=0)
        return np.asarray(low, np.float32), np.asarray(high, np.float32)

    def select(self, ids: ArrayLike) -> Gaussians:
        """Some Gaussians, by index or mask."""
        chosen = np.asarray(ids)
        fields = (self.means, self.log_scales, self.quats, self.logit_opacities, self.sh)
        return Gaussians(*(f[chosen] for f in fields))

    def with_sh_degree(self, degree: int) -> Gaussians:
        """The same Gaussians with harmonics cut to, or filled with zeros up to, a degree."""
        if not 0 <= degree <= nx.MAX_SH_DEGREE:
            raise InputError(f"degree: expected 0 to {nx.MAX_SH_DEGREE}, got {degree}")
        wanted = nx.sh_coeff_count(degree)
        sh = np.zeros((self.count, wanted, 3), np.float32)
        kept = min(wanted, self.sh.shape[1])
        sh[:, :kept] = self.sh[:, :kept]
        return Gaussians(self.means, self.log_scales, self.quats, self.logit_opacities, sh)


def _checked(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    try:
        array = np.ascontiguousarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected numbers of shape {list(shape)}: {error}") from None
    if array.shape != shape:
        raise InputError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
    return array
