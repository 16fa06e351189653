"""Scenes that several benchmarks share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stipple.bench.cases import Case, slam_case

GARDEN = Path(__file__).parents[1] / "examples" / "data" / "garden_points.npz"
_CROP = 2.0


def garden_case(factor: int = 1, grid: int = 1, path: str | Path = GARDEN) -> Case:
    """The garden's points at ``factor`` times 648x420, dressed as gsplat's tests do: random rotations, scales from
    0.01 to 0.03, random opacities. With an odd ``grid`` above 1 the middle is repeated ``grid`` times along x and y,
    as gsplat's profiling does to mimic a large scene."""
    with np.load(path) as file:
        data = dict(file)
    f4 = np.float32
    means, colors = data["means3d"].astype(f4), (data["colors"] / 255).astype(f4)
    name = "garden"
    if grid > 1:
        inside = (np.abs(means) <= _CROP).all(axis=1)
        steps = np.arange(-(grid // 2), grid // 2 + 1, dtype=f4) * f4(2 * _CROP)
        shifts = np.stack([*np.meshgrid(steps, steps, indexing="ij"), np.zeros((grid, grid), f4)], -1).reshape(-1, 1, 3)
        means = np.ascontiguousarray((means[inside] + shifts).reshape(-1, 3))
        colors = np.tile(colors[inside], (grid * grid, 1))
        name = f"garden x {grid} x {grid}"
    rng = np.random.default_rng(42)
    count = len(means)
    quats = rng.normal(size=(count, 4)).astype(f4)
    scales = rng.uniform(0.01, 0.03, (count, 3)).astype(f4)
    opacities = rng.uniform(0, 1, count).astype(f4)
    width, height = int(data["width"]) * factor, int(data["height"]) * factor
    intrinsics = data["Ks"][0].astype(f4).copy()
    intrinsics[:2] *= factor
    plain = slam_case(1, width, height, 1.0)
    viewmat = data["viewmats"][0].astype(f4)
    operands = plain.operands._replace(
        means=means,
        quats=quats,
        scales=scales,
        opacities=opacities,
        colors=colors,
        viewmat=viewmat,
        intrinsics=intrinsics,
    )
    return Case(f"{name}, {count:,} points, {width}x{height}", operands, plain.attrs)


def thinned(count: int, width: int, height: int) -> Case:
    """``count`` of the garden's points, evenly chosen and so much wider that they cover as much, seen by a camera of
    this size with the same vertical field of view."""
    case = garden_case()
    x = case.operands
    chosen = np.linspace(0, len(x.means) - 1, count).astype(int)
    wider = np.float32((len(x.means) / count) ** 0.5)
    kept = {n: np.ascontiguousarray(getattr(x, n)[chosen]) for n in ("means", "quats", "opacities", "colors")}
    intrinsics = x.intrinsics * np.float32(height / case.attrs["height"])
    intrinsics[:, 2] = width / 2, height / 2, 1
    operands = x._replace(**kept, scales=x.scales[chosen] * wider, intrinsics=intrinsics)
    return Case(f"garden, {count:,} of its points, {width}x{height}", operands, slam_case(1, width, height, 1.0).attrs)


def named_capture(text: str) -> tuple[str, str, str, list[str]]:
    """NAME=PRESET:PATH[,OPTION...] taken apart."""
    name, rest = text.split("=", 1)
    preset, path = rest.split(":", 1)
    path, *more = path.split(",")
    return name, preset, path, more
