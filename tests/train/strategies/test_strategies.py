"""What holds for every strategy."""

from __future__ import annotations

import numpy as np
import pytest

from states import STATISTICS, small_state
from stipple.train import make_config
from stipple.train.state import EDITED, TrainingState
from stipple.train.strategies import STRATEGIES, make_strategy


def strategy(**density: object) -> tuple[object, object]:
    base = {"start": 100, "every": 100, "stop": 0.5, "reset_every": 300, "max_count": 1000}
    config = make_config(None, {"schedule": {"steps": 2000}, "density": {**base, **density}})
    return config, make_strategy(config)


RNG = np.random.default_rng


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "none"])
def test_when_strategies_are_due(name: str) -> None:
    _, made = strategy(strategy=name)
    due = [step for step in range(1, 2001) if made.due(step)]  # type: ignore[attr-defined]
    assert due == list(range(100, 1001, 100))
    _, never = strategy(strategy="none")
    assert not any(never.due(step) for step in range(1, 2001))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "none"])
def test_what_is_elsewhere_can_follow(name: str) -> None:
    """A state without SH and moments changes in the same way, and notes what becomes of those."""
    _, made = strategy(strategy=name, reset_every=100, growth=0.1)
    whole = small_state(60)
    whole.arrays["grad2d"] = np.arange(60, dtype=np.float32) % 3
    whole.arrays["visible_steps"] = np.full(60, 2, np.float32)
    whole.arrays["log_scales"][::4] = -2
    whole.arrays["logit_opacities"][::5] = -9
    whole.arrays["means"][7] = np.nan
    whole.arrays["sh"][11, 2, 1] = np.inf
    before = dict(whole.arrays)
    finite = np.isfinite(before["sh"]).all(axis=(1, 2))
    part = TrainingState({n: before[n] for n in (*EDITED, *STATISTICS)}, finite)
    for step in (100, 200):
        made.apply(whole, step, RNG(step))  # type: ignore[attr-defined]
        made.apply(part, step, RNG(step))  # type: ignore[attr-defined]
        np.testing.assert_array_equal(part.finite, whole.finite)
    assert whole.count != 60
    for array_name, array in whole.arrays.items():
        if array_name in part.arrays:
            np.testing.assert_array_equal(part[array_name], array, err_msg=array_name)
            continue
        followed = before[array_name][part.origin]
        if array_name != "sh":
            followed[part.reset[array_name[2:]]] = 0
        np.testing.assert_array_equal(followed, array, err_msg=array_name)


def test_strategies_depend_on_the_generator_alone() -> None:
    for name in ("default", "mcmc"):
        _, made = strategy(strategy=name)
        results = []
        for seed in (1, 1, 2):
            p = small_state(50)
            p.arrays["grad2d"][:] = 1
            p.arrays["log_scales"][:25] = -2
            made.apply(p, 100, RNG(seed))  # type: ignore[attr-defined]
            results.append(p["means"])
        np.testing.assert_array_equal(results[0], results[1])
        assert results[0].shape != results[2].shape or not np.array_equal(results[0], results[2])
