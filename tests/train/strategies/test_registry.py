"""Strategies are found by their names."""

from __future__ import annotations

import pytest

from stipple.errors import InputError
from stipple.train import make_config


def test_a_strategy_is_one_file() -> None:
    """What training does for it, it declares; the configuration finds it by its name."""
    from stipple.train.strategies import STRATEGIES, Traits
    from stipple.train.strategies.base import strategy
    from stipple.train.strategies.fixed import Fixed

    @strategy("mine")
    class Mine(Fixed):
        traits = Traits(regularisers=0.25, stop=0.125)

    try:
        config = make_config(None, {"density": {"strategy": "mine"}, "schedule": {"steps": 800}})
        assert (config.regularisers, config.last_change) == ((0.25, 0.25), 100)
    finally:
        del STRATEGIES["mine"]
    with pytest.raises(InputError, match=r"density\.strategy: expected one of default, .*mcmc.*got 'mine'"):
        make_config(None, {"density": {"strategy": "mine"}})
