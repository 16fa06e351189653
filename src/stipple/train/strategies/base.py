"""The interface of a strategy: the rule by which the number of Gaussians changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

import numpy as np

from stipple import ir
from stipple.train.section import Section
from stipple.train.state import MOMENTS, PARAMS, TrainingState

if TYPE_CHECKING:
    from stipple.train.config import Config


@dataclass(frozen=True)
class Traits:
    """What a strategy declares about itself."""

    regularisers: float = 0.0
    """The usual weight of the mean opacity, and of the mean scale, in the loss."""
    stop: float = 0.5
    """The usual share of steps after which the number of Gaussians is fixed."""
    grows: bool = True
    """Whether the number of Gaussians can grow."""
    statistics: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """What is kept of each Gaussian besides its parameters: float32 arrays by name, and the shape of a row. They are
    zero at the start and for new Gaussians, and checkpoints hold them."""
    settings: type[Section] = Section
    """The strategy's own values: they become values of the configuration's section ``density``, and options."""


class StepParts(NamedTuple):
    """What a strategy may build on in the graph of a training step: values before the step, for N Gaussians."""

    graph: ir.Graph
    width: int
    height: int
    """Of the step's photo."""
    means: ir.Value
    """[N, 3]."""
    quats: ir.Value
    """[N, 4], of any length."""
    scales: ir.Value
    """[N, 3]."""
    opacities: ir.Value
    """[N]."""
    visible: ir.Value
    """[N] bool: which are visible in the step's view."""
    gradients: Mapping[str, ir.Value]
    """Of the loss, by the names of the state's parameters."""
    statistics: Mapping[str, ir.Value]
    """Those that the strategy declares."""


class Strategy(ABC):
    """Edits the state of training after the steps at which it is due; draws only from the generator it is given.

    It may also add to every training step: statistics, and moves of the means beyond the optimiser's.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(self, config: Config) -> None:
        self.config, self.density = config, config.density

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether the Gaussians change after this step (counted from 1)."""

    @abstractmethod
    def apply(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        """Change the state in place."""

    def updated_statistics(self, parts: StepParts) -> Mapping[str, ir.Value]:
        """What the statistics become in a step, by name; those left out stay as they are."""
        del parts
        return {}

    def moved_means(self, parts: StepParts, means: ir.Value) -> ir.Value:
        """What the means [N, 3] become in a step; ``means`` are those that the optimiser has updated."""
        del parts
        return means

    def feeds(self, step: int, rates: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Values of the inputs that the strategy adds to a step's graph; ``rates`` are the step's learning rates, by
        the names of the state's parameters."""
        del step, rates
        return {}


STRATEGIES: dict[str, type[Strategy]] = {}
"""Every strategy by its name in configurations."""

_Class = TypeVar("_Class", bound=type[Strategy])


def strategy(name: str) -> Callable[[_Class], _Class]:
    """Decorator that makes a class a strategy of this name.

    Raises TypeError where one of its statistics has the name of another array of the state.
    """

    def register(kind: _Class) -> _Class:
        taken = sorted({*PARAMS, *MOMENTS} & set(kind.traits.statistics))
        if taken:
            raise TypeError(
                f"{kind.__module__}: a statistic cannot be called {taken[0]}, which the state holds already"
            )
        STRATEGIES[name] = kind
        return kind

    return register


def within(config: Config, step: int) -> bool:
    """Whether the number of Gaussians changes after a step: in the configured part of training, at regular
    intervals."""
    density = config.density
    return density.start <= step <= config.last_change and step % density.every == 0


def by_default(trait: str) -> str:
    """The values of a trait, in words: ``0.01 with mcmc, else 0``."""
    usual = getattr(Traits(), trait)
    others = {name: getattr(s.traits, trait) for name, s in STRATEGIES.items() if getattr(s.traits, trait) != usual}
    return ", ".join([*(f"{value:g} with {name}" for name, value in others.items()), f"else {usual:g}"])


def settings_of_strategies(common: type[Section]) -> tuple[type[Section], ...]:
    """The classes of all strategies' own values, each once.

    Raises TypeError if two of them, or one and ``common``, which all strategies share, declare the same name.
    """
    classes = tuple(dict.fromkeys(s.traits.settings for s in STRATEGIES.values() if s.traits.settings is not Section))
    taken = dict.fromkeys(common.model_fields, common.__qualname__)
    for kind in classes:
        for name in kind.model_fields:
            if name in taken:
                raise TypeError(f"{kind.__module__}: the value {name} is already declared by {taken[name]}")
            taken[name] = kind.__module__
    return classes[::-1]
