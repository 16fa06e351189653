"""Running steps: compiled graphs by shape, and the parameters that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from stipple import numerics as nx
from stipple.formats.captures import Frame
from stipple.ir.graph import Graph
from stipple.runtime import Executable, Session
from stipple.scene.gaussians import Gaussians
from stipple.train import schedule
from stipple.train.config import Config
from stipple.train.edit_graphs import build_finite, build_rearrange
from stipple.train.state import EDITED, MOMENTS, PARAMS, TrainingState
from stipple.train.step_graph import METRICS, StepShape, build_step
from stipple.train.strategies import make_strategy

Array = np.ndarray
FITTED = {"exposure": 12, "poses": 6}


class Stepper:
    """Holds a run's parameters on the device and takes steps.

    A graph is built and compiled once for each size of photo and SH degree; the number of Gaussians is
    free in all of them.
    """

    def __init__(self, session: Session, config: Config, views: int) -> None:
        self.session, self.config, self.views = session, config, views
        self.strategy = make_strategy(config)
        self._statistics = self.strategy.traits.statistics
        self._compiled: dict[StepShape, Executable] = {}
        self._edits: dict[str, Executable] = {}
        self._params = session.params()
        self._coefficients = 0
        self.count = 0
        self.executable: Executable | None = None
        """The executable of the last step, for reports and timings."""

    # --- parameters ---------------------------------------------------------------------------------------
    def start(self, scene: Gaussians) -> None:
        """Start with these Gaussians, and with the exposures and poses of the capture."""
        state = TrainingState.start(scene, self._statistics)
        fitted = {n: np.zeros((self.views, w), np.float32) for n, w in FITTED.items() if self._fits(n)}
        moments = {f"{kind}_{n}": np.zeros_like(a) for n, a in fitted.items() for kind in ("m", "v")}
        self.set_arrays({**state.arrays, **fitted, **moments})

    def _fits(self, name: str) -> bool:
        return bool(getattr(self.config.extras, name))

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Replace parameters."""
        for name, array in arrays.items():
            self._params.set(name, array)
        self.count, self._coefficients = self._params.shape("sh")[:2]

    def arrays(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Copies of all parameters, or of some."""
        return {name: self._params.get(name) for name in (self._params.names if names is None else names)}

    def state(self) -> TrainingState:
        """A copy of the Gaussians with their moments and statistics."""
        return TrainingState(self.arrays((*PARAMS, *MOMENTS, *self._statistics)))

    def scene(self) -> Gaussians:
        """A copy of the Gaussians."""
        return Gaussians(**self.arrays(PARAMS))

    def fitted(self, name: str) -> Array | None:
        """Exposures or pose corrections, where they are fitted."""
        return self._params.get(name) if name in self._params else None

    def edit(self, change: Callable[[TrainingState], None]) -> None:
        """Apply a change to the state. Arrays that are only rearranged stay on the device."""
        finite = self._run_edit("finite", build_finite, {})["finite"]
        state = TrainingState(self.arrays((*EDITED, *self._statistics)), finite)
        change(state)
        reset = {f"reset_{name}": rows for name, rows in state.reset.items()}
        self._run_edit("rearrange", build_rearrange, {"rows": state.origin.astype(np.int32), **reset})
        self.set_arrays(state.arrays)

    def _run_edit(self, name: str, build: Callable[[int], Graph], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run another graph on the parameters."""
        key = f"{name} {self._coefficients}"
        if key not in self._edits:
            self._edits[key] = self.session.compile(build(self._coefficients), params=self._params)
        return self._edits[key].run(feeds)

    # --- steps --------------------------------------------------------------------------------------------
    def _executable(self, shape: StepShape) -> Executable:
        if shape not in self._compiled:
            self._compiled[shape] = self.session.compile(
                build_step(self.config, self.strategy, shape), params=self._params
            )
        return self._compiled[shape]

    def _widen(self, coefficients: int) -> None:
        """Add SH coefficients of a higher degree. Graphs of the lower one are not used again."""
        state = self.state()
        state.widen(coefficients)
        self.set_arrays(state.arrays)
        self._compiled.clear()
        self._edits.clear()

    def run(self, step: int, index: int, frame: Frame, timings: bool = False) -> dict[str, float]:
        """Take a step (counted from 1) on a training view's frame: loss, l1, ssim and mse before the step."""
        degree = schedule.degree_at(self.config, step)
        coefficients = nx.sh_coeff_count(degree)
        if self._coefficients < coefficients:
            self._widen(coefficients)
        camera = frame.camera
        depth = frame.depth is not None and self.config.loss.depth > 0
        shape = StepShape(
            width=camera.width,
            height=camera.height,
            sh_degree=degree,
            channels=frame.pixels.shape[2],
            masked=frame.mask is not None,
            depth=depth,
            views=self.views,
            camera_model=camera.model,
            distortion=len(camera.distortion),
        )
        executable = self.executable = self._executable(shape)
        out = executable.run(self._feeds(executable, step, index, frame), timings=timings)
        return {name: float(value) for name, value in zip(METRICS, out["metrics"], strict=True)}

    def _feeds(self, executable: Executable, step: int, index: int, frame: Frame) -> dict[str, Any]:
        config, inputs = self.config, executable.graph.inputs
        rates = schedule.rates_at(config, step)
        feeds: dict[str, Any] = {
            "pixels": frame.pixels,
            "viewmat": frame.camera.viewmat.astype(np.float32),
            "intrinsics": frame.camera.intrinsics.astype(np.float32),
            "distortion": np.array(frame.camera.distortion, np.float32),
            "background": schedule.background_at(config, step, frame.transparent),
            "step": np.float32(step),
            "mask": None if frame.mask is None else frame.mask[:, :, None],
            "depth": frame.depth,
            "view": np.array([index], np.int32),
            "chosen": np.arange(self.views) == index,
            **{f"lr_{name}": rate for name, rate in rates.items()},
            **self.strategy.feeds(step, rates),
        }
        return {name: feeds[name] for name in inputs}
