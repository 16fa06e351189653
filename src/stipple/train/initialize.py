"""The Gaussians that training starts from: points, depth maps, or a random cloud."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from stipple.errors import InputError
from stipple.formats.captures import Frame
from stipple.formats.captures.lens import slopes_of
from stipple.scene.camera import Camera
from stipple.scene.gaussians import Gaussians
from stipple.train.config import Start

Array = np.ndarray
_NEIGHBOURS = 3
_MIN_DISTANCE = 1e-7
_FAR_QUANTILE = 0.99


def from_points(points: Array, colors: Array, config: Start) -> Gaussians:
    """One Gaussian per point [M, 3], its colour [M, 3] in [0, 1], as large as the root mean square distance of its
    three nearest neighbours (Kerbl et al., 2023); points that coincide are used once."""
    places, first = np.unique(np.asarray(points, np.float32), axis=0, return_index=True)
    if not len(places):
        raise InputError("start: there are no points to start from")
    distances = _neighbour_distances(places)
    scales = np.clip(distances * config.scale, _MIN_DISTANCE, None)
    return Gaussians.from_linear(places, scales, config.opacity, np.asarray(colors)[first])


def _neighbour_distances(points: Array) -> Array:
    """Root mean square distance to the nearest neighbours, outliers clamped to a high quantile."""
    if len(points) == 1:
        return np.full(1, 0.01)
    found, _ = cKDTree(points).query(points, k=min(_NEIGHBOURS + 1, len(points)))
    distances = np.sqrt((found[:, 1:] ** 2).mean(axis=1))
    return np.asarray(np.minimum(distances, np.quantile(distances, _FAR_QUANTILE)))


def from_depth(frames: Sequence[Frame], count: int, seed: int) -> tuple[Array, Array]:
    """Points and colours from depth maps, ``count`` in all, taken evenly from the frames' valid pixels."""
    rng = np.random.default_rng([seed, 1])
    points, colors = [], []
    share = -(-count // max(len(frames), 1))
    for frame in frames:
        if frame.depth is None:
            continue
        valid = frame.depth > 0 if frame.mask is None else (frame.depth > 0) & frame.mask
        rows, columns = np.nonzero(valid)
        if len(rows) > share:
            chosen = np.sort(rng.choice(len(rows), share, replace=False))
            rows, columns = rows[chosen], columns[chosen]
        c, z = frame.camera, frame.depth[rows, columns].astype(np.float64)
        slopes = slopes_of(c, np.stack([columns + 0.5, rows + 0.5], axis=1))
        local = np.column_stack([slopes * z[:, None], z])
        points.append((local - c.viewmat[:3, 3]) @ c.viewmat[:3, :3])
        colors.append(frame.pixels[rows, columns, :3] / 255)
    if not points or not sum(map(len, points)):
        raise InputError("start: no depth map holds a valid depth to start from")
    return np.concatenate(points), np.concatenate(colors)


def at_random(cameras: Sequence[Camera], count: int, seed: int) -> tuple[Array, Array]:
    """Grey points, uniform in the box around what the cameras look at together.

    Its middle is the point nearest to all optical axes; it extends half way to the cameras that look at it, as 3DGS
    does for Blender scenes. If the cameras do not look at a common point, points are placed in front of each of them
    instead.
    """
    rng = np.random.default_rng([seed, 2])
    middle, radius = common_volume(cameras)
    box = middle + rng.uniform(-radius, radius, (count, 3))
    points = box if radius > 0 else _in_front(cameras, count, rng)
    return points, np.full((count, 3), 0.5) + rng.uniform(-0.1, 0.1, (count, 3))


def common_volume(cameras: Sequence[Camera]) -> tuple[Array, float]:
    """Middle and half the side of the box that all cameras look at; 0 if they do not look at a common point."""
    places = np.array([c.position for c in cameras])
    axes = np.array([c.viewmat[2, :3] for c in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    middle, *_ = np.linalg.lstsq(across.sum(axis=0), np.einsum("nij,nj->i", across, places), rcond=None)
    toward = middle - places
    ahead = (toward * axes).sum(axis=1)
    facing = ahead > 0.5 * np.linalg.norm(toward, axis=1)
    spread = np.linalg.norm(places - places.mean(axis=0), axis=1).max()
    if len(cameras) < 3 or facing.mean() < 0.9 or np.median(ahead) > 4 * spread:
        return middle, 0.0
    return middle, 0.5 * float(np.median(ahead))


def _in_front(cameras: Sequence[Camera], count: int, rng: np.random.Generator) -> Array:
    """Points in the cameras' views, at depths from a quarter of the scene's extent to four times it."""
    which = rng.integers(0, len(cameras), count)
    z = np.exp(rng.uniform(np.log(0.25), np.log(4.0), count))
    uv = rng.uniform(size=(count, 2))
    points = np.empty((count, 3))
    for i, camera in enumerate(cameras):
        rows = which == i
        depth = z[rows]
        slopes = slopes_of(camera, uv[rows] * [camera.width, camera.height])
        local = np.column_stack([slopes * depth[:, None], depth])
        points[rows] = (local - camera.viewmat[:3, 3]) @ camera.viewmat[:3, :3]
    return points
