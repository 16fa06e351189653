"""Growth to a given number of Gaussians."""

from __future__ import annotations

import numpy as np

from states import STATISTICS
from stipple import Gaussians
from stipple.train import make_config
from stipple.train.state import TrainingState
from stipple.train.strategies import make_strategy


def start(count: int) -> TrainingState:
    rng = np.random.default_rng(0)
    scene = Gaussians.from_linear(rng.normal(size=(count, 3)), 0.1, 0.5, rng.uniform(size=(count, 3)))
    state = TrainingState.start(scene, STATISTICS)
    state.arrays["visible_steps"] = np.full(count, 2, np.float32)
    return state


def budget(**density: object) -> tuple[object, ...]:
    layer = {"strategy": "budget", "start": 100, "every": 100, "stop": 0.5, "max_count": 500, "reset_every": 0}
    return make_strategy(make_config(None, {"schedule": {"steps": 2000}, "density": {**layer, **density}}))


def test_the_number_rises_along_a_parabola_to_the_maximum() -> None:
    strategy, state = budget(), start(100)
    counts = []
    for step in range(100, 1001, 100):
        assert strategy.due(step)  # type: ignore[attr-defined]
        state.arrays["grad2d"] = np.arange(state.count, dtype=np.float32) + 1
        strategy.apply(state, step, np.random.default_rng(step))  # type: ignore[attr-defined]
        counts.append(state.count)
    wanted = 500 - 400 * (1 - np.arange(1, 11) / 10) ** 2
    np.testing.assert_allclose(counts, wanted, atol=1)
    assert counts[-1] == 500


def test_what_pruning_takes_is_made_up_for() -> None:
    strategy, state = budget(), start(300)
    state.arrays["logit_opacities"][:200] = -9
    state.arrays["grad2d"][:] = 1
    strategy.apply(state, 900, np.random.default_rng(0))  # type: ignore[attr-defined]
    assert state.count < 500
    state.arrays["grad2d"][:] = 1
    before = state.count
    strategy.apply(state, 1000, np.random.default_rng(0))  # type: ignore[attr-defined]
    assert state.count == min(500, 2 * before), "each Gaussian at most once in a change"


def test_the_largest_gradients_are_densified() -> None:
    strategy, state = budget(max_count=103, start=1000), start(100)
    state.arrays["grad2d"] = np.random.default_rng(1).permutation(100).astype(np.float32)
    state.arrays["log_scales"][:] = -9  # small ones are cloned
    chosen = state["means"][state["grad2d"] >= 97]
    strategy.apply(state, 1000, np.random.default_rng(0))  # type: ignore[attr-defined]
    assert state.count == 103
    np.testing.assert_array_equal(np.sort(state["means"][100:], axis=0), np.sort(chosen, axis=0))


def test_without_gradients_nothing_grows() -> None:
    strategy, state = budget(), start(100)
    strategy.apply(state, 100, np.random.default_rng(0))  # type: ignore[attr-defined]
    assert state.count == 100
