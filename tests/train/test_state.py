"""Editing Gaussians and their moments together; the strategies' rules."""

from __future__ import annotations

import numpy as np
import pytest

import stipple
from captures import truth
from stipple import Gaussians
from stipple.train import make_config
from stipple.train.state import EDITED, MOMENTS, NAMES, PARAMS, TrainingState
from stipple.train.strategies import make_strategy
from stipple.train.strategies.mcmc import shared


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


def strategy(**density: object) -> tuple[object, object]:
    base = {"start": 100, "every": 100, "stop": 0.5, "reset_every": 300, "max_count": 1000}
    config = make_config(None, {"schedule": {"steps": 2000}, "density": {**base, **density}})
    return config, make_strategy(config)


RNG = np.random.default_rng


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


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_when_strategies_are_due(name: str) -> None:
    _, made = strategy(strategy=name)
    due = [step for step in range(1, 2001) if made.due(step)]  # type: ignore[attr-defined]
    assert due == list(range(100, 1001, 100))
    _, never = strategy(strategy="none")
    assert not any(never.due(step) for step in range(1, 2001))  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("name", ["default", "mcmc"])
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
    part = TrainingState({n: before[n] for n in EDITED}, finite)
    for step in (100, 200):
        made.apply(whole, step, RNG(step))  # type: ignore[attr-defined]
        made.apply(part, step, RNG(step))  # type: ignore[attr-defined]
        np.testing.assert_array_equal(part.finite, whole.finite)
    assert whole.count != 60
    for array_name, array in whole.arrays.items():
        if array_name in EDITED:
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


# --- MCMC -------------------------------------------------------------------------------------------------
def test_copies_that_share_look_like_the_one() -> None:
    """Alphas over a line through the middle: one Gaussian, and n shared ones over each other."""
    x = np.linspace(-4, 4, 801)
    for opacity in (0.2, 0.7, 0.95):
        one = opacity * np.exp(-0.5 * x**2)
        for n in (2, 3, 5):
            new, factor = shared(np.array([opacity]), np.array([n]))
            parts = new * np.exp(-0.5 * (x / factor) ** 2)
            together = 1 - (1 - parts) ** n
            assert together[400] == pytest.approx(opacity, rel=1e-6)
            assert together.sum() == pytest.approx(one.sum(), rel=0.01), "the same light in all"
    new, factor = shared(np.array([0.5]), np.array([1]))
    assert (new[0], factor[0]) == (pytest.approx(0.5), pytest.approx(1.0))


def test_mcmc_relocates_the_dead_and_grows_to_the_limit() -> None:
    _, made = strategy(strategy="mcmc", max_count=63, growth=0.1)
    p = small_state(60)
    p.arrays["logit_opacities"] = np.full(60, 1.0, np.float32)
    p.arrays["logit_opacities"][:10] = -8
    p.arrays["means"][0] = np.nan
    made.apply(p, 100, RNG(0))  # type: ignore[attr-defined]
    assert p.count == 63
    assert p.scene().finite.all()
    assert p.opacities.min() > 0.005
    alive = {tuple(row) for row in p["means"][10:60]}
    assert {tuple(row) for row in p["means"][:10]} <= alive, "the dead stand upon the living"
    assert not p["m_means"][:10].any()
    made.apply(p, 200, RNG(1))  # type: ignore[attr-defined]
    assert p.count == 63


def test_relocation_keeps_the_picture() -> None:
    made = truth()
    scene = Gaussians.from_linear(made.points, 0.12, 0.5, made.colors / 255)
    p = TrainingState.start(scene)
    p.arrays["logit_opacities"][:15] = -9
    camera = made.cameras[0]
    before = stipple.render_view(p.scene(), camera, device="cpu").color
    _, rule = strategy(strategy="mcmc", growth=0.2)
    rule.apply(p, 100, RNG(3))  # type: ignore[attr-defined]
    after = stipple.render_view(p.scene(), camera, device="cpu").color
    assert p.count == 72
    assert np.abs(after - before).mean() < 0.01
    assert before.mean() > 0.05
