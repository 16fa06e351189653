"""Cameras as their documentation defines them, one number at a time; derivatives are differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Vector = list[float]
MARGIN = 2e-3
_FRAME_MARGIN, _DISTORTED_FRAME_MARGIN = 0.3, 1.3
_FARTHEST, _SCAN = 8.0, 1600
"""Slopes at which a lens is tried for where it stops growing."""


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(p * q for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class Camera:
    """Rows of [R | t], focal lengths, centre, lens, clip planes and image size."""

    view: tuple[tuple[float, ...], ...]
    focal: tuple[float, float]
    center: tuple[float, float]
    distortion: tuple[float, ...]
    model: str
    clip: tuple[float, float]
    size: tuple[int, int]

    @classmethod
    def of(cls, values: Mapping[str, Vector], attrs: Mapping[str, Any]) -> Camera:
        view, k = values["viewmat"], values["intrinsics"]
        return cls(
            view=tuple(tuple(view[4 * row : 4 * row + 4]) for row in range(3)),
            focal=(k[0], k[4]),
            center=(k[2], k[5]),
            distortion=tuple(values["distortion"]),
            model=attrs["camera_model"],
            clip=(values["clip"][0], values["clip"][1]),
            size=(attrs["width"], attrs["height"]),
        )

    def point(self, mean: Sequence[float]) -> Vector:
        """A point of the world in camera space."""
        return [dot(row[:3], mean) + row[3] for row in self.view]

    def position(self) -> Vector:
        """The camera's centre in the world."""
        return [-math.fsum(self.view[k][j] * self.view[k][3] for k in range(3)) for j in range(3)]

    def to_world(self, direction: Sequence[float]) -> Vector:
        return [math.fsum(self.view[k][j] * direction[k] for k in range(3)) for j in range(3)]

    def pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Where a point of camera space lands."""
        a, b = point[:2] if self.model == "ortho" else bent(self.model, self.distortion, point)
        return self.focal[0] * a + self.center[0], self.focal[1] * b + self.center[1]

    def sees(self, point: Sequence[float]) -> tuple[bool, bool]:
        """Whether a point lies between the clip planes and where the lens grows; and whether that was close."""
        z, (near, far) = point[2], self.clip
        close = min(abs(z - near), abs(z - far)) < MARGIN
        if not near <= z <= far:
            return False, close
        if not self.distortion:
            return True, close
        slope, limit = math.hypot(point[0], point[1]) / z, lens_limit(self.model, self.distortion)
        return slope <= limit, close or abs(slope - limit) < 0.02

    def held(self, point: Sequence[float]) -> tuple[Vector, bool]:
        """The point whose Jacobian is taken: slopes of a pinhole stay near the frame. And whether that was close."""
        x, y, z = point
        if self.model != "pinhole":
            return [x, y, z], False
        share = _DISTORTED_FRAME_MARGIN if self.distortion else _FRAME_MARGIN
        slopes, close = [], False
        for value, f, c, size in zip((x / z, y / z), self.focal, self.center, self.size, strict=True):
            margin = share * 0.5 * size / f
            low, high = -c / f - margin, (size - c) / f + margin
            close = close or min(abs(value - low), abs(value - high)) < MARGIN
            slopes.append(min(max(value, low), high))
        return [slopes[0] * z, slopes[1] * z, z], close

    def jacobian(self, point: Sequence[float]) -> list[Vector]:
        """Derivatives of a pixel in a point, by fourth-order differences."""
        columns = []
        for axis in range(3):
            ends = []
            for step in (-2e-3, -1e-3, 1e-3, 2e-3):
                moved = list(point)
                moved[axis] += step
                ends.append(self.pixel(moved))
            columns.append([(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / 12e-3 for e in zip(*ends, strict=True)])
        return [[column[row] for column in columns] for row in range(2)]


def bent(model: str, distortion: Sequence[float], point: Sequence[float]) -> tuple[float, float]:
    """The slopes of a point behind the lens."""
    a, b = point[0] / point[2], point[1] / point[2]
    if not distortion:
        return a, b
    r2 = a * a + b * b
    if model == "fisheye":
        angle = math.atan(math.sqrt(r2))
        polynomial = 1 + math.fsum(k * angle ** (2 * n) for n, k in enumerate(distortion, 1))
        scale = angle * polynomial / math.sqrt(r2) if r2 > 1e-20 else 1.0
        return a * scale, b * scale
    k1, k2, k3, k4, k5, k6, p1, p2 = distortion
    scale = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        a * scale + 2 * p1 * a * b + p2 * (r2 + 2 * a * a),
        b * scale + p1 * (r2 + 2 * b * b) + 2 * p2 * a * b,
    )


@lru_cache(maxsize=256)
def lens_limit(model: str, distortion: tuple[float, ...]) -> float:
    """The slope up to which a lens, without its tangential terms, takes larger slopes to larger ones, by trying."""
    radial = distortion if model == "fisheye" else (*distortion[:6], 0.0, 0.0)
    before = 0.0
    for step in range(1, _SCAN + 1):
        slope = step * _FARTHEST / _SCAN
        after = bent(model, radial, (slope, 0.0, 1.0))[0]
        if after <= before:
            return slope - _FARTHEST / _SCAN
        before = after
    return math.inf
