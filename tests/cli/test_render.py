"""``stipple render``: pictures, frames, videos."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from captures import truth
from running import stipple


def test_a_picture_with_a_camera_that_frames_the_scene(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "picture.png"
    result = stipple(
        "render", scene, "-o", out, "--size", "160x120", "--depth", tmp_path / "d.png", "--alpha", tmp_path / "a.png"
    )
    assert result.exit_code == 0, result.output
    picture = np.asarray(Image.open(out))
    assert picture.shape == (120, 160, 3)
    alpha = np.asarray(Image.open(tmp_path / "a.png"))
    depth = np.asarray(Image.open(tmp_path / "d.png"))
    assert depth.max() > 10_000
    covered = alpha > 128
    assert 0.1 < covered.mean() < 0.9
    rows, columns = np.nonzero(covered)
    assert abs(rows.mean() - 60) < 12
    assert abs(columns.mean() - 80) < 16
    assert not list(tmp_path.glob("**/.*tmp*"))


def test_camera_options(scene: Path, tmp_path: Path) -> None:
    pictures = []
    for i, more in enumerate(([], ["--fov", 20], ["--from", "5,0,0"], ["--background", "1,1,1"], ["--up", "1,0,0"])):
        out = tmp_path / f"{i}.png"
        assert stipple("render", scene, "-o", out, "--size", "64x48", "--look-at", "0,0,0", *more).exit_code == 0
        pictures.append(np.asarray(Image.open(out)).astype(int))
    for other in pictures[1:]:
        assert np.abs(other - pictures[0]).mean() > 1
    assert pictures[3][0, 0].tolist() == [255, 255, 255]


# imageio leaves its reader's pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_frames_and_video(scene: Path, tmp_path: Path) -> None:
    result = stipple("render", scene, "-o", tmp_path / "frames", "--orbit", 5, "--size", "48x32")
    assert result.exit_code == 0, result.output
    frames = sorted(p.name for p in (tmp_path / "frames").iterdir())
    assert frames == [f"{i:04d}.png" for i in range(5)]
    first, third = (np.asarray(Image.open(tmp_path / "frames" / f"{i:04d}.png")).astype(int) for i in (0, 2))
    assert np.abs(first - third).mean() > 1
    result = stipple("render", scene, "-o", tmp_path / "turn.mp4", "--orbit", 6, "--size", "64x48")
    assert result.exit_code == 0, result.output
    with imageio.get_reader(tmp_path / "turn.mp4") as video:
        assert video.get_meta_data()["size"] == (64, 48)
        assert video.count_frames() == 6


def test_a_run_is_rendered_from_its_photos_cameras(run: Path, tmp_path: Path) -> None:
    assert stipple("render", run, "-o", tmp_path / "p.png", "--view", "003").exit_code == 0
    picture = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    assert picture.shape == (36, 48, 3)
    others = [np.abs(picture - photo).mean() for photo in truth().photos]
    assert int(np.argmin(others)) == 3, "it shows what the photo shows"
    assert stipple("render", run, "-o", f"{tmp_path}/film/", "--size", "64x48").exit_code == 0
    frames = [np.asarray(Image.open(f)).astype(int) for f in sorted((tmp_path / "film").iterdir())]
    assert len(frames) == 120
    assert frames[0].shape == (48, 64, 3)
    steps = [np.abs(a - b).mean() for a, b in pairwise(frames)]
    assert 0 < max(steps) < 12, "it moves, and never jumps"
    result = stipple("render", run, "-o", tmp_path / "q.png", "--view", "nowhere")
    assert result.exit_code == 1
    assert "has no such view; it has 000.png" in result.output
    assert stipple("render", run / "scene.ply", "-o", tmp_path / "q.png", "--view", "003").exit_code == 2
