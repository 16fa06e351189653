"""The Gaussians of the start, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from stipple.train.state import TrainingState
from stipple.train.strategies.base import Traits, strategy

if TYPE_CHECKING:
    from stipple.train.config import Config


@strategy("none")
class Fixed:
    """Changes nothing."""

    traits: ClassVar[Traits] = Traits(grows=False)

    def __init__(self, config: Config) -> None:
        del config

    def due(self, step: int) -> bool:
        del step
        return False

    def apply(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        raise AssertionError("never due")
