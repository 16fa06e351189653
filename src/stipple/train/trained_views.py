"""The views of a run with what was fitted to them: their cameras, and how their renders compare with the photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stipple.scene.camera import Camera, rotation_of
from stipple.train import schedule
from stipple.train.evaluation import Comparison, Judge
from stipple.train.feed import Feed
from stipple.train.problem import Problem
from stipple.train.stepper import Stepper

Array = np.ndarray


class TrainedViews:
    """Views of a problem as a stepper has fitted them so far."""

    def __init__(self, problem: Problem, stepper: Stepper, device: str) -> None:
        self.problem, self.stepper, self.device = problem, stepper, device

    @property
    def feeds(self) -> tuple[tuple[Feed, str], ...]:
        return (self.problem.test, "test"), (self.problem.train, "train")

    def compare(self, feed: Feed, split: str, most: int) -> Iterator[Comparison]:
        """Views of a feed, evenly chosen where there are too many, with the scene as it is."""
        config = self.problem.config
        background = schedule.fixed_background(config, self.problem.transparent)
        judge = Judge(background, config.loss.antialiased, self.device, config.extras.exposure)
        scene = self.stepper.scene()
        for i in evenly(len(feed), most):
            camera, exposure = self._view(feed, split, i)
            yield judge.compare(scene, camera, feed.frame(i), feed.views[i].name, split, exposure)

    def cameras(self) -> list[tuple[str, str, Camera, Array | None]]:
        """Name, split, camera in the capture's own units and exposure of every view."""
        rows = []
        for feed, split in reversed(self.feeds):
            for i, view in enumerate(feed.views):
                camera, exposure = self._view(feed, split, i)
                rows.append((view.name, split, self.problem.normalization.undo_camera(camera), exposure))
        return rows

    def _view(self, feed: Feed, split: str, index: int) -> tuple[Camera, Array | None]:
        """The camera of a view, with what was fitted to it."""
        camera = feed.camera(index)
        if split != "train":
            return camera, None
        poses, exposure = self.stepper.fitted("poses"), self.stepper.fitted("exposure")
        if poses is not None:
            camera = posed(camera, poses[index])
        return camera, None if exposure is None else exposure[index].reshape(3, 4)


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, evenly spread."""
    picked: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()
    return picked if count else []


def posed(camera: Camera, change: Array) -> Camera:
    """A camera after a pose correction (x, y, z of a quaternion with w = 1, then a translation)."""
    correction = np.eye(4)
    correction[:3, :3] = rotation_of([1.0, *change[:3]])
    correction[:3, 3] = change[3:]
    return replace(camera, viewmat=correction @ camera.viewmat)
