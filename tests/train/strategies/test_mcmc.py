"""Relocation and growth of mcmc."""

from __future__ import annotations

import numpy as np
import pytest

import stipple
from captures import truth
from states import small_state
from stipple import Gaussians
from stipple.train import make_config
from stipple.train.state import TrainingState
from stipple.train.strategies import make_strategy
from stipple.train.strategies.mcmc import shared


def strategy(**density: object) -> tuple[object, object]:
    base = {"start": 100, "every": 100, "stop": 0.5, "reset_every": 300, "max_count": 1000}
    config = make_config(None, {"schedule": {"steps": 2000}, "density": {**base, **density}})
    return config, make_strategy(config)


RNG = np.random.default_rng


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
    p = TrainingState.start(scene, {})
    p.arrays["logit_opacities"][:15] = -9
    camera = made.cameras[0]
    before = stipple.render_view(p.scene(), camera, device="cpu").color
    _, rule = strategy(strategy="mcmc", growth=0.2)
    rule.apply(p, 100, RNG(3))  # type: ignore[attr-defined]
    after = stipple.render_view(p.scene(), camera, device="cpu").color
    assert p.count == 72
    assert np.abs(after - before).mean() < 0.01
    assert before.mean() > 0.05
