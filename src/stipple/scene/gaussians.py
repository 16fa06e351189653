"""A scene: Gaussians as they are stored and trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple import numerics as nx
from stipple.errors import InputError
from stipple.scene.sh import rgb_to_sh, sh_degree

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N Gaussians in the form that is stored and trained: float32, contiguous, checked on creation.

    means [N, 3] in world units; log_scales [N, 3], the logarithm of sigma; quats [N, 4] wxyz, of any length;
    logit_opacities [N], the inverse sigmoid of opacity; sh [N, K, 3], SH of degree 0 to 4 (K = 1, 4, 9,
    16, 25). Values may be NaN or infinite: such Gaussians are not drawn.
    """

    means: Array
    log_scales: Array
    quats: Array
    logit_opacities: Array
    sh: Array

    def __post_init__(self) -> None:
        count = len(arguments.array("means", self.means, ("N", 3)))
        shapes: dict[str, tuple[int | str, ...]] = {
            "means": (count, 3),
            "log_scales": (count, 3),
            "quats": (count, 4),
            "logit_opacities": (count,),
            "sh": (count, "K", 3),
        }
        for name, shape in shapes.items():
            object.__setattr__(self, name, arguments.array(name, getattr(self, name), shape))
        if sh_degree(self.sh.shape[1]) is None:
            raise InputError(
                f"sh: expected shape [{count}, K, 3] with K = 1, 4, 9, 16 or 25, got {list(self.sh.shape)}"
            )

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
        points = arguments.array("means", means, ("N", 3))
        count = len(points)
        sigma = _one_or_each("scales", scales, [(), (count,), (count, 3)])
        spread = np.broadcast_to(sigma[:, None] if sigma.ndim == 1 else sigma, (count, 3))
        if not (spread > 0).all():
            raise InputError(f"scales: expected numbers > 0, got {spread.min()}")
        alpha = np.broadcast_to(_one_or_each("opacities", opacities, [(), (count,)]), (count,))
        if not ((alpha > 0) & (alpha < 1)).all():
            raise InputError("opacities: expected numbers between 0 and 1, both excluded (in float32)")
        identity = np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))
        rotations = identity if quats is None else arguments.array("quats", quats, (count, 4))
        sh = rgb_to_sh(arguments.array("colors", colors, (count, 3), finite=True))[:, None]
        return cls(points, np.log(spread), rotations, np.log(alpha / (1 - alpha)), sh)

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
        share = arguments.number("share", share, minimum=0, maximum=1)
        means = self.means[np.isfinite(self.means).all(axis=1)]
        if not len(means):
            return np.zeros(3, np.float32), np.zeros(3, np.float32)
        edge = 50 * (1 - share)
        low, high = np.percentile(means, [edge, 100 - edge], axis=0)
        return np.asarray(low, np.float32), np.asarray(high, np.float32)

    def select(self, ids: ArrayLike) -> Gaussians:
        """Some Gaussians, by index or mask."""
        chosen = _chosen(ids, self.count)
        fields = (self.means, self.log_scales, self.quats, self.logit_opacities, self.sh)
        return Gaussians(*(f[chosen] for f in fields))

    def with_sh_degree(self, degree: int) -> Gaussians:
        """The same Gaussians with SH cut to, or filled with zeros up to, a degree."""
        coefficients = nx.sh_coeff_count(arguments.integer("degree", degree, 0, nx.MAX_SH_DEGREE))
        sh = np.zeros((self.count, coefficients, 3), np.float32)
        kept = min(coefficients, self.sh.shape[1])
        sh[:, :kept] = self.sh[:, :kept]
        return Gaussians(self.means, self.log_scales, self.quats, self.logit_opacities, sh)


def _one_or_each(name: str, value: ArrayLike, shapes: Sequence[tuple[int, ...]]) -> Array:
    """A finite array of one of the shapes: one number for all Gaussians, or values for each."""
    given = arguments.read(name, value)
    if given.shape not in shapes:
        expected = " or ".join(str(list(shape)) if shape else "one number" for shape in shapes)
        raise InputError(f"{name}: expected {expected}, got shape {list(given.shape)}")
    return arguments.array(name, given, given.shape, finite=True)


def _chosen(ids: ArrayLike, count: int) -> Array:
    """Indices or a mask into ``count`` Gaussians."""
    given = arguments.read("ids", ids, "iub", "indices or a mask")
    if given.dtype == bool and given.shape == (count,):
        return given
    if given.shape == (0,):
        return np.zeros(0, np.intp)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InputError(f"ids: expected indices [M] or a mask [{count}], got {arguments.shown(ids)}")
    if given.min() < -count or given.max() >= count:
        raise InputError(f"ids: expected indices below {count}, got {given.min()} to {given.max()}")
    return given
