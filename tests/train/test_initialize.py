"""The Gaussians that training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captures import truth, write_blender, write_colmap, write_open3d
from stipple import Camera
from stipple.errors import InputError
from stipple.formats.captures import Frame
from stipple.train import Problem, initialize, make_config


def test_points_become_gaussians_as_large_as_their_neighbours_are_far() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    start = make_config(None).start
    scene = initialize.from_points(np.repeat(grid, 2, axis=0), np.full((128, 3), 0.25), start)
    assert scene.count == 64, "points that coincide count once"
    np.testing.assert_allclose(scene.scales, 1, rtol=1e-5)
    np.testing.assert_allclose(scene.opacities, 0.1, rtol=1e-5)
    single = initialize.from_points(np.zeros((1, 3)), np.zeros((1, 3)), start)
    assert np.isfinite(single.log_scales).all()
    with pytest.raises(InputError, match="no points"):
        initialize.from_points(np.zeros((0, 3)), np.zeros((0, 3)), start)


def test_depth_becomes_points_where_the_surface_is() -> None:
    made = truth()
    frames = [
        Frame(c, p, None, d.astype(np.float32)) for c, p, d in zip(made.cameras, made.photos, made.depths, strict=True)
    ]
    points, colors = initialize.from_depth(frames, 2000, 0)
    assert 500 < len(points) <= 2010
    nearest = np.sqrt(((points[:, None] - made.points[None]) ** 2).sum(-1)).min(axis=1)
    assert np.quantile(nearest, 0.9) < 0.35
    assert colors.max() <= 1
    with pytest.raises(InputError, match="no depth map"):
        initialize.from_depth([Frame(made.cameras[0], made.photos[0])], 10, 0)


def test_random_start_fills_what_the_cameras_look_at() -> None:
    made = truth()
    middle, radius = initialize.common_volume(made.cameras)
    np.testing.assert_allclose(middle, 0, atol=0.05)
    assert 1 < radius < 2
    points, _ = initialize.at_random(made.cameras, 500, 0)
    assert np.abs(points).max() <= radius + 0.05
    side = [Camera(48, 36, 45, 45, 24, 18).look_at([x, 0, 0], [x, 0, 5]) for x in (-1, -0.5, 0.5, 1)]
    spread, _ = initialize.at_random(side, 500, 0)
    depth = spread @ side[0].viewmat[2, :3]
    assert depth.min() > 0.2
    assert depth.max() < 4.1


@pytest.mark.parametrize(
    ("write", "source", "low", "high"),
    [(write_colmap, "points", 60, 60), (write_open3d, "depth", 300, 1000), (write_blender, "random", 1000, 1000)],
)
def test_start_takes_what_there_is(write: Any, source: str, low: int, high: int, tmp_path: Path) -> None:
    write(truth(), tmp_path)
    problem = problem_of(tmp_path, start={"count": 1000})
    assert low <= problem.start().count <= high, source
    assert problem_of(tmp_path, density={"max_count": 20}).start().count == 20
    if source == "random":
        with pytest.raises(InputError, match=r"start\.source is points, but the capture has none"):
            problem_of(tmp_path, start={"source": "points"}).start()


def problem_of(root: Path, **sections: Any) -> Problem:
    problem = Problem.open(str(root), make_config(None, sections))
    problem.load(lambda: None)
    problem.close()
    return problem
