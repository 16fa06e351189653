"""A capture that has changed since a run began."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures import truth, write_colmap, write_nerfstudio, write_open3d
from running import killed, train
from stipple.errors import FileFormatError, InputError
from stipple.train import Meter

STEPS, EVERY = 60, 20


def _edit(path: Path) -> None:
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


def test_a_changed_photo_is_named(capture: Path, out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    _edit(copy / "images" / "003.png")
    with pytest.raises(FileFormatError, match=r"003\.png: the file has changed since the run began; restore it"):
        train(copy, out, resume=True)
    shutil.copy(capture / "images" / "003.png", copy / "images" / "003.png")
    train(copy, out, resume=True)
    assert json.loads((out / "run.json").read_text())["capture"] == str(copy), "where the capture is now"


@pytest.mark.parametrize("change", ["pose", "points", "photo gone", "photo new"])
def test_a_changed_capture_is_reported(change: str, capture: Path, out: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    made = truth()
    message = {
        "pose": r"the camera of 004\.png \(its pose, lens or size\) has changed",
        "points": "the points have changed",
        "photo gone": r"009\.png is gone: the capture holds other photos now",
        "photo new": r"010\.png was not there when the run began",
    }[change]
    if change == "pose":
        viewmat = made.cameras[4].viewmat.copy()
        viewmat[0, 3] += 1e-4
        cameras = (*made.cameras[:4], replace(made.cameras[4], viewmat=viewmat), *made.cameras[5:])
        made = replace(made, cameras=cameras)
    elif change == "points":
        made = replace(made, points=made.points + np.eye(60, 3) * 1e-6)
    elif change == "photo gone":
        made = replace(made, cameras=made.cameras[:9], photos=made.photos[:9])
    else:
        made = replace(made, cameras=(*made.cameras, made.cameras[0]), photos=(*made.photos, made.photos[0]))
    write_colmap(made, tmp_path / "changed")
    with pytest.raises(InputError, match=message):
        train(tmp_path / "changed", out, resume=True)


def test_a_changed_depth_map_is_named(tmp_path: Path) -> None:
    write_open3d(truth(), tmp_path / "capture")
    out = killed(tmp_path / "capture", tmp_path / "out", 21)
    file = sorted((tmp_path / "capture" / "depth").iterdir())[2]
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(FileFormatError, match=f"{file.name}: the file has changed"):
        train(tmp_path / "capture", out, resume=True)


def test_a_mask_that_comes_later_is_reported(tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path / "capture")
    out = killed(tmp_path / "capture", tmp_path / "out", 21)
    described = json.loads((out / "run.json").read_text())
    for row in described["contents"]["views"].values():
        del row["files"]["mask"]
    (out / "run.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="has a mask now, unlike when the run began"):
        train(tmp_path / "capture", out, resume=True)
    (out / "run.json").write_text(json.dumps({"capture": "x", "contents": {"views": [1]}}))
    with pytest.raises(FileFormatError, match="the record of the capture is broken"):
        train(tmp_path / "capture", out, resume=True)


def test_a_photo_that_changes_while_it_is_streamed_is_named(capture: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))

    class Meddler(Meter):
        def training(self, first: int, steps: int) -> None:
            for photo in (copy / "images").iterdir():
                _edit(photo)

    with pytest.raises(FileFormatError, match=r"\d\.png: the file has changed since the run began"):
        train(copy, tmp_path / "out", meter=Meddler(), settings={"data": {"image_memory": 1e-9}})


def test_eval_says_that_a_photo_has_changed(capture: Path, out: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from stipple.cli import main

    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    train(copy, out, resume=True)
    assert "note:" not in CliRunner().invoke(main, ["eval", str(out)]).output
    _edit(copy / "images" / "000.png")
    result = CliRunner().invoke(main, ["eval", str(out)])
    assert result.exit_code == 0
    assert "000.png: the file has changed since the run began" in result.output
