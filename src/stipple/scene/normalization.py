"""Scene normalisation: training happens in units where the cameras' surroundings have size one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stipple.scene.camera import Camera
from stipple.scene.gaussians import Gaussians

Array = np.ndarray
_EXTENT_MARGIN = 1.1
_DEPTH_SHARE = 0.25


@dataclass(frozen=True)
class Normalization:
    """x -> (x - center) * scale. There is no rotation, so harmonics stay as they are and undoing is exact."""

    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    @classmethod
    def of(cls, cameras: Sequence[Camera], points: Array) -> Normalization:
        """The cameras' mean becomes the origin and the scene's extent 1.

        The extent is 1.1 times the largest distance of a camera from their mean, as 3DGS takes it; but at least
        a quarter of the median distance of the points, so that a short walk before a large scene does not shrink
        every step that training takes.
        """
        places = np.array([c.position for c in cameras])
        center = places.mean(axis=0)
        extent = _EXTENT_MARGIN * float(np.linalg.norm(places - center, axis=1).max())
        if len(points):
            extent = max(extent, _DEPTH_SHARE * float(np.median(np.linalg.norm(points - center, axis=1))))
        x, y, z = (float(v) for v in center)
        return cls((x, y, z), 1 / extent if extent > 0 else 1.0)

    def points(self, points: Array) -> Array:
        """Points [M, 3] in normalised units."""
        return np.asarray((points - np.array(self.center)) * self.scale)

    def camera(self, camera: Camera) -> Camera:
        """The same view in the normalised scene; near and far keep their numbers."""
        viewmat = camera.viewmat.copy()
        viewmat[:3, 3] = self.scale * (viewmat[:3, :3] @ np.array(self.center) + viewmat[:3, 3])
        return replace(camera, viewmat=viewmat)

    def undo_camera(self, camera: Camera) -> Camera:
        """The same view in the original scene, near and far included."""
        viewmat = camera.viewmat.copy()
        viewmat[:3, 3] = viewmat[:3, 3] / self.scale - viewmat[:3, :3] @ np.array(self.center)
        return replace(camera, viewmat=viewmat, near=camera.near / self.scale, far=camera.far / self.scale)

    def undo(self, scene: Gaussians) -> Gaussians:
        """A trained scene in its original units."""
        means = scene.means.astype(np.float64) / self.scale + np.array(self.center)
        return replace(
            scene,
            means=means.astype(np.float32),
            log_scales=scene.log_scales - np.float32(np.log(self.scale)),
        )
