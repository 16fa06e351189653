"""States of training for the tests of what edits them."""

from __future__ import annotations

import numpy as np

from stipple import Gaussians
from stipple.train.state import MOMENTS, TrainingState

STATISTICS = {"grad2d": (), "visible_steps": ()}


def small_state(count: int = 6, seed: int = 0) -> TrainingState:
    """Parameters and moments filled with numbers that tell rows and names apart; statistics zero."""
    rng = np.random.default_rng(seed)
    scene = Gaussians(
        rng.normal(size=(count, 3)),
        np.full((count, 3), -5.0),
        rng.normal(size=(count, 4)),
        rng.normal(size=count),
        rng.normal(size=(count, 4, 3)),
    )
    made = TrainingState.start(scene, STATISTICS)
    for name in MOMENTS:
        made.arrays[name] = rng.uniform(1, 2, made[name].shape).astype(np.float32)
    return made
