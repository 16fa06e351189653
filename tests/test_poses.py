"""Poses from plain photos: the photos that ship give a capture that trains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stipple.cli import main
from stipple.errors import InputError
from stipple.formats.captures import load_frame, open_capture
from stipple.poses import make_poses

PHOTOS = Path(__file__).parents[1] / "examples" / "data" / "lund" / "images"
SOME = [f"{i:02d}.jpg" for i in range(4, 13)]


def test_a_walk_along_a_street(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "capture"
    photos.mkdir()
    for name in SOME:
        shutil.copy(PHOTOS / name, photos)
    (photos / "notes.txt").write_text("not a photo")
    result = CliRunner().invoke(main, ["poses", str(photos), "-o", str(out), "--max-size", "200"])
    assert result.exit_code == 0, result.output
    found = re.search(r"(\d+) of 9 photos have a pose", result.output)
    assert found is not None, result.output
    assert int(found[1]) >= 5, "these photos are small"
    capture = open_capture(out)
    assert [v.name for v in capture.views] == [n for n in SOME if (out / "images" / n).exists()]
    assert len(capture.views) == int(found[1])
    frame = load_frame(capture.views[0])
    assert max(frame.pixels.shape) == 200
    assert len(capture.points) > 50
    for view in capture.views:
        assert view.points is not None
        depth = capture.points[view.points] @ view.camera.viewmat[2, :3] + view.camera.viewmat[2, 3]
        assert (depth > 0).all(), "points lie before the cameras that see them"
    places = np.array([v.camera.position for v in capture.views])
    along = places[-1] - places[0]
    assert (np.diff(places @ along) > 0).all(), "the walk goes one way"
    again = tmp_path / "again"
    make_poses(photos, again, max_size=200)
    for file in ("cameras.txt", "images.txt", "points3D.txt"):
        assert (again / "sparse/0" / file).read_bytes() == (out / "sparse/0" / file).read_bytes(), "every time the same"


def test_photos_that_do_not_fit_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match="do not fit together"):
        make_poses(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_photos_and_a_folder_in_use(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 3 photos, found 0"):
        make_poses(tmp_path, tmp_path / "out")
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    (tmp_path / "out" / "sparse").mkdir(parents=True)
    with pytest.raises(InputError, match="already holds a capture"):
        make_poses(tmp_path, tmp_path / "out")
