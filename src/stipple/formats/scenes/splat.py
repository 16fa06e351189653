""".splat files (https://github.com/antimatter15/splat): 32 bytes per Gaussian, for viewers in browsers.

Position and scale (sigma) are three float32 each, colour and opacity RGBA with 8 bits each, the rotation a quaternion
wxyz with 8 bits a component, (b - 128) / 128. There is no header, and no SH above degree 0.
"""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np

from stipple.errors import FileFormatError, FormatWarning
from stipple.formats.scenes.base import SceneFormat, logits, scene_format
from stipple.scene.gaussians import Gaussians
from stipple.scene.sh import rgb_to_sh, sh_to_rgb

Array = np.ndarray
_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
_HALF = 128


def read(name: str, file: BinaryIO) -> Gaussians:
    """The Gaussians of a .splat file. Raises FileFormatError if its size is not a multiple of 32 bytes."""
    data = file.read()
    if len(data) % _ROW.itemsize:
        raise FileFormatError(
            f"{name}: truncated, or not a .splat file: expected {_ROW.itemsize} bytes for each Gaussian, got "
            f"{len(data):,} bytes"
        )
    rows = np.frombuffer(data, _ROW)
    rgba = rows["rgba"] / 255
    with np.errstate(divide="ignore", invalid="ignore"):  # a scale that is not positive has no logarithm: not drawn
        log_scales = np.log(rows["scale"])
    quats = (rows["quat"].astype(np.float32) - _HALF) / _HALF
    return Gaussians(rows["mean"], log_scales, quats, logits(rgba[:, 3]), rgb_to_sh(rgba[:, :3])[:, None])


def write(scene: Gaussians, file: BinaryIO) -> None:
    """Write a scene, large and opaque Gaussians first, as viewers show them while the file is still loading.

    Gaussians that are never drawn are left out. Warns where there is SH above degree 0, which is left out too.
    """
    if scene.sh_degree:
        warnings.warn(
            f"a .splat file holds no SH above degree 0: colours that change with direction (degree {scene.sh_degree}) "
            "are left out; a .ply file holds them",
            FormatWarning,
            stacklevel=4,
        )
    drawn = scene.finite & scene.quats.any(axis=1)
    kept = scene.select(drawn)
    order = np.argsort(-(kept.log_scales.sum(axis=1) + np.log(np.maximum(kept.opacities, 1e-30))), kind="stable")
    kept = kept.select(order)
    rows = np.empty(kept.count, _ROW)
    rows["mean"], rows["scale"] = kept.means, kept.scales
    rows["rgba"] = _bytes(255 * np.column_stack([sh_to_rgb(kept.sh[:, 0]), kept.opacities]))
    lengths = np.linalg.norm(kept.quats.astype(np.float64), axis=1, keepdims=True)
    rows["quat"] = _bytes(_HALF * (kept.quats / lengths) + _HALF)
    file.write(rows.tobytes())


def _bytes(values: Array) -> Array:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


scene_format(
    SceneFormat(
        "packed splats",
        "32 bytes per Gaussian, for viewers in browsers; without SH above degree 0",
        ".splat",
        read,
        write,
    )
)
