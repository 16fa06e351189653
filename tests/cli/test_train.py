"""``stipple train``: what it refuses, in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from captures import truth, write_colmap
from running import stipple

QUICK = ["--steps", "60", "--set", "density.start=10", "--set", "density.every=10", "--set", "schedule.sh_every=15"]


def test_what_resume_refuses(capture: Path, run: Path, tmp_path: Path) -> None:
    result = stipple("train", capture, "-o", run, *QUICK)
    assert result.exit_code == 1
    assert "already holds a run" in result.output
    assert "--overwrite" in result.output
    result = stipple("train", "-o", run, "--resume", "--steps", 5)
    assert result.exit_code == 2
    assert "remove the other options" in result.output
    result = stipple("train", "-o", tmp_path, "--resume")
    assert result.exit_code == 1
    assert "holds no run" in result.output


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("empty", "not a capture"),
        ("photo gone", r"003\.png: the image is missing"),
        ("photo cut", r"003\.png: broken or truncated"),
        ("photo small", r"003\.png: .* do not match the aspect ratio"),
        ("model cut", r"images\.bin: truncated"),
    ],
)
def test_a_bad_capture_ends_in_one_sentence(spoil: str, message: str, tmp_path: Path) -> None:
    root = tmp_path / "capture"
    root.mkdir()
    if spoil != "empty":
        write_colmap(truth(), root)
        photo, model = root / "images" / "003.png", root / "sparse" / "0" / "images.bin"
        if spoil == "photo gone":
            photo.unlink()
        elif spoil == "photo cut":
            photo.write_bytes(photo.read_bytes()[:-300])
        elif spoil == "photo small":
            Image.new("RGB", (20, 36)).save(photo)
        else:
            model.write_bytes(model.read_bytes()[:-9])
    for arguments in (["train", root, "-o", tmp_path / "out"], ["inspect", root, "-o", tmp_path / "x.png"]):
        result = stipple(*arguments)
        if spoil == "photo cut" and arguments[0] == "inspect":
            continue  # inspect reads headers only
        assert result.exit_code == 1
        last = result.output.strip().splitlines()[-1]
        assert re.search(message, result.output.replace("\n", " ")), result.output
        assert "Traceback" not in last
    assert not (tmp_path / "out" / "scene.ply").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "density.evry=3"], "expected section.key=value with a known key"),
        (["--set", "density.every=soon"], "density.every"),
        (["--background", "1,2"], "loss.background"),
        (["--intrinsics", "a,b"], "expected numbers separated by commas"),
        (["--test-every", "1"], "holds out all 10 views"),
        (["--masks", "nowhere"], "folder of masks does not exist"),
        (["--images", "nowhere"], "folder of images does not exist"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_options_end_in_one_sentence(more: list[str], message: str, capture: Path, tmp_path: Path) -> None:
    result = stipple("train", capture, "-o", tmp_path / "out", *more)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert not (tmp_path / "out" / "scene.ply").exists()


def test_show_config_can_be_used_as_a_file(tmp_path: Path, capture: Path) -> None:
    shown = stipple("train", "--show-config", "--preset", "fast", "--steps", 20).output
    assert "steps = 20" in shown
    assert "# optimiser updates" in shown
    (tmp_path / "c.toml").write_text(shown)
    result = stipple("train", capture, "-o", tmp_path / "out", "--config", tmp_path / "c.toml")
    assert result.exit_code == 0, result.output
    assert 'preset = "fast"' in (tmp_path / "out" / "config.toml").read_text()
