"""A run that has ended, evaluated again from its folder and its capture: what ``stipple eval`` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stipple.errors import FileFormatError, StippleError
from stipple.formats import load_scene
from stipple.formats.captures import View, load_frame, open_capture
from stipple.memory import memory_for
from stipple.train.evaluation import Comparison, Evaluator, Lpips
from stipple.train.fingerprint import Contents, compare
from stipple.train.problem import capture_options
from stipple.train.report import error_colors
from stipple.train.rundir import RunFolder

SplitView = tuple[View, str]
"""A view, and its split: test or train."""


class FinishedRun:
    """The scene, cameras and capture of a run, read from its folder.

    Raises InputError if the folder holds no run or the capture is not valid, FileFormatError, naming the file, if
    something is broken.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.config, self._described = folder.read_description()
        self.cameras, self.scene = folder.read_cameras(), load_scene(folder.scene)
        self.capture = open_capture(self._described["capture"], capture_options(self.config.data))

    def views(self, with_train: bool) -> list[SplitView]:
        """The held-out views, and the training views if ``with_train``."""
        train, test = self.capture.split(self.config.data.test_every)
        chosen = [(i, "test") for i in test] + ([(i, "train") for i in train] if with_train else [])
        return [(self.capture.views[i], split) for i, split in chosen]

    def changes(self, views: Iterable[SplitView]) -> list[str]:
        """What differs between the capture now and the one that the run was trained on, as sentences; photos are
        compared for these views only."""
        contents, found = Contents(), []
        try:
            record = self._described.get("contents", {})
            for name, digests in compare(self.capture, self.capture.views, record).items():
                contents.expect(name, digests)
        except StippleError as error:
            found.append(str(error))
        for view, _ in views:
            try:
                contents.check(view)
            except FileFormatError as error:
                found.append(str(error))
        return found

    def compare(
        self, views: Iterable[SplitView], device: str = "auto", lpips: Lpips | None = None
    ) -> Iterator[Comparison]:
        """Render one view after the other and compare it with its photo. Raises OutOfMemoryError, naming the view."""
        evaluator = Evaluator(self.config, device, lpips)
        for view, split in views:
            size = f"{view.camera.width} x {view.camera.height}"
            with memory_for(f"{view.name}, {size} pixels, and {self.scene.count:,} Gaussians"):
                frame = load_frame(view, self.config.data.downscale)
                camera, exposure = self.cameras.get(view.name, (frame.camera, None))
                compared = evaluator.compare(self.scene, camera, frame, view.name, split, exposure)
            yield compared


def save_comparison(compared: Comparison, folder: Path) -> None:
    """Write a view's photo, render and error map into a folder, as NAME.photo.png, NAME.render.png, NAME.error.png."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = compared.score.name.replace("/", "_").rsplit(".", 1)[0]
    error = error_colors(np.abs(compared.image - compared.photo).mean(axis=2))
    for kind, pixels in (("photo", compared.photo), ("render", compared.image), ("error", error)):
        byte = pixels if pixels.dtype == np.uint8 else (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(byte).save(folder / f"{stem}.{kind}.png")
