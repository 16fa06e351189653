"""What a strategy is: the rule by which the number of Gaussians changes."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from stipple.train.config import Config
from stipple.train.population import Population


class Strategy(Protocol):
    """Edits the population at the steps at which it is due; its only randomness is the generator it is given."""

    def due(self, step: int) -> bool:
        """Whether the population changes after this step (counted from 1)."""
        ...

    def apply(self, population: Population, step: int, rng: np.random.Generator) -> None:
        """Change the population in place."""
        ...


class Fixed:
    """The strategy ``none``: the Gaussians of the start, no others."""

    def __init__(self, config: Config) -> None:
        del config

    def due(self, step: int) -> bool:
        del step
        return False

    def apply(self, population: Population, step: int, rng: np.random.Generator) -> None:
        raise AssertionError("never due")


def within(config: Config, step: int) -> bool:
    """Whether a step lies in the part of the schedule in which the population changes, at one of its intervals."""
    density = config.density
    return density.start <= step <= config.last_change and step % density.every == 0
