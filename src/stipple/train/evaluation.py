"""Evaluation of a scene: PSNR and SSIM of views, as the 3DGS papers define them, and LPIPS if it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from stipple import ir
from stipple.errors import InputError
from stipple.formats.captures import Frame
from stipple.render import render_view
from stipple.runtime import Executable, Session
from stipple.scene.camera import Camera
from stipple.scene.gaussians import Gaussians
from stipple.train.config import Config
from stipple.train.schedule import fixed_background

Array = np.ndarray
Lpips = Callable[[Array, Array], float]
_MIN_ERROR = 1e-10


@dataclass(frozen=True)
class Score:
    """The scores of one view. ``psnr_corrected`` is PSNR after the affine colour transform that fits best, where
    exposure was fitted in training and a held-out photo has none."""

    name: str
    split: str
    psnr: float
    ssim: float
    lpips: float | None = None
    psnr_corrected: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}


class Comparison(NamedTuple):
    """A photo and its render, both [H, W, 3] in [0, 1], and the view's score."""

    score: Score
    photo: Array
    image: Array


def photo_of(frame: Frame, background: Array) -> Array:
    """A frame's colours in [0, 1] over a background."""
    pixels = frame.pixels.astype(np.float32) / 255
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:]
    return np.asarray(pixels[..., :3] * alpha + background * (1 - alpha), np.float32)


def psnr(image: Array, photo: Array, mask: Array | None = None) -> float:
    """Peak signal-to-noise ratio in decibels of colours in [0, 1], over the pixels of a mask."""
    error = (image.astype(np.float64) - photo) ** 2
    mean = error.mean() if mask is None else error[mask].mean() if mask.any() else 0.0
    return float(-10 * np.log10(max(mean, _MIN_ERROR)))


@lru_cache(maxsize=4)
def _ssim_graph(device: str) -> Executable:
    graph = ir.Graph("ssim")
    image, photo = graph.input("image", ["H", "W", 3]), graph.input("photo", ["H", "W", 3])
    graph.output("ssim", ir.image_ssim(image, photo))
    return Session(device).compile(graph)


def ssim(image: Array, photo: Array, device: str = "auto") -> float:
    """Mean structural similarity over an 11x11 Gaussian window, borders padded with zeros, as in 3DGS."""
    images = {"image": np.ascontiguousarray(image, np.float32), "photo": np.ascontiguousarray(photo, np.float32)}
    return float(_ssim_graph(device).run(images)["ssim"])


def corrected(image: Array, photo: Array, mask: Array | None = None) -> Array:
    """An image after the affine colour transform that fits it best to the photo."""
    flat = np.concatenate([image.reshape(-1, 3), np.ones((image.size // 3, 1))], axis=1)
    rows = slice(None) if mask is None else mask.reshape(-1)
    transform, *_ = np.linalg.lstsq(flat[rows], photo.reshape(-1, 3)[rows], rcond=None)
    return np.asarray(np.clip((flat @ transform).reshape(image.shape), 0, 1), np.float32)


@dataclass(frozen=True)
class Evaluator:
    """Renders views as a configuration says and compares them with their photos, in training and afterwards."""

    config: Config
    device: str = "auto"
    lpips: Lpips | None = None

    def compare(
        self,
        scene: Gaussians,
        camera: Camera,
        frame: Frame,
        name: str,
        split: str,
        exposure: Array | None = None,
    ) -> Comparison:
        """One view, on the background that belongs to its photo (photos with and without alpha may be mixed).

        ``exposure`` [3, 4] is the photo's colour transform, as its difference from the identity.
        """
        background = fixed_background(self.config, frame.transparent)
        antialiased = self.config.loss.antialiased
        image = render_view(scene, camera, background, antialiased=antialiased, device=self.device).color
        if exposure is not None:
            image = image + image @ exposure[:, :3].T + exposure[:, 3]
        image, photo = np.clip(image, 0, 1).astype(np.float32), photo_of(frame, background)
        masked = (image, photo)
        if frame.mask is not None:
            keep = frame.mask[:, :, None]
            masked = (image * keep, photo * keep)
        fitted = corrected(image, photo, frame.mask) if self.config.extras.exposure else None
        score = Score(
            name,
            split,
            psnr(image, photo, frame.mask),
            ssim(*masked, self.device),
            None if self.lpips is None else self.lpips(*masked),
            None if fitted is None else psnr(fitted, photo, frame.mask),
        )
        return Comparison(score, photo, image)


def mean_scores(scores: Sequence[Score]) -> dict[str, float]:
    """The mean over the views of each score that all of them have."""
    means = {}
    for name in ("psnr", "ssim", "lpips", "psnr_corrected"):
        values = [getattr(s, name) for s in scores]
        if values and None not in values:
            means[name] = float(np.mean(values))
    return means


def evaluation_of(scores: Sequence[Score]) -> dict[str, Any]:
    """Means by split, and every view."""
    splits = [s for s in ("test", "train") if any(x.split == s for x in scores)]
    means = {s: mean_scores([x for x in scores if x.split == s]) for s in splits}
    return {"mean": means, "views": [s.as_dict() for s in scores]}


def load_lpips(network: str = "vgg") -> Lpips:
    """The LPIPS metric (Zhang et al., 2018) of the extra ``lpips``, which downloads the network's weights."""
    try:
        import lpips
        import torch
    except ImportError:
        raise InputError("LPIPS needs an extra: pip install 'stipple[lpips]'") from None
    try:
        model = lpips.LPIPS(net=network, verbose=False)
    except OSError as error:
        raise InputError(
            f"LPIPS: the weights of {network} cannot be loaded: {error}; without a network connection, put the file "
            f"that it asks for into {torch.hub.get_dir()}/checkpoints"
        ) from None

    def measure(image: Array, photo: Array) -> float:
        def tensor(array: Array) -> Any:
            return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)[None] * 2 - 1))

        with torch.no_grad():
            return float(model(tensor(image), tensor(photo)))

    return measure
