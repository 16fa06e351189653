"""The views of a run with their fitted poses and exposures: cameras, and comparisons of renders with photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stipple.scene.camera import Camera, rotation_of
from stipple.train.evaluation import Comparison, Evaluator
from stipple.train.loader import Loader
from stipple.train.problem import Problem
from stipple.train.stepper import Stepper

Array = np.ndarray


class TrainedViews:
    """Views of a problem with the poses and exposures that a stepper has fitted so far."""

    def __init__(self, problem: Problem, stepper: Stepper, device: str) -> None:
        self.problem, self.stepper, self.device = problem, stepper, device

    @property
    def loaders(self) -> tuple[tuple[Loader, str], ...]:
        return (self.problem.test, "test"), (self.problem.train, "train")

    def compare(self, loader: Loader, split: str, maximum: int) -> Iterator[Comparison]:
        """Compare views of a loader, at most ``maximum``, evenly chosen, with the scene as it is now."""
        evaluator, scene = Evaluator(self.problem.config, self.device), self.stepper.scene()
        for i in evenly(len(loader), maximum):
            camera, exposure = self._view(loader, split, i)
            yield evaluator.compare(scene, camera, loader.frame(i), loader.views[i].name, split, exposure)

    def cameras(self) -> list[tuple[str, str, Camera, Array | None]]:
        """Name, split, camera in the capture's own units and exposure of every view."""
        rows = []
        for loader, split in reversed(self.loaders):
            for i, view in enumerate(loader.views):
                camera, exposure = self._view(loader, split, i)
                rows.append((view.name, split, self.problem.normalization.undo_camera(camera), exposure))
        return rows

    def _view(self, loader: Loader, split: str, index: int) -> tuple[Camera, Array | None]:
        """The camera of a view, with what was fitted to it."""
        camera = loader.camera(index)
        if split != "train":
            return camera, None
        poses, exposure = self.stepper.fitted("poses"), self.stepper.fitted("exposure")
        if poses is not None:
            camera = posed(camera, poses[index])
        return camera, None if exposure is None else exposure[index].reshape(3, 4)


def evenly(count: int, maximum: int) -> list[int]:
    """At most ``maximum`` of ``count`` indices, evenly spread."""
    picked: list[int] = np.unique(np.linspace(0, count - 1, min(maximum, count)).round().astype(int)).tolist()
    return picked if count else []


def posed(camera: Camera, change: Array) -> Camera:
    """A camera after a pose correction (x, y, z of a quaternion with w = 1, then a translation)."""
    correction = np.eye(4)
    correction[:3, :3] = rotation_of([1.0, *change[:3]])
    correction[:3, 3] = change[3:]
    return replace(camera, viewmat=correction @ camera.viewmat)
