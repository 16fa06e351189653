"""The training loop: steps, densification, checkpoints, evaluation, and the files that a run writes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stipple import __version__
from stipple.errors import OutOfMemoryError, StippleError
from stipple.formats import save_ply
from stipple.memory import memory_for
from stipple.runtime import Session
from stipple.train import schedule
from stipple.train.checkpoint import Checkpoint, checkpoint_bytes, save_checkpoint
from stipple.train.evaluation import Comparison, Score, evaluation_of, mean_scores
from stipple.train.metrics import MetricsLog, Row, rows_until
from stipple.train.problem import Problem
from stipple.train.progress import Meter
from stipple.train.resume import find_begun
from stipple.train.rundir import RunFolder, write_json
from stipple.train.stepper import Stepper
from stipple.train.stop import StopRequest, stop_on_signal
from stipple.train.trained_views import TrainedViews, evenly

_AHEAD = 8
_RUNNING = 100
_EVALUATED_ON_THE_WAY = 25
_RETRY = 100
_PICTURES = {"test": 8, "train": 3}


@dataclass
class Outcome:
    """How a run ended: after which step, by which signal if any, with which scores, pictures and rows of metrics."""

    step: int
    signal: int | None
    seconds: float
    scores: list[Score] = field(default_factory=list)
    pictures: list[Comparison] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class Trainer:
    """Trains a problem in a folder. ``capture`` is the path that the folder remembers for resuming."""

    def __init__(
        self, problem: Problem, folder: RunFolder, capture: str, device: str = "auto", meter: Meter | None = None
    ) -> None:
        self.problem, self.folder, self.capture, self.device = problem, folder, capture, device
        self.config, self.meter = problem.config, meter or Meter()
        self.session = Session(device)
        self.stepper = Stepper(self.session, self.config, len(problem.train))
        self.strategy = self.stepper.strategy
        self.views = TrainedViews(problem, self.stepper, device)
        self.step = 0
        self.seconds = 0.0
        self._errors: list[float] = []
        self._kept: int | None = None
        self._unsaved = self._unlogged = False

    # --- the whole run ------------------------------------------------------------------------------------
    def run(self, resume: bool = False) -> Outcome:
        """Train from the start, or from the folder's checkpoint; ends early on Ctrl-C or SIGTERM, with a checkpoint.

        Raises InputError or FileFormatError, before any step, if something is wrong with the capture or the folder, and
        OutOfMemoryError; the last checkpoint is kept.
        """
        with self.folder.held() as note:
            if note is not None:
                self.meter.note(note)
            begun = find_begun(self.folder, self.problem, self.capture, self.meter) if resume else None
            self.meter.loading(len(self.problem.views))
            with memory_for(f"{len(self.problem.views)} photos; a lower --image-memory streams more of them"):
                self.problem.load(self.meter.loaded_one)
            if self.problem.train.streamed:
                streamed = self.problem.train.streamed
                self.meter.note(f"{streamed} photos do not fit into the image memory and are streamed")
            if begun is None:
                self._start()
            else:
                self._go_on(begun)
            return self._train()

    def _train(self) -> Outcome:
        steps = self.config.schedule.steps
        self._evaluations = schedule.evaluation_steps(self.config)
        with stop_on_signal() as request:
            self.meter.training(self.step, steps)
            while self.step < steps and request.signal is None:
                with memory_for(self._step_in_words):
                    self._advance()
            if request.signal is not None and self.step < steps:
                self._save(final=True)
                return Outcome(self.step, request.signal, self.seconds)
            with memory_for(self._step_in_words):
                return self._finish(request)

    def _step_in_words(self) -> str:
        """For errors about memory: what it is needed for at this point, what is kept, and what helps."""
        view = self.problem.train.camera(0)
        what = f"step {self.step + 1}" if self.step < self.config.schedule.steps else "the scene and its evaluation"
        kept = "no checkpoint was written yet" if self._kept is None else f"the checkpoint of step {self._kept} is kept"
        return (
            f"{what} with {self.stepper.count:,} Gaussians and photos of about {view.width} x "
            f"{view.height}; {kept}; a larger --downscale or a lower --max-gaussians needs less"
        )

    # --- start and resume ---------------------------------------------------------------------------------
    def _start(self) -> None:
        with memory_for(f"the Gaussians to start from, at most {self.config.density.max_count:,}"):
            scene = self.problem.start()
            self.stepper.start(scene)
        folder = self.folder
        folder.need(2 * checkpoint_bytes(scene.count, self.config) - folder.held_bytes)
        folder.clear()
        self._warn_of_growth(scene.count)
        more = {
            "identity": self.problem.identity,
            "stipple": __version__,
            "kind": self.problem.capture.kind,
            "contents": self.problem.record(),
        }
        folder.write_description(self.capture, self.config, self.problem.normalization, more)
        self.metrics = MetricsLog(folder.metrics)

    def _warn_of_growth(self, count: int) -> None:
        """Warn where checkpoints of the maximum number of Gaussians would not fit on the disk."""
        density = self.config.density
        maximum = max(count, density.max_count) if density.traits.grows else count
        needed, free = 2 * checkpoint_bytes(maximum, self.config), self.folder.free_bytes
        if needed > free:
            self.meter.note(
                f"{self.folder.root}: {free / 1e6:.0f} MB are free, but checkpoints of {maximum:,} Gaussians, "
                f"the maximum, need {needed / 1e6:.0f} MB"
            )

    def _go_on(self, checkpoint: Checkpoint) -> None:
        folder = self.folder
        there = sum(p.stat().st_size for p in (folder.checkpoint, folder.older_checkpoint) if p.exists())
        folder.need(2 * checkpoint_bytes(len(checkpoint.arrays["means"]), self.config) - there)
        self.step, self.seconds, self._kept = checkpoint.step, checkpoint.seconds, checkpoint.step
        self._errors = list(checkpoint.errors)
        self.stepper.set_arrays(checkpoint.arrays)
        self.metrics = MetricsLog(folder.metrics)
        try:
            self.metrics.rows = rows_until(folder.metrics, self.step)
            self.metrics.rewrite()
        except OSError as error:
            self.meter.note(f"{folder.metrics}: {error.strerror or error}; the report's curves will have gaps")

    # --- steps --------------------------------------------------------------------------------------------
    def _advance(self) -> None:
        """Change the Gaussians if the last step made that due, take a step, and do what is due after it.

        The change waits for the next step, so that evaluations and the final scene use the Gaussians as trained, not
        with opacities that have just been reset.
        """
        started = time.perf_counter()
        if self.step and self.strategy.due(self.step):
            rng = np.random.default_rng([self.config.seed, 6, self.step])
            self.stepper.edit(lambda state: self.strategy.apply(state, self.step, rng))
        step, loader = self.step + 1, self.problem.train
        ahead = range(step, min(step + _AHEAD, self.config.schedule.steps + 1))
        if loader.streamed:
            loader.prefetch(schedule.view_at(self.config, s, len(loader)) for s in ahead)
        index = schedule.view_at(self.config, step, len(loader))
        camera = loader.camera(index)
        factor = schedule.factor_at(self.config, step, (camera.width, camera.height))
        values = self.stepper.run(step, index, loader.frame(index, factor))
        if not np.isfinite(values["loss"]):
            raise StippleError(
                f"step {step}: the loss is {values['loss']}; lower the learning rates; the last checkpoint is kept"
            )
        self.step = step
        self.seconds += time.perf_counter() - started
        self._report(values)

    def _report(self, values: dict[str, float]) -> None:
        """Metrics, meter, evaluation and checkpoint, where they are due."""
        step, output = self.step, self.config.output
        self._errors = [*self._errors[-_RUNNING + 1 :], values["mse"]]
        running = max(float(np.mean(self._errors)), 1e-10)
        shown = {**values, "psnr": float(-10 * np.log10(running)), "count": self.stepper.count}
        self.meter.step(step, shown)
        if step % output.log_every == 0:
            row = {k: round(v, 6) for k, v in shown.items() if k != "mse"}
            self._log({"step": step, **row, "seconds": round(self.seconds, 3)})
        if step in self._evaluations and step < self.config.schedule.steps and len(self.problem.test):
            scores = [c.score for c in self.views.compare(self.problem.test, "test", _EVALUATED_ON_THE_WAY)]
            means = {f"test_{k}": round(v, 5) for k, v in mean_scores(scores).items()}
            self._log({"step": step, **means})
            shown_means = ", ".join(f"{k.removeprefix('test_')} {v:.4g}" for k, v in means.items())
            self.meter.note(f"step {step}: held-out views: {shown_means}")
        if step % output.checkpoint_every == 0 or (self._unsaved and step % _RETRY == 0):
            self._save()

    def _log(self, row: dict[str, Any]) -> None:
        """Add a row to the metrics. A failure is reported once, until it works again."""
        try:
            self.metrics.add(row)
            self._unlogged = False
        except OSError as error:
            if not self._unlogged:
                self.meter.note(f"{self.metrics.path}: not written: {error.strerror or error}")
            self._unlogged = True

    def _save(self, final: bool = False) -> None:
        """Write a checkpoint. A failure is reported immediately and retried soon; at the end it is an error."""
        folder = self.folder
        try:
            with memory_for("a copy of the parameters"):
                arrays = self.stepper.arrays()
                checkpoint = Checkpoint(self.step, arrays, self.problem.identity, self.seconds, self._errors)
                save_checkpoint(checkpoint, folder.checkpoint, folder.older_checkpoint)
            self._unsaved, self._kept = False, self.step
        except (OSError, OutOfMemoryError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            text = (
                f"{folder.checkpoint}: the checkpoint of step {self.step} could not be written: {why}; the previous "
                "one is kept"
            )
            if final:
                raise StippleError(text) from None
            self._unsaved = True
            self.meter.note(f"{text}; training continues and will try again: free some space now")

    # --- the end ------------------------------------------------------------------------------------------
    def _finish(self, request: StopRequest) -> Outcome:
        """Write the scene and evaluate it; a signal ends the evaluation, which --resume repeats."""
        self._save(final=True)
        scene = self.problem.normalization.undo(self.stepper.scene())
        try:
            save_ply(scene, self.folder.scene)
            self.folder.write_cameras(self.views.cameras())
        except OSError as error:
            raise StippleError(
                f"{self.folder.root}: the scene could not be written: {error.strerror or error}; the checkpoint is "
                "kept: free some space and run again with --resume"
            ) from None
        self.folder.older_checkpoint.unlink(missing_ok=True)
        self.meter.evaluating(len(self.problem.views))
        scores, pictures = [], []
        for loader, split in self.views.loaders:
            kept = set(evenly(len(loader), _PICTURES[split]))
            for i, compared in enumerate(self.views.compare(loader, split, len(loader))):
                scores.append(compared.score)
                pictures += [compared] if i in kept else []
                self.meter.evaluated_one()
                if request.signal is not None:
                    return Outcome(self.step, request.signal, self.seconds)
        final = {
            f"{split}_{k}": round(v, 5)
            for split in ("test", "train")
            for k, v in mean_scores([s for s in scores if s.split == split]).items()
        }
        self._log({"step": self.step, "final": True, **final, "count": self.stepper.count})
        write_json(self.folder.evaluation, evaluation_of(scores))
        return Outcome(self.step, None, self.seconds, scores, pictures, self.metrics.rows)
