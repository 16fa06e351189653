"""Adaptive density control."""

from __future__ import annotations

import numpy as np
import pytest

from states import small_state
from stipple.train import make_config
from stipple.train.state import TrainingState
from stipple.train.strategies import make_strategy


def strategy(**density: object) -> tuple[object, object]:
    base = {"start": 100, "every": 100, "stop": 0.5, "reset_every": 300, "max_count": 1000}
    config = make_config(None, {"schedule": {"steps": 2000}, "density": {**base, **density}})
    return config, make_strategy(config)


RNG = np.random.default_rng


def test_growing_clones_small_and_splits_large() -> None:
    _, made = strategy()
    p = small_state()
    p.arrays["logit_opacities"] = np.full(6, 1.0, np.float32)
    p.arrays["log_scales"][4] = np.log([0.05, 0.02, 0.001])
    p.arrays["visible_steps"] = np.full(6, 10, np.float32)
    p.arrays["grad2d"] = np.array([0, 0, 0.1, 0, 0.1, 0], np.float32)
    before = TrainingState(p.arrays)
    made.apply(p, 100, RNG(0))  # type: ignore[attr-defined]
    assert p.count == 8
    np.testing.assert_array_equal(p["means"][:4], before["means"][[0, 1, 2, 3]])
    np.testing.assert_array_equal(p["means"][4], before["means"][5])
    np.testing.assert_array_equal(p["means"][5], before["means"][2], "a clone stands where it came from")
    np.testing.assert_allclose(p["log_scales"][6:], before["log_scales"][[4, 4]] - np.log(1.6), rtol=1e-5)
    assert not np.array_equal(p["means"][6], p["means"][7])
    assert np.linalg.norm(p["means"][6:] - before["means"][4], axis=1).max() < 5 * 0.05
    assert not p["m_means"][5:].any(), "what is new has no moments"
    assert p["m_means"][:5].all()
    assert not p["grad2d"].any()
    assert not p["visible_steps"].any()


def test_growth_stops_at_the_limit_with_the_strongest_first() -> None:
    _, made = strategy(max_count=8)
    p = small_state()
    p.arrays["logit_opacities"] = np.full(6, 1.0, np.float32)
    p.arrays["visible_steps"] = np.full(6, 1, np.float32)
    p.arrays["grad2d"] = np.array([5, 1, 4, 1, 1, 3], np.float32)
    before = p["means"].copy()
    made.apply(p, 100, RNG(0))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(p["means"][6:], before[[0, 2]])


def test_pruning_and_reset() -> None:
    _, made = strategy()
    p = small_state()
    p.arrays["logit_opacities"] = np.array([-9, 2, 2, -9, 2, -4.4], np.float32)
    p.arrays["log_scales"][1] = 0.0
    p.arrays["means"][4] = np.nan
    before = p["means"].copy()
    made.apply(p, 100, RNG(0))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(p["means"], before[[1, 2, 5]], "faint and broken ones are gone, the huge one is not")
    made.apply(p, 300, RNG(0))  # type: ignore[attr-defined]
    assert p.opacities.max() == pytest.approx(0.01)
    assert not p["m_logit_opacities"].any()
    p.arrays["logit_opacities"] = np.full(p.count, 1.0, np.float32)
    made.apply(p, 400, RNG(0))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(p["means"], before[[2, 5]], "after the first reset, huge ones go")
