"""What a strategy is: the rule by which the number of Gaussians changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import numpy as np

from stipple.train.section import Section
from stipple.train.state import TrainingState

if TYPE_CHECKING:
    from stipple.train.config import Config


@dataclass(frozen=True)
class Traits:
    """What a strategy wants of the rest of training."""

    regularisers: float = 0.0
    """The usual weight of the mean opacity, and of the mean scale, in the loss."""
    stop: float = 0.5
    """The usual share of steps after which the number of Gaussians is fixed."""
    grows: bool = True
    """Whether the number of Gaussians can grow."""
    gradients: bool = False
    """Whether it reads the sums of the 2D means' gradients and in how many steps each Gaussian was visible (``grad2d``,
    ``visible_steps``), which training steps then keep."""
    noise: bool = False
    """Whether every step adds noise to the means."""
    settings: type[Section] = Section
    """The strategy's own values: they become values of the configuration's section ``density``, and options."""


class Strategy(Protocol):
    """Edits the state of training after the steps at which it is due; draws only from the generator it is given."""

    traits: ClassVar[Traits]

    def __init__(self, config: Config) -> None: ...

    def due(self, step: int) -> bool:
        """Whether the Gaussians change after this step (counted from 1)."""
        ...

    def apply(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        """Change the state in place."""
        ...


STRATEGIES: dict[str, type[Strategy]] = {}
"""Every strategy by the name that configurations give it."""

_Class = TypeVar("_Class", bound=type[Strategy])


def strategy(name: str) -> Callable[[_Class], _Class]:
    """Decorator that makes a class a strategy of this name."""

    def register(kind: _Class) -> _Class:
        STRATEGIES[name] = kind
        return kind

    return register


def within(config: Config, step: int) -> bool:
    """Whether a step lies in the part of the schedule in which the number of Gaussians changes, at an interval."""
    density = config.density
    return density.start <= step <= config.last_change and step % density.every == 0


def by_default(trait: str) -> str:
    """The values of a trait, in words: ``0.01 with mcmc, else 0``."""
    usual = getattr(Traits(), trait)
    others = {name: getattr(s.traits, trait) for name, s in STRATEGIES.items() if getattr(s.traits, trait) != usual}
    return ", ".join([*(f"{value:g} with {name}" for name, value in others.items()), f"else {usual:g}"])


def settings_of_strategies(common: type[Section]) -> tuple[type[Section], ...]:
    """The classes of all strategies' own values, none twice.

    Raises TypeError where two of them, or one and ``common``, which all strategies share, declare the same name.
    """
    classes = tuple(dict.fromkeys(s.traits.settings for s in STRATEGIES.values() if s.traits.settings is not Section))
    taken = dict.fromkeys(common.model_fields, common.__qualname__)
    for kind in classes:
        for name in kind.model_fields:
            if name in taken:
                raise TypeError(f"{kind.__module__}: the value {name} is already declared by {taken[name]}")
            taken[name] = kind.__module__
    return classes[::-1]
