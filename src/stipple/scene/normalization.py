"""Scene normalisation: training uses units in which the extent of the cameras is about one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple.errors import InputError
from stipple.scene.camera import Camera
from stipple.scene.gaussians import Gaussians

Array = np.ndarray
_EXTENT_MARGIN = 1.1
_DEPTH_SHARE = 0.25
_SMALLEST = 1e-30


@dataclass(frozen=True)
class Normalization:
    """x -> (x - center) * scale. There is no rotation, so SH coefficients are unchanged and undoing is exact."""

    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        center = arguments.array("center", self.center, (3,), np.float64, finite=True)
        object.__setattr__(self, "center", tuple(center.tolist()))
        object.__setattr__(self, "scale", arguments.number("scale", self.scale, above=0))

    @classmethod
    def of(cls, cameras: Sequence[Camera], points: ArrayLike) -> Normalization:
        """The cameras' mean becomes the origin and the scene's extent 1.

        The extent is 1.1 times the largest distance of a camera from their mean, as 3DGS takes it; but at least a
        quarter of the median distance of the points, so that a short walk in front of a large scene does not make every
        training step too small.
        """
        if not isinstance(cameras, Sequence) or not cameras:
            raise InputError(f"cameras: expected a list of at least one Camera, got {arguments.shown(cameras)}")
        places = np.array([arguments.instance("cameras", c, Camera).position for c in cameras])
        places = arguments.array("cameras", places, ("C", 3), np.float64, finite=True)
        cloud = arguments.array("points", points, ("M", 3), np.float64)
        cloud = cloud[np.isfinite(cloud).all(axis=1)]
        center = places.mean(axis=0)
        extent = _EXTENT_MARGIN * float(np.linalg.norm(places - center, axis=1).max())
        if len(cloud):
            extent = max(extent, _DEPTH_SHARE * float(np.median(np.linalg.norm(cloud - center, axis=1))))
        x, y, z = (float(v) for v in center)
        return cls((x, y, z), 1 / extent if extent > _SMALLEST else 1.0)

    def points(self, points: ArrayLike) -> Array:
        """Points [M, 3] in normalised units."""
        cloud = arguments.array("points", points, ("M", 3), np.float64)
        return np.asarray((cloud - np.array(self.center)) * self.scale)

    def camera(self, camera: Camera) -> Camera:
        """The same view in the normalised scene; near and far keep their numbers."""
        viewmat = arguments.instance("camera", camera, Camera).viewmat.copy()
        viewmat[:3, 3] = self.scale * (viewmat[:3, :3] @ np.array(self.center) + viewmat[:3, 3])
        return replace(camera, viewmat=viewmat)

    def undo_camera(self, camera: Camera) -> Camera:
        """The same view in the original scene, near and far included."""
        viewmat = arguments.instance("camera", camera, Camera).viewmat.copy()
        viewmat[:3, 3] = viewmat[:3, 3] / self.scale - viewmat[:3, :3] @ np.array(self.center)
        return replace(camera, viewmat=viewmat, near=camera.near / self.scale, far=camera.far / self.scale)

    def undo(self, scene: Gaussians) -> Gaussians:
        """A trained scene in its original units."""
        means = arguments.instance("scene", scene, Gaussians).means.astype(np.float64) / self.scale + np.array(
            self.center
        )
        return replace(
            scene,
            means=means.astype(np.float32),
            log_scales=scene.log_scales - np.float32(np.log(self.scale)),
        )
