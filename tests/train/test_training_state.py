"""The state of training: parameters, moments and statistics stay consistent."""

from __future__ import annotations

import numpy as np

from states import STATISTICS, small_state
from stipple.train.state import MOMENTS, PARAMS


def test_rearranging_moves_all_arrays_and_clears_what_is_new() -> None:
    before, after = small_state(), small_state()
    for made in (before, after):
        made.arrays |= {name: np.arange(1, 7, dtype=np.float32) for name in STATISTICS}
    rows, fresh = np.array([5, 0, 0]), np.array([False, False, True])
    after.rearrange(rows, fresh)
    assert after.count == 3
    for name in PARAMS:
        np.testing.assert_array_equal(after[name], before[name][rows])
    for name in (*MOMENTS, *STATISTICS):
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
    for name, array in held.items():
        np.testing.assert_array_equal(array, values[name])
    assert not made["m_means"][1].any()
    assert made["m_means"][0].any()
