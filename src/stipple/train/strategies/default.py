"""Adaptive density control (Kerbl et al., 2023), with the thresholds of gsplat's default strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from stipple import ir
from stipple.train.section import Section
from stipple.train.state import TrainingState
from stipple.train.strategies.base import StepParts, Strategy, Traits, strategy, within

Array = np.ndarray
_SPLIT_SHRINK = 1.6
_RESET_FACTOR = 2.0


class Settings(Section):
    """Thresholds of adaptive density control."""

    grow_gradient: float = Field(
        2e-4, gt=0, description="2D gradient above which Gaussians are cloned or split, in half image sizes"
    )
    absolute: bool = Field(
        False, description="sum absolute 2D gradients (AbsGS); then use a grow_gradient of about 8e-4"
    )
    split_scale: float = Field(0.01, gt=0, description="larger Gaussians are split, smaller ones cloned")
    prune_scale: float = Field(0.1, gt=0, description="larger Gaussians are removed, after the first opacity reset")
    reset_every: int = Field(3000, ge=0, description="steps between resets of the opacities; 0: never")


@strategy("default")
class Default(Strategy):
    """Gaussians with large 2D gradients are cloned, or split if they are large; faint and huge ones are removed;
    opacities are reset at intervals, so that those that are not needed fade."""

    traits: ClassVar[Traits] = Traits(statistics={"grad2d": (), "visible_steps": ()}, settings=Settings)

    def updated_statistics(self, parts: StepParts) -> Mapping[str, ir.Value]:
        """Sums over steps of the 2D means' gradients, in half image sizes; and steps in which each was visible."""
        result = "v_means2d_abs" if self.density.absolute else "v_means2d"
        gradient = ir.splat_backward_node(parts.graph).result(result)
        half = parts.graph.constant(np.array([parts.width / 2, parts.height / 2], np.float32))
        length = ir.sqrt(ir.sum(ir.square(gradient * half), 1))
        before = parts.statistics
        return {
            "grad2d": before["grad2d"] + length,
            "visible_steps": before["visible_steps"] + ir.cast(parts.visible, "f32"),
        }

    def due(self, step: int) -> bool:
        return within(self.config, step) or self._resets(step)

    def _resets(self, step: int) -> bool:
        every = self.density.reset_every
        return bool(every) and step % every == 0 and step < self.config.last_change

    def apply(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        if within(self.config, step):
            self._grow(state, step, rng)
            self._prune(state, step)
            state.clear_statistics()
        if self._resets(step):
            low = _RESET_FACTOR * self.density.prune_opacity
            logit = np.float32(np.log(low / (1 - low)))
            everyone = np.arange(state.count)
            state.replace("logit_opacities", everyone, np.minimum(state["logit_opacities"], logit))
            state.reset_moments(everyone, ("logit_opacities",))

    def growing(self, state: TrainingState, step: int, gradient: Array) -> Array:
        """Which Gaussians are cloned or split: those above the threshold, those with the largest gradients where not
        all of them fit. ``gradient`` [N] is the mean over the steps, 0 for what is not drawn."""
        del step
        above = np.flatnonzero(gradient > self.density.grow_gradient)
        capacity = max(self.density.max_count - state.count, 0)
        return above[np.argsort(-gradient[above], kind="stable")[:capacity]]

    def _grow(self, state: TrainingState, step: int, rng: np.random.Generator) -> None:
        drawn = (state["quats"] != 0).any(axis=1) & state.finite
        gradient = np.where(drawn, state["grad2d"] / np.maximum(state["visible_steps"], 1), 0)
        growing = np.sort(self.growing(state, step, gradient))
        if not len(growing):
            return
        large = state["log_scales"][growing].max(axis=1) > np.log(self.density.split_scale)
        cloned, split = growing[~large], growing[large]
        kept = np.setdiff1d(np.arange(state.count), split)
        offsets = _samples(state, np.concatenate([split, split]), rng)
        state.rearrange(
            np.concatenate([kept, cloned, split, split]),
            np.arange(len(kept) + len(cloned) + 2 * len(split)) >= len(kept),
        )
        parts = np.arange(state.count - 2 * len(split), state.count)
        state.replace("means", parts, state["means"][parts] + offsets)
        state.replace("log_scales", parts, state["log_scales"][parts] - np.float32(np.log(_SPLIT_SHRINK)))

    def _prune(self, state: TrainingState, step: int) -> None:
        gone = state.opacities < self.density.prune_opacity
        if self.density.reset_every and step > self.density.reset_every:
            gone |= state.scales.max(axis=1) > self.density.prune_scale
        gone |= ~state.finite
        kept = np.flatnonzero(~gone)
        if len(kept) and len(kept) < state.count:
            state.rearrange(kept, np.zeros(len(kept), bool))


def _samples(state: TrainingState, rows: Array, rng: np.random.Generator) -> Array:
    """A random offset within each of some Gaussians."""
    local = state.scales[rows] * rng.normal(size=(len(rows), 3))
    rotations = Rotation.from_quat(state["quats"][rows][:, [1, 2, 3, 0]].astype(np.float64))
    return np.asarray(rotations.apply(local), np.float32).reshape(-1, 3)
