"""How the number of Gaussians changes while they are trained."""

from collections.abc import Callable, Mapping

from stipple.train.config import Config
from stipple.train.strategies.base import Fixed, Strategy
from stipple.train.strategies.default import Default
from stipple.train.strategies.mcmc import Mcmc

STRATEGIES: Mapping[str, Callable[[Config], Strategy]] = {"default": Default, "mcmc": Mcmc, "none": Fixed}


def make_strategy(config: Config) -> Strategy:
    """The strategy that a configuration names."""
    return STRATEGIES[config.density.strategy](config)


__all__ = ["STRATEGIES", "Strategy", "make_strategy"]
