"""A renderer in the style that SLAM programs use: one camera with R and t, colour and depth, and per-Gaussian
records of what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple.render import rasterization, render_view
from stipple.scene import Camera, Gaussians

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class DiffCamera:
    """A pinhole camera: focal lengths and principal point in pixels, size, rotation ``R`` [3, 3] and translation
    ``t`` [3] from world to camera (+x right, +y down, +z forward)."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    R: ArrayLike
    t: ArrayLike

    def __post_init__(self) -> None:
        self.camera()

    def camera(self) -> Camera:
        """The same camera, checked."""
        viewmat = np.eye(4)
        viewmat[:3, :3] = arguments.array("R", self.R, (3, 3), np.float64, finite=True)
        viewmat[:3, 3] = arguments.array("t", self.t, (3,), np.float64, finite=True)
        return Camera(self.width, self.height, self.fx, self.fy, self.cx, self.cy, viewmat)


class TrainableGaussians(Gaussians):
    """A scene (see :class:`stipple.scene.Gaussians`) under the name that SLAM code knows."""


class SplatOutput(NamedTuple):
    """color [H, W, 3] and depth [H, W] (expected camera z; 0 where nothing is drawn)."""

    color: Array
    depth: Array


@dataclass(frozen=True, eq=False)
class SplatRecord:
    """One visible Gaussian: its index, pixel (u, v), 2D covariance [2, 2], camera z, opacity, colour [3], and the
    box of tiles it may touch as (first column, first row, last column + 1, last row + 1)."""

    index: int
    u: float
    v: float
    covariance: Array
    z: float
    opacity: float
    color: Array
    tiles: tuple[int, int, int, int]


class DiffSplatRenderer:
    """Renders scenes for one device over one background colour."""

    def __init__(self, background: ArrayLike = (0.0, 0.0, 0.0), device: str = "auto") -> None:
        self.background = arguments.array("background", background, (3,), finite=True)
        self.device = arguments.device(device)

    def render(self, gaussians: Gaussians, camera: DiffCamera) -> SplatOutput:
        """Colour and depth."""
        return self.render_with_intermediates(gaussians, camera, records=False)[0]

    def render_inference(self, gaussians: Gaussians, camera: DiffCamera) -> SplatOutput:
        """The same image, without keeping anything for gradients."""
        view = arguments.instance("camera", camera, DiffCamera).camera()
        scene = arguments.instance("gaussians", gaussians, Gaussians)
        image = render_view(scene, view, self.background, device=self.device)
        return SplatOutput(image.color, image.depth)

    def render_with_intermediates(
        self, gaussians: Gaussians, camera: DiffCamera, records: bool = True
    ) -> tuple[SplatOutput, list[SplatRecord]]:
        """Colour and depth, and one record per visible Gaussian in order of depth."""
        view = arguments.instance("camera", camera, DiffCamera).camera()
        arguments.instance("gaussians", gaussians, Gaussians)
        with_records = arguments.flag("records", records)
        colors, _, meta = rasterization(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            gaussians.sh,
            view.viewmat[None],
            view.intrinsics[None],
            view.width,
            view.height,
            near_plane=view.near,
            far_plane=view.far,
            sh_degree=gaussians.sh_degree,
            backgrounds=self.background[None],
            render_mode="RGB+ED",
            device=self.device,
        )
        output = SplatOutput(colors[0, ..., :3], colors[0, ..., 3])
        return output, self._records(meta) if with_records else []

    @staticmethod
    def _records(meta: Mapping[str, Any]) -> list[SplatRecord]:
        size, across, down = meta["tile_size"], meta["tile_width"], meta["tile_height"]
        means2d, conics, depths = meta["means2d"][0], meta["conics"][0].astype(float), meta["depths"][0]
        radii, opacities, colors = meta["radii"][0], meta["opacities"][0], meta["visible_colors"][0]
        visible = np.flatnonzero(radii[:, 0] > 0)
        records = []
        for i in visible[np.argsort(depths[visible], kind="stable")]:
            a, b, c = conics[i]
            covariance = np.array([[c, -b], [-b, a]]) / (a * c - b * b)
            low = np.clip(np.floor((means2d[i] - radii[i]) / size), 0, [across, down]).astype(int)
            high = np.clip(np.ceil((means2d[i] + radii[i]) / size), 0, [across, down]).astype(int)
            box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
            records.append(
                SplatRecord(
                    int(i),
                    float(means2d[i, 0]),
                    float(means2d[i, 1]),
                    covariance,
                    float(depths[i]),
                    float(opacities[i]),
                    colors[i],
                    box,
                )
            )
        return records
