"""A fixed number of Gaussians: those of the start."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from stipple.train.state import TrainingState
from stipple.train.strategies.base import Strategy, Traits, strategy


@strategy("none")
class Fixed(Strategy):
    """Changes nothing."""

    traits: ClassVar[Traits] = Traits(grows=False)

    def due(self, step: int) -> bool:
        del step
        return False

    def apply(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        raise AssertionError("never due")
