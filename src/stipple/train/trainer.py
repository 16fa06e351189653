"""The training loop: steps, densification, checkpoints, evaluation, and what a run leaves behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stipple import __version__
from stipple.errors import InputError, StippleError
from stipple.formats import save_ply
from stipple.runtime import Session
from stipple.scene.camera import Camera
from stipple.train import schedule
from stipple.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stipple.train.config import Config
from stipple.train.evaluation import Comparison, Judge, Score, mean_scores
from stipple.train.feed import Feed
from stipple.train.population import MOMENTS, PARAMS, Population
from stipple.train.problem import Problem
from stipple.train.progress import Meter
from stipple.train.rundir import MetricsLog, RunFolder, write_json
from stipple.train.step_graph import rotation_basis
from stipple.train.stepper import Stepper
from stipple.train.stop import StopRequest, stop_on_signal
from stipple.train.strategies import make_strategy

Array = np.ndarray
_AHEAD = 8
_RUNNING = 100
_EVALUATED_ON_THE_WAY = 25
_RETRY = 100
_TEST_PICTURES, _TRAIN_PICTURES = 8, 3


@dataclass
class Outcome:
    """How a run ended: after which step, by which signal if any, with which scores and pictures."""

    step: int
    signal: int | None
    seconds: float
    scores: list[Score] = field(default_factory=list)
    pictures: list[Comparison] = field(default_factory=list)


class Trainer:
    """Trains a problem in a folder. ``capture`` is the path that the folder remembers for resuming."""

    def __init__(
        self, problem: Problem, folder: RunFolder, capture: str, device: str = "auto", meter: Meter | None = None
    ) -> None:
        self.problem, self.folder, self.capture, self.device = problem, folder, capture, device
        self.config, self.meter = problem.config, meter or Meter()
        self.session = Session(device)
        self.strategy = make_strategy(self.config)
        self.stepper = Stepper(self.session, self.config, len(problem.train))
        self.step = 0
        self.seconds = 0.0
        self._errors: list[float] = []
        self._unsaved = False

    # --- the whole run ------------------------------------------------------------------------------------
    def run(self, resume: bool = False) -> Outcome:
        """Train from the start, or from the folder's checkpoint; ends early on Ctrl-C or SIGTERM, with a checkpoint.

        Raises InputError or FileFormatError, before any step, for what is wrong with the capture or the folder.
        """
        checkpoint = load_checkpoint(self.folder.checkpoint) if resume else None
        if checkpoint is not None and checkpoint.run != self.problem.identity:
            raise InputError(
                f"{self.folder.root}: the checkpoint belongs to another configuration or other photos; the capture or "
                "config.toml was changed"
            )
        self.meter.loading(len(self.problem.train) + len(self.problem.test))
        self.problem.load(self.meter.loaded_one)
        if self.problem.train.streamed:
            self.meter.note(f"{self.problem.train.streamed} photos do not fit into the image memory and are streamed")
        self._begin(checkpoint)
        steps = self.config.schedule.steps
        with stop_on_signal() as request:
            self.meter.training(self.step, steps)
            while self.step < steps and request.signal is None:
                self._advance()
            if request.signal is not None and self.step < steps:
                self._save(final=True)
                return Outcome(self.step, request.signal, self.seconds)
            return self._finish(request)

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            self.step, self.seconds = checkpoint.step, checkpoint.seconds
            self.folder.make(_checkpoint_bytes(len(checkpoint.arrays["means"]), self.config))
            self.stepper.set_arrays(checkpoint.arrays)
        else:
            scene = self.problem.start()
            self.folder.make(_checkpoint_bytes(scene.count, self.config))
            self.folder.clear()
            self.stepper.start(Population.start(scene))
            more = {"identity": self.problem.identity, "stipple": __version__, "kind": self.problem.capture.kind}
            self.folder.write_description(self.capture, self.config, self.problem.normalization, more)
        self.metrics = MetricsLog(self.folder.metrics, self.step)
        self._evaluations = schedule.evaluation_steps(self.config)

    def _advance(self) -> None:
        """The population's change that the last step called for, a step, and what is due after it.

        The change waits for the next step, so that evaluations and the end see the scene as it was trained, not with
        opacities that were reset a moment ago.
        """
        started = time.perf_counter()
        if self.step and self.strategy.due(self.step):
            rng = np.random.default_rng([self.config.seed, 6, self.step])
            self.stepper.edit(lambda population: self.strategy.apply(population, self.step, rng))
        step, feed = self.step + 1, self.problem.train
        ahead = range(step, min(step + _AHEAD, self.config.schedule.steps + 1))
        if feed.streamed:
            feed.expect(schedule.view_at(self.config, s, len(feed)) for s in ahead)
        index = schedule.view_at(self.config, step, len(feed))
        camera = feed.camera(index)
        factor = schedule.factor_at(self.config, step, (camera.width, camera.height))
        values = self.stepper.run(step, index, feed.frame(index, factor))
        if not np.isfinite(values["loss"]):
            raise StippleError(
                f"step {step}: the loss is {values['loss']}; lower the learning rates; the last checkpoint is kept"
            )
        self.step = step
        self.seconds += time.perf_counter() - started
        self._tell(values)

    def _tell(self, values: dict[str, float]) -> None:
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
            scores = [c.score for c in self._compare(self.problem.test, "test", _EVALUATED_ON_THE_WAY)]
            means = {f"test_{k}": round(v, 5) for k, v in mean_scores(scores).items()}
            self._log({"step": step, **means})
            shown_means = ", ".join(f"{k.removeprefix('test_')} {v:.4g}" for k, v in means.items())
            self.meter.note(f"step {step}: held-out views: {shown_means}")
        if step % output.checkpoint_every == 0 or (self._unsaved and step % _RETRY == 0):
            self._save()

    def _log(self, row: dict[str, Any]) -> None:
        try:
            self.metrics.add(row)
        except OSError as error:
            self.meter.note(f"{self.metrics.path}: not written: {error.strerror or error}")

    def _save(self, final: bool = False) -> None:
        """Write a checkpoint. A failure is said at once and tried again soon; at the end it is an error."""
        checkpoint = Checkpoint(self.step, self.stepper.arrays(), self.problem.identity, self.seconds)
        try:
            save_checkpoint(checkpoint, self.folder.checkpoint)
            self._unsaved = False
        except OSError as error:
            text = (
                f"{self.folder.checkpoint}: the checkpoint of step {self.step} could not be written: "
                f"{error.strerror or error}; the one before is kept"
            )
            if final:
                raise StippleError(text) from None
            self._unsaved = True
            self.meter.note(f"{text}; training goes on and tries again, make room now")

    # --- the end ------------------------------------------------------------------------------------------
    def _finish(self, request: StopRequest) -> Outcome:
        self._save(final=True)
        scene = self.problem.normalization.undo(self.stepper.scene())
        try:
            save_ply(scene, self.folder.scene)
            self.folder.write_cameras(self._cameras())
        except OSError as error:
            raise StippleError(
                f"{self.folder.root}: the scene could not be written: {error.strerror or error}; the checkpoint is "
                "kept: make room and run again with --resume"
            ) from None
        self.meter.evaluating(len(self.problem.train) + len(self.problem.test))
        scores, pictures = [], []
        for feed, split, shown in (
            (self.problem.test, "test", _TEST_PICTURES),
            (self.problem.train, "train", _TRAIN_PICTURES),
        ):
            kept = set(_evenly(len(feed), shown))
            for i, compared in enumerate(self._compare(feed, split, len(feed))):
                scores.append(compared.score)
                pictures += [compared] if i in kept else []
                self.meter.evaluated_one()
        final = {
            f"{split}_{k}": round(v, 5)
            for split in ("test", "train")
            for k, v in mean_scores([s for s in scores if s.split == split]).items()
        }
        self._log({"step": self.step, "final": True, **final, "count": self.stepper.count})
        write_json(self.folder.evaluation, evaluation_of(scores))
        return Outcome(self.step, request.signal, self.seconds, scores, pictures)

    def judge(self) -> Judge:
        """How this run's views are judged."""
        background = schedule.fixed_background(self.config, self.problem.transparent)
        return Judge(background, self.config.loss.antialiased, self.device, self.config.extras.exposure)

    def _compare(self, feed: Feed, split: str, most: int) -> Iterator[Comparison]:
        """Views of a feed, evenly chosen where there are too many, with the scene as it is."""
        scene, judge = self.stepper.scene(), self.judge()
        for i in _evenly(len(feed), most):
            camera, exposure = self._view(feed, split, i)
            yield judge.compare(scene, camera, feed.frame(i), feed.views[i].name, split, exposure)

    def _view(self, feed: Feed, split: str, index: int) -> tuple[Camera, Array | None]:
        """The camera of a view, with what was fitted to it."""
        camera = feed.camera(index)
        if split != "train":
            return camera, None
        poses, exposure = self.stepper.fitted("poses"), self.stepper.fitted("exposure")
        if poses is not None:
            camera = posed(camera, poses[index])
        return camera, None if exposure is None else exposure[index].reshape(3, 4)

    def _cameras(self) -> list[tuple[str, str, Camera, Array | None]]:
        """Every view's camera in the capture's own units."""
        rows = []
        for feed, split in ((self.problem.train, "train"), (self.problem.test, "test")):
            for i, view in enumerate(feed.views):
                camera, exposure = self._view(feed, split, i)
                rows.append((view.name, split, self.problem.normalization.undo_camera(camera), exposure))
        return rows


def _evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, evenly spread."""
    picked: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()
    return picked if count else []


def posed(camera: Camera, change: Array) -> Camera:
    """A camera after a pose correction (x, y, z of a quaternion with w = 1, then a translation)."""
    quat = np.array([1.0, *change[:3]], np.float64)
    turn = np.eye(4)
    turn[:3, :3] = (rotation_basis() @ np.outer(quat, quat).ravel()).reshape(3, 3) / (quat @ quat)
    turn[:3, 3] = change[3:]
    return replace(camera, viewmat=turn @ camera.viewmat)


def evaluation_of(scores: list[Score]) -> dict[str, Any]:
    """Means by split, and every view."""
    splits = [s for s in ("test", "train") if any(x.split == s for x in scores)]
    means = {s: mean_scores([x for x in scores if x.split == s]) for s in splits}
    return {"mean": means, "views": [s.as_dict() for s in scores]}


def _checkpoint_bytes(count: int, config: Config) -> int:
    """What a checkpoint (kept twice while it is replaced) and the scene take on disk."""
    row = 11 + 3 * (config.schedule.sh_degree + 1) ** 2
    arrays = 1 + len(MOMENTS) // len(PARAMS)
    return 4 * row * count * (2 * arrays + 1)
