"""Density control that ends with a given number of Gaussians, after Mallick et al., "Taming 3DGS" (2024): the number
rises along a parabola, and the Gaussians with the highest scores are densified instead of those above a threshold."""

from __future__ import annotations

import numpy as np

from stipple.train.state import TrainingState
from stipple.train.strategies.base import strategy
from stipple.train.strategies.default import Array, Default


@strategy("budget")
class Budget(Default):
    """As ``default``, but each change clones or splits the Gaussians with the largest 2D gradients, as many as bring
    their number to ``max_count`` at the last change. The score is the gradient alone; ``grow_gradient`` is not used.
    """

    def growing(self, state: TrainingState, step: int, gradient: Array) -> Array:
        last = int(self.config.last_change) // self.density.every * self.density.every
        # the remaining number falls with the square of the time left, however many were pruned in between
        left = max(last - step, 0) / (last - step + self.density.every)
        number = round((self.density.max_count - state.count) * (1 - left**2))
        return np.argsort(-gradient, kind="stable")[: max(0, min(number, np.count_nonzero(gradient > 0)))]
