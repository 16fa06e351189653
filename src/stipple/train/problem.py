"""The training problem: a capture, split, normalised and decoded, and the Gaussians to start from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stipple.errors import InputError
from stipple.formats.captures import Capture, CaptureOptions, View, frame_camera, open_capture
from stipple.scene.gaussians import Gaussians
from stipple.scene.normalization import Normalization
from stipple.train import initialize
from stipple.train.config import Config, Data
from stipple.train.fingerprint import Contents, compare, record_of
from stipple.train.loader import Loader

_GIGABYTE = 1e9
_MAX_DEPTH_FRAMES = 50


def capture_options(data: Data) -> CaptureOptions:
    """The options of a configuration for reading the capture."""
    return CaptureOptions(
        data.images, data.masks, data.intrinsics, data.depth_scale, data.allow_outside, data.undistort
    )


class Problem:
    """A capture and a configuration, ready to train: loaders of training and held-out views in normalised units."""

    def __init__(self, capture: Capture, config: Config) -> None:
        self.capture, self.config = capture, config
        train, test = capture.split(config.data.test_every)
        cameras = [frame_camera(v, config.data.downscale) for v in capture.views]
        self.contents = Contents()
        self.normalization = Normalization.of(cameras, capture.points)
        self.train = self._loader(train, share=0.8 if test else 1.0)
        self.test = self._loader(test, share=0.2)

    @classmethod
    def open(cls, path: str, config: Config) -> Problem:
        """Open a capture of any kind for a configuration."""
        return cls(open_capture(path, capture_options(config.data)), config)

    def _loader(self, indices: Sequence[int], share: float) -> Loader:
        data = self.config.data
        memory = share * data.image_memory * _GIGABYTE
        views = [self.capture.views[i] for i in indices]
        tracks = self.config.loss.depth > 0
        return Loader(self.capture, views, data.downscale, self.normalization, memory, tracks, self.contents)

    # --- comparison with the start of the run -------------------------------------------------------------
    @property
    def views(self) -> list[View]:
        """Training and held-out views."""
        return [*self.train.views, *self.test.views]

    def record(self) -> dict[str, Any]:
        """The capture's cameras, points and files, for :meth:`expect`; after :meth:`load`."""
        return record_of(self.capture, self.views, self.contents)

    def expect(self, record: Mapping[str, Any]) -> None:
        """Compare the capture with a record: cameras and points now, photos when they are read.

        Raises InputError that names what has changed; reading a changed photo raises FileFormatError.
        """
        for name, digests in compare(self.capture, self.views, record).items():
            self.contents.expect(name, digests)

    def load(self, advance: Callable[[], None]) -> None:
        """Decode every photo once; the first broken one raises FileFormatError."""
        self.train.load(advance)
        self.test.load(advance)

    def close(self) -> None:
        """Stop decoding photos."""
        self.train.close()
        self.test.close()

    @property
    def identity(self) -> str:
        """A digest of the configuration and the views, so that a checkpoint is not resumed with different ones."""
        views = [(v.name, v.camera.width, v.camera.height) for v in self.views]
        return hashlib.sha256(repr((self.config.model_dump_json(), views)).encode()).hexdigest()[:16]

    def start(self) -> Gaussians:
        """The Gaussians to start from, as configured."""
        config, source = self.config.start, self.config.start.source
        has_points, has_depth = len(self.capture.points) > 0, any(v.depth for v in self.train.views)
        if source == "auto":
            source = "points" if has_points else "depth" if has_depth else "random"
        if source == "points":
            if not has_points:
                raise InputError(f"{self.capture.root}: start.source is points, but the capture has none; use random")
            points = self.normalization.points(self.capture.points)
            scene = initialize.from_points(points, self.capture.colors / 255, config)
        elif source == "depth":
            picks = np.linspace(0, len(self.train) - 1, min(len(self.train), _MAX_DEPTH_FRAMES)).round().astype(int)
            frames = [self.train.frame(int(i)) for i in picks]
            scene = initialize.from_points(*initialize.from_depth(frames, config.count, self.config.seed), config)
        else:
            cameras = [self.train.camera(i) for i in range(len(self.train))]
            scene = initialize.from_points(*initialize.at_random(cameras, config.count, self.config.seed), config)
        limit = self.config.density.max_count
        if scene.count > limit:
            rows = np.random.default_rng([self.config.seed, 5]).choice(scene.count, limit, replace=False)
            scene = scene.select(np.sort(rows))
        return scene
