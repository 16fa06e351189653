"""A camera: its pose, its intrinsics and its lens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple import numerics as nx
from stipple.errors import InputError

Array = np.ndarray
USUAL_FOV = 50.0
"""The default vertical field of view, in degrees, for viewing a scene."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera: +x right, +y down, +z forward, pixel centres at half integers.

    ``width`` and ``height`` in pixels; ``fx``, ``fy``, ``cx``, ``cy`` in pixels (``ortho``: pixels per world unit);
    ``viewmat`` [4, 4] world to camera; Gaussians nearer than ``near`` or farther than ``far`` (camera z) are not drawn.
    ``model`` is pinhole, ortho or fisheye; ``distortion`` holds OpenCV's coefficients: none or k1 to k6, p1, p2 for a
    pinhole, k1 to k4 for a fisheye.
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
    model: str = "pinhole"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            object.__setattr__(self, name, arguments.integer(name, getattr(self, name), 1, arguments.MAX_SIDE))
        for name in ("fx", "fy", "near", "far"):
            object.__setattr__(self, name, arguments.number(name, getattr(self, name), above=0))
        for name in ("cx", "cy"):
            object.__setattr__(self, name, arguments.number(name, getattr(self, name)))
        arguments.choice("model", self.model, tuple(nx.DISTORTION_LENGTHS))
        lens = arguments.array("distortion", self.distortion, ("D",), np.float64, finite=True)
        if len(lens) not in nx.DISTORTION_LENGTHS[self.model]:
            lengths = " or ".join(map(str, nx.DISTORTION_LENGTHS[self.model]))
            raise InputError(f"distortion: a {self.model} camera has {lengths} coefficients, got {len(lens)}")
        object.__setattr__(self, "distortion", tuple(lens.tolist()))
        if not self.near < self.far:
            raise InputError(f"near, far: expected 0 < near < far, got near {self.near} and far {self.far}")
        viewmat = arguments.array("viewmat", self.viewmat, (4, 4), np.float64, finite=True, single=False).copy()
        rotation = viewmat[:3, :3]
        if (
            np.abs(rotation).max() > 2
            or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
            or np.linalg.det(rotation) < 0
        ):
            raise InputError("viewmat: expected a rotation in the upper left 3 x 3")
        if not np.allclose(viewmat[3], [0, 0, 0, 1]):
            raise InputError("viewmat: expected 0 0 0 1 in the last row")
        object.__setattr__(self, "viewmat", viewmat)

    @classmethod
    def from_fov(
        cls, width: int, height: int, fov_y_degrees: float, viewmat: ArrayLike | None = None, **more: Any
    ) -> Camera:
        """A camera with square pixels, the principal point in the middle, and a vertical field of view."""
        size = arguments.integer("height", height, 1, arguments.MAX_SIDE)
        middle = 0.5 * arguments.integer("width", width, 1, arguments.MAX_SIDE), 0.5 * size
        fov = arguments.number("fov_y_degrees", fov_y_degrees, above=0, below=180)
        focal = float(middle[1] / np.tan(0.5 * np.deg2rad(fov)))
        matrix = np.eye(4) if viewmat is None else arguments.array("viewmat", viewmat, (4, 4), np.float64, single=False)
        return cls(width, height, focal, focal, *middle, matrix, **more)

    @classmethod
    def from_colmap(
        cls, width: int, height: int, params: ArrayLike, qvec: ArrayLike, tvec: ArrayLike, **more: Any
    ) -> Camera:
        """From COLMAP's world-to-camera quaternion wxyz and translation, and the parameters of SIMPLE_PINHOLE
        (f, cx, cy) or PINHOLE (fx, fy, cx, cy)."""
        numbers = arguments.array("params", params, ("3 or 4",), np.float64, finite=True).tolist()
        if len(numbers) not in (3, 4):
            raise InputError(f"params: expected f, cx, cy or fx, fy, cx, cy, got {len(numbers)} numbers")
        fx, fy, cx, cy = numbers if len(numbers) == 4 else (numbers[0], *numbers)
        viewmat = np.eye(4)
        viewmat[:3, :3] = rotation_of(qvec)
        viewmat[:3, 3] = arguments.array("tvec", tvec, (3,), np.float64, finite=True, single=False)
        return cls(width, height, fx, fy, cx, cy, viewmat, **more)

    def look_at(self, position: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, -1.0, 0.0)) -> Camera:
        """The same camera at ``position``, looking at ``target``, with ``up`` towards the top of the image."""
        return replace(self, viewmat=look_at(position, target, up))

    def resized(self, width: int, height: int) -> Camera:
        """The same view at another size in pixels."""
        sx = arguments.integer("width", width, 1, arguments.MAX_SIDE) / self.width
        sy = arguments.integer("height", height, 1, arguments.MAX_SIDE) / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
        )

    def without_distortion(self) -> Camera:
        """The pinhole (or orthographic) camera with the same matrix: for pictures without distortion."""
        return replace(self, model="ortho" if self.model == "ortho" else "pinhole", distortion=())

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
    q = arguments.array("quaternion", quat, (4,), np.float64, finite=True, single=False)
    if not np.any(q):
        raise InputError("quaternion: expected four finite numbers, not all 0, got zeros")
    if not 1e-100 < np.abs(q).max() < 1e100:  # here squares would overflow or underflow
        q = q / np.abs(q).max()
    from scipy.spatial.transform import Rotation  # here: importing it takes as long as importing the rest of stipple

    w, x, y, z = q
    return np.asarray(Rotation.from_quat([x, y, z, w]).as_matrix())


def look_at(position: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, -1.0, 0.0)) -> Array:
    """World-to-camera matrix [4, 4]; ``up`` points to the top of the image (captures have -y up by default)."""
    p, t, u = (
        arguments.array(name, vector, (3,), np.float64, finite=True)
        for name, vector in (("position", position), ("target", target), ("up", up))
    )
    forward = t - p
    if not np.linalg.norm(forward) > 0:
        raise InputError("position, target: expected two points, got the same point twice")
    forward = forward / np.linalg.norm(forward)
    side = np.cross(forward, u)
    if not np.linalg.norm(side) > 1e-9 * max(float(np.linalg.norm(u)), 1e-300):
        raise InputError("up: expected a direction that is neither zero nor parallel to the view")
    right = side / np.linalg.norm(side)
    viewmat = np.eye(4)
    viewmat[:3, :3] = [right, np.cross(forward, right), forward]
    viewmat[:3, 3] = -viewmat[:3, :3] @ p
    return viewmat
