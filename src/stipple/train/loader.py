"""The photos of a run: decoded in parallel and checked before training, kept as bytes, or streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from stipple.formats.captures import Capture, Frame, View, frame_camera, load_frame, sparse_depth
from stipple.scene.camera import Camera
from stipple.scene.normalization import Normalization
from stipple.train.fingerprint import Contents

Array = np.ndarray
_WORKERS = 4
_AHEAD = 8


class Loader:
    """Frames of some views in normalised units, by index and factor of downscaling.

    The first that fit into ``memory`` bytes are kept; the others are decoded again each time, in advance if
    :meth:`prefetch` was called.
    """

    def __init__(
        self,
        capture: Capture,
        views: Sequence[View],
        downscale: float,
        normalization: Normalization,
        memory: float,
        tracks: bool = False,
        contents: Contents | None = None,
    ) -> None:
        self._contents = contents or Contents()
        self.views, self.memory = list(views), memory
        self._capture, self._downscale, self._normalization, self._tracks = capture, downscale, normalization, tracks
        self._kept: dict[int, Frame] = {}
        self._smaller: dict[int, Frame] = {}
        self._cameras: dict[int, Camera] = {}
        self._factor = 1
        self._pool = ThreadPoolExecutor(_WORKERS, "stipple-decode")
        self._coming: dict[int, Future[Frame]] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self.views)

    @property
    def streamed(self) -> int:
        """How many views do not fit into memory."""
        return len(self.views) - len(self._kept)

    def load(self, advance: Callable[[], None]) -> None:
        """Decode every view once, so that a broken photo is detected now; keep what fits."""
        window: list[tuple[int, Future[Frame]]] = []
        upcoming = iter(range(len(self.views)))
        for i in upcoming:
            window.append((i, self._pool.submit(self._decode, i)))
            if len(window) > _AHEAD:
                self._keep(*window.pop(0))
                advance()
        for item in window:
            self._keep(*item)
            advance()

    def _keep(self, index: int, future: Future[Frame]) -> None:
        frame = future.result()
        if self._held + frame.nbytes <= self.memory:
            self._kept[index] = frame
            self._held += frame.nbytes

    def _decode(self, index: int) -> Frame:
        view = self.views[index]
        self._contents.check(view)
        frame = load_frame(view, self._downscale)
        scale = np.float32(self._normalization.scale)
        depth = None if frame.depth is None else frame.depth * scale
        if depth is None and self._tracks and view.points is not None:
            depth = sparse_depth(frame.camera, self._capture.points[view.points]) * scale
        return replace(frame, camera=self._normalization.camera(frame.camera), depth=depth)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start decoding views that will be needed soon."""
        for i in indices:
            if i not in self._kept and i not in self._coming and len(self._coming) < _AHEAD:
                self._coming[i] = self._pool.submit(self._decode, i)

    def frame(self, index: int, factor: int = 1) -> Frame:
        """A view's frame, ``factor`` times smaller."""
        if factor != self._factor:
            self._smaller.clear()
            self._factor = factor
        if index in self._smaller:
            return self._smaller[index]
        coming = self._coming.pop(index, None)
        full = self._kept.get(index) or (coming.result() if coming else self._decode(index))
        small = full.smaller(factor)
        if factor > 1 and index in self._kept:
            self._smaller[index] = small
        return small

    def camera(self, index: int) -> Camera:
        """The camera of a view, without decoding its photo."""
        if index not in self._cameras:
            self._cameras[index] = self._normalization.camera(frame_camera(self.views[index], self._downscale))
        return self._cameras[index]

    def close(self) -> None:
        """Stop decoding."""
        self._pool.shutdown(wait=True, cancel_futures=True)
