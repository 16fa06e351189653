"""Strategies: how the number of Gaussians changes during training. Every module in this folder is registered."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from stipple.train.strategies.base import (
    STRATEGIES,
    StepParts,
    Strategy,
    Traits,
    by_default,
    settings_of_strategies,
)

if TYPE_CHECKING:
    from stipple.train.config import Config

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def make_strategy(config: Config) -> Strategy:
    """The strategy of a configuration."""
    return STRATEGIES[config.density.strategy](config)


__all__ = ["STRATEGIES", "StepParts", "Strategy", "Traits", "by_default", "make_strategy", "settings_of_strategies"]
