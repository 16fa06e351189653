"""What follows from the step's number: views, sizes, SH bands, rates, backgrounds."""

from __future__ import annotations

import numpy as np
import pytest

from stipple.train import make_config, schedule


def test_every_view_once_a_round() -> None:
    config = make_config(None)
    rounds = [[schedule.view_at(config, r * 7 + i, 7) for i in range(1, 8)] for r in range(5)]
    assert all(sorted(r) == list(range(7)) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    other = make_config(None, {"seed": 1})
    assert [schedule.view_at(other, i, 7) for i in range(1, 8)] != rounds[0]


def test_coarse_to_fine_bands_and_rates() -> None:
    config = make_config(None, {"schedule": {"steps": 100, "coarse": [[4, 0.1], [2, 0.5]], "sh_every": 30}})
    size = (640, 480)
    assert [schedule.factor_at(config, s, size) for s in (1, 10, 11, 50, 51, 100)] == [4, 4, 2, 2, 1, 1]
    assert schedule.factor_at(config, 1, (40, 70)) == 1, "small photos are not made smaller"
    assert [schedule.degree_at(config, s) for s in (1, 30, 31, 61, 91)] == [0, 0, 1, 2, 3]
    assert schedule.rates_at(config, 1)["means"] == pytest.approx(config.rates.means)
    last = schedule.rates_at(config, 101)
    assert last["means"] == pytest.approx(config.rates.means * config.rates.means_final, rel=1e-5)
    assert last["sh"].shape == (16, 3)
    assert last["sh"][0, 0] == pytest.approx(config.rates.sh0)
    assert schedule.evaluation_steps(config) == {20, 40, 60, 80, 100}


def test_backgrounds() -> None:
    assert schedule.background_at(make_config(None), 1, False).tolist() == [0, 0, 0]
    assert schedule.background_at(make_config(None), 1, True).tolist() == [1, 1, 1]
    random = make_config(None, {"loss": {"background": "random"}})
    assert not np.array_equal(schedule.background_at(random, 1, True), schedule.background_at(random, 2, True))
