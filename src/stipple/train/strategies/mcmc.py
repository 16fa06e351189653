"""Training as sampling (Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import ClassVar

import numpy as np
from pydantic import Field

from stipple import ir
from stipple.train.section import Section
from stipple.train.state import TrainingState
from stipple.train.strategies.base import StepParts, Strategy, Traits, strategy, within

Array = np.ndarray
_MAX_COPIES = 51
_MAX_OPACITY = 1 - 1e-6


class Settings(Section):
    """Growth and noise."""

    growth: float = Field(0.05, ge=0, le=1, description="share of Gaussians that mcmc adds each time, up to max_count")
    noise: float = Field(
        5e5, ge=0, description="mcmc: amount of noise on the means, as a factor of their learning rate"
    )


@strategy("mcmc")
class Mcmc(Strategy):
    """Grows steadily to a fixed number of Gaussians; those that have faded are moved onto ones that have not, so that
    the image does not change; noise on the means explores."""

    traits: ClassVar[Traits] = Traits(regularisers=0.01, stop=0.8, settings=Settings)

    def moved_means(self, parts: StepParts, means: ir.Value) -> ir.Value:
        amount, key = parts.graph.input("noise_amount", []), parts.graph.input("noise_key", [2], "i32")
        return ir.splat_noise(means, parts.quats, parts.scales, parts.opacities, amount, key)

    def feeds(self, step: int, rates: Mapping[str, Array]) -> Mapping[str, Array]:
        amount = np.asarray(rates["means"] * self.density.noise, np.float32)
        return {"noise_amount": amount, "noise_key": np.array([self.config.seed, step], np.int32)}

    def due(self, step: int) -> bool:
        return within(self.config, step)

    def apply(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        self._relocate(state, rng)
        self._add(state, rng)

    def _relocate(self, state: TrainingState, rng: np.random.Generator) -> None:
        opacities = state.opacities
        finite = state.finite
        dead = np.flatnonzero((opacities <= self.density.prune_opacity) | ~finite)
        alive = np.flatnonzero((opacities > self.density.prune_opacity) & finite)
        if not len(dead) or not len(alive):
            return
        hosts = self._choose(state, alive, len(dead), rng)
        self._share(state, hosts)
        rows = np.arange(state.count)
        rows[dead] = hosts
        fresh = np.zeros(state.count, bool)
        fresh[dead] = True
        state.rearrange(rows, fresh)
        state.reset_moments(np.unique(hosts))

    def _add(self, state: TrainingState, rng: np.random.Generator) -> None:
        wanted = min(self.density.max_count, int((1 + self.density.growth) * state.count))
        number = wanted - state.count
        alive = np.flatnonzero(state.finite)
        if number <= 0 or not len(alive):
            return
        hosts = self._choose(state, alive, number, rng)
        self._share(state, hosts)
        before = state.count
        rows = np.concatenate([np.arange(before), hosts])
        state.rearrange(rows, np.arange(len(rows)) >= before)

    @staticmethod
    def _choose(state: TrainingState, among: Array, number: int, rng: np.random.Generator) -> Array:
        weights = state.opacities[among]
        return np.asarray(rng.choice(among, number, p=weights / weights.sum()))

    def _share(self, state: TrainingState, hosts: Array) -> None:
        """Set each host's opacity and size so that it and its copies together look like the host did alone."""
        rows, copies = np.unique(hosts, return_counts=True)
        opacity, factor = shared(state.opacities[rows], copies + 1)
        opacity = np.clip(opacity, self.density.prune_opacity, _MAX_OPACITY)
        state.replace("logit_opacities", rows, np.log(opacity / (1 - opacity)).astype(np.float32))
        scales = state["log_scales"][rows] + np.log(factor)[:, None]
        state.replace("log_scales", rows, scales.astype(np.float32))


def shared(opacities: Array, numbers: Array) -> tuple[Array, Array]:
    """Opacity of each of ``numbers`` equal Gaussians in one place that replace one, and the factor for its scales
    (equations 8 and 9 of the paper)."""
    numbers = np.minimum(numbers, _MAX_COPIES)
    new = 1 - (1 - np.minimum(opacities, _MAX_OPACITY)) ** (1 / numbers)
    total = np.zeros(len(new))
    for i in range(1, int(numbers.max(initial=0)) + 1):
        term = sum(comb(i - 1, k) * (-1) ** k / np.sqrt(k + 1) * new ** (k + 1) for k in range(i))
        total += np.where(i <= numbers, term, 0.0)
    return new, opacities / np.maximum(total, 1e-12)
