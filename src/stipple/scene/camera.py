"""A pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from stipple import numerics as nx
from stipple.errors import InputError

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: +x right, +y down, +z forward, pixel centres at half integers.

    ``width`` and ``height`` in pixels; ``fx``, ``fy``, ``cx``, ``cy`` in pixels; ``viewmat`` [4, 4] world to
    camera; Gaussians nearer than ``near`` or farther than ``far`` (camera z) are not drawn.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    viewmat: Array = field(default_factory=lambda: np.eye(4))
    near: float = nx.NEAR
    far: float = nx.FAR

    def __post_init__(self) -> None:
        if not (int(self.width) == self.width >= 1 and int(self.height) == self.height >= 1):
            raise InputError(f"camera: expected a size of at least 1 x 1 pixels, got {self.width} x {self.height}")
        numbers = np.array([self.fx, self.fy, self.cx, self.cy, self.near, self.far], float)
        if not np.isfinite(numbers).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"camera: expected positive focal lengths and finite numbers, got fx {self.fx}, fy {self.fy}, "
                f"cx {self.cx}, cy {self.cy}, near {self.near}, far {self.far}"
            )
        if not 0 < self.near < self.far:
            raise InputError(f"camera: expected 0 < near < far, got near {self.near} and far {self.far}")
        viewmat = np.array(self.viewmat, np.float64)
        if viewmat.shape != (4, 4) or not np.isfinite(viewmat).all():
            raise InputError("camera: viewmat must be 4 x 4 finite numbers")
        rotation = viewmat[:3, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
            raise InputError("camera: the upper left 3 x 3 of viewmat must be a rotation")
        if not np.allclose(viewmat[3], [0, 0, 0, 1]):
            raise InputError("camera: the last row of viewmat must be 0 0 0 1")
        object.__setattr__(self, "viewmat", viewmat)

    @classmethod
    def from_fov(
        cls, width: int, height: int, fov_y_degrees: float, viewmat: ArrayLike | None = None, **more: float
    ) -> Camera:
        """Square pixels, the principal point in the middle, a vertical field of view."""
        if not 0 < fov_y_degrees < 180:
            raise InputError(f"fov: expected degrees between 0 and 180, got {fov_y_degrees}")
        focal = 0.5 * height / np.tan(0.5 * np.deg2rad(fov_y_degrees))
        matrix = np.eye(4) if viewmat is None else np.asarray(viewmat, float)
        return cls(width, height, focal, focal, 0.5 * width, 0.5 * height, matrix, **more)

    @classmethod
    def from_colmap(
        cls, width: int, height: int, params: ArrayLike, qvec: ArrayLike, tvec: ArrayLike, **more: float
    ) -> Camera:
        """From COLMAP's world-to-camera quaternion wxyz and translation, and the parameters of SIMPLE_PINHOLE
        (f, cx, cy) or PINHOLE (fx, fy, cx, cy)."""
        numbers = [float(p) for p in np.ravel(np.asarray(params))]
        if len(numbers) not in (3, 4):
            raise InputError(f"params: expected f, cx, cy or fx, fy, cx, cy, got {len(numbers)} numbers")
        fx, fy, cx, cy = numbers if len(numbers) == 4 else (numbers[0], *numbers)
        viewmat = np.eye(4)
        viewmat[:3, :3] = rotation_of(qvec)
        viewmat[:3, 3] = np.asarray(tvec, float)
        return cls(width, height, fx, fy, cx, cy, viewmat, **more)

    def look_at(self, position: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, -1.0, 0.0)) -> Camera:
        """The same camera at ``position``, looking at ``target``, with ``up`` towards the top of the image."""
        return replace(self, viewmat=look_at(position, target, up))

    def resized(self, width: int, height: int) -> Camera:
        """The same view at another size in pixels."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
        )

    @property
    def intrinsics(self) -> Array:
        """The 3 x 3 matrix of focal lengths and principal point."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def position(self) -> Array:
        """The camera's centre in the world."""
        return np.asarray(-self.viewmat[:3, :3].T @ self.viewmat[:3, 3])


def rotation_of(quat: ArrayLike) -> Array:
    """The rotation matrix of a quaternion wxyz of any length."""
    q = np.asarray(quat, float)
    if q.shape != (4,) or not np.isfinite(q).all() or not np.any(q):
        raise InputError(f"quaternion: expected four finite numbers, not all 0, got {quat!r}")
    if not 1e-100 < np.abs(q).max() < 1e100:  # where squares overflow or vanish
        q = q / np.abs(q).max()
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def look_at(position: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, -1.0, 0.0)) -> Array:
    """World-to-camera matrix [4, 4]; ``up`` points to the top of the image (captures have -y up by default)."""
    p, t, u = (np.asarray(v, float) for v in (position, target, up))
    for name, vector in (("position", p), ("target", t), ("up", u)):
        if vector.shape != (3,) or not np.isfinite(vector).all():
            raise InputError(f"look_at: {name}: expected three finite numbers, got {vector.tolist()}")
    forward = t - p
    if not np.linalg.norm(forward) > 0:
        raise InputError("look_at: position and target are the same point")
    forward = forward / np.linalg.norm(forward)
    side = np.cross(forward, u)
    if not np.linalg.norm(side) > 1e-9 * max(float(np.linalg.norm(u)), 1e-300):
        raise InputError("look_at: up is zero or parallel to the view direction")
    right = side / np.linalg.norm(side)
    viewmat = np.eye(4)
    viewmat[:3, :3] = [right, np.cross(forward, right), forward]
    viewmat[:3, 3] = -viewmat[:3, :3] @ p
    return viewmat
