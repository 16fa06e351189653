"""The schedule: each step's view, photo size, SH degree and learning rates. All of it follows from the configuration
and the number of the step, so that a run can be resumed from any step."""

from __future__ import annotations

import numpy as np

from stipple import numerics as nx
from stipple.train.config import Config

Array = np.ndarray
_MIN_SIDE = 32


def view_at(config: Config, step: int, views: int) -> int:
    """The training view of a step, counted from 1: every view once per round, in an order shuffled by the seed."""
    round_, place = divmod(step - 1, views)
    return int(np.random.default_rng([config.seed, 3, round_]).permutation(views)[place])


def factor_at(config: Config, step: int, size: tuple[int, int]) -> int:
    """How many times photos of a size are reduced at a step; sides do not fall below 32 pixels."""
    share = (step - 1) / config.schedule.steps
    factor = next((f for f, until in config.schedule.coarse if share < until), 1)
    return max(1, min(factor, min(size) // _MIN_SIDE))


def degree_at(config: Config, step: int) -> int:
    """The SH degree at a step."""
    return min(config.schedule.sh_degree, (step - 1) // config.schedule.sh_every)


def rates_at(config: Config, step: int) -> dict[str, Array]:
    """Learning rates at a step, by parameter; that of means decays exponentially."""
    rates = config.rates
    progress = (step - 1) / config.schedule.steps
    sh = np.full((nx.sh_coeff_count(degree_at(config, step)), 3), rates.sh_rest, np.float32)
    sh[0] = rates.sh0
    return {
        "means": np.float32(rates.means * rates.means_final**progress),
        "log_scales": np.float32(rates.scales),
        "quats": np.float32(rates.quats),
        "logit_opacities": np.float32(rates.opacities),
        "sh": sh,
        "exposure": np.float32(rates.exposure * rates.means_final**progress),
        "poses": np.float32(rates.poses * rates.means_final**progress),
    }


def background_at(config: Config, step: int, transparent: bool) -> Array:
    """The colour behind everything at a step."""
    if config.loss.background == "random":
        return np.random.default_rng([config.seed, 4, step]).uniform(size=3).astype(np.float32)
    return fixed_background(config, transparent)


def fixed_background(config: Config, transparent: bool) -> Array:
    """The background for evaluation; with auto or random, white for photos with alpha, else black."""
    if isinstance(config.loss.background, tuple):
        return np.array(config.loss.background, np.float32)
    return np.full(3, 1.0 if transparent else 0.0, np.float32)


def evaluation_steps(config: Config) -> set[int]:
    """The steps after which held-out views are evaluated."""
    steps = config.schedule.steps
    every = config.output.evaluate_every or max(1, -(-steps // 5))
    return {*range(every, steps, every), steps}
