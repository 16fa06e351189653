"""The state of training: parameters, moments and statistics stay consistent."""

from __future__ import annotations

import numpy as np

from stipple import Gaussians
from stipple.train.state import MOMENTS, NAMES, PARAMS, TrainingState


def small_state(count: int = 6, seed: int = 0) -> TrainingState:
    """Every array filled with numbers that tell rows and names apart."""
    rng = np.random.default_rng(seed)
    scene = Gaussians(
        rng.normal(size=(count, 3)),
        np.full((count, 3), -5.0),
        rng.normal(size=(count, 4)),
        rng.normal(size=count),
        rng.normal(size=(count, 4, 3)),
    )
    made = TrainingState.start(scene)
    for name in MOMENTS:
        made.arrays[name] = rng.uniform(1, 2, made[name].shape).astype(np.float32)
    return made


def test_rearranging_moves_all_arrays_and_clears_what_is_new() -> None:
    before, after = small_state(), small_state()
    rows, fresh = np.array([5, 0, 0]), np.array([False, False, True])
    after.rearrange(rows, fresh)
    assert after.count == 3
    for name in PARAMS:
        np.testing.assert_array_equal(after[name], before[name][rows])
    for name in MOMENTS:
        np.testing.assert_array_equal(after[name][:2], before[name][rows[:2]])
        assert not after[name][2].any()


def test_replacing_and_resetting_moments_leave_copies_alone() -> None:
    made = small_state()
    held = dict(made.arrays)
    values = {name: a.copy() for name, a in held.items()}
    made.replace("means", np.array([1]), np.ones((1, 3), np.float32))
    made.reset_moments(np.array([1]))
    made.widen(9)
    assert made["sh"].shape == (6, 9, 3)
    assert not made["sh"][:, 4:].any()
    for name in NAMES:
        np.testing.assert_array_equal(held[name], values[name])
    assert not made["m_means"][1].any()
    assert made["m_means"][0].any()
