"""A capture reads files of its own folder; of the rest of the disk only with --allow-outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from captures import Truth, truth, write_blender, write_colmap, write_nerfstudio, write_tum
from stipple.cli import main
from stipple.errors import FileFormatError
from stipple.formats.captures import CaptureOptions, load_frame, open_capture

OUTSIDE = CaptureOptions(allow_outside=True)


def _text(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new.replace("ABS", str(root.parent)), 1))

    return change


def _colmap_text(made: Truth, root: Path) -> None:
    write_colmap(made, root, binary=False)


_NERF, _IMAGES = "transforms.json", "sparse/0/images.txt"
LEAVING = {
    "colmap, up": (_colmap_text, _text(_IMAGES, " 000.png", " ../../000.png"), "an image"),
    "colmap, absolute": (_colmap_text, _text(_IMAGES, " 000.png", " ABS/000.png"), "an image"),
    "nerfstudio, photo": (write_nerfstudio, _text(_NERF, "images/000.png", "../000.png"), "frame 0"),
    "nerfstudio, absolute": (write_nerfstudio, _text(_NERF, "images/000.png", "ABS/000.png"), "frame 0"),
    "nerfstudio, mask": (write_nerfstudio, _text(_NERF, "masks/000.png", "../000.png"), "mask_path"),
    "nerfstudio, depth": (write_nerfstudio, _text(_NERF, "depth/000.png", "../depth.png"), "depth_file_path"),
    "nerfstudio, points": (write_nerfstudio, _text(_NERF, "points.ply", "../points.ply"), "ply_file_path"),
    "blender": (write_blender, _text("transforms_train.json", "./train/000", "../000"), "frame 0"),
    "tum": (write_tum, _text("rgb.txt", "rgb/000.png", "ABS/000.png"), r"rgb\.txt"),
    "tum, depth": (write_tum, _text("depth.txt", "depth/000.png", "../depth.png"), r"depth\.txt"),
}


@pytest.mark.parametrize("case", LEAVING)
def test_names_that_leave_the_folder(case: str, tmp_path: Path) -> None:
    write, change, where = LEAVING[case]
    root = tmp_path / "capture"
    write(truth(), root)
    for inside, outside in (("images", "000.png"), ("train", "000.png"), ("rgb", "000.png"), ("depth", "depth.png")):
        if (root / inside).is_dir():
            shutil.copy(root / inside / "000.png", tmp_path / outside)
    if (root / "points.ply").exists():
        shutil.copy(root / "points.ply", tmp_path)
    before = [load_frame(v).pixels.sum() for v in open_capture(root).views]
    change(root)
    with pytest.raises(FileFormatError, match=rf"({where}).* is outside the capture's folder; .*--allow-outside"):
        open_capture(root)
    opened = open_capture(root, OUTSIDE)
    assert sorted(load_frame(v).pixels.sum() for v in opened.views) == sorted(before)


def test_names_that_stay_inside(tmp_path: Path) -> None:
    """Absolute ones, ones with dots, and links, which the user made."""
    root = tmp_path / "capture"
    write_nerfstudio(truth(), root)
    (root / "images").rename(tmp_path / "photos")
    (root / "images").symlink_to(tmp_path / "photos")
    file = root / "transforms.json"
    meta = json.loads(file.read_text())
    meta["frames"][0]["file_path"] = "./images/../images/000.png"
    meta["frames"][1]["file_path"] = str(root / "images/001.png")
    file.write_text(json.dumps(meta))
    assert [v.name for v in open_capture(root).views] == [f"images/{i:03d}.png" for i in range(10)]


def test_folders_that_the_user_names_may_lie_anywhere(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    write_colmap(truth(), root)
    (root / "images").rename(tmp_path / "photos")
    assert len(open_capture(root, CaptureOptions(images="../photos")).views) == 10


@pytest.mark.parametrize("name", ["", " ", "a\0b", "\ud800", 3, None, []])
def test_what_is_no_name(name: object, tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path)
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, "frames": [{**meta["frames"][0], "file_path": name}]}))
    with pytest.raises(FileFormatError, match="frame 0: expected"):
        open_capture(tmp_path)


def test_the_flag_of_the_commands(tmp_path: Path) -> None:
    """Inspect and train take it; eval and --resume know it from the run."""
    root = tmp_path / "capture"
    write_nerfstudio(truth(), root, extras=False)
    shutil.copy(root / "images/000.png", tmp_path)
    _text("transforms.json", "images/000.png", "../000.png")(root)
    picture, run = str(tmp_path / "p.png"), str(tmp_path / "run")

    def stipple(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(arguments))
        return result.exit_code, result.output

    train = ("train", str(root), "-o", run, "--steps", "2", "--preset", "fast")
    for command in (("inspect", str(root), "-o", picture), train):
        code, said = stipple(*command)
        assert (code, said.count("--allow-outside"), said.count("\n")) == (1, 1, 1), said
        code, said = stipple(*command, "--allow-outside")
        assert code == 0, said
    code, said = stipple("eval", run)
    assert code == 0, said
