"""``stipple inspect``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from captures import truth, write_colmap
from running import stipple


def test_inspect(capture: Path, tmp_path: Path) -> None:
    Image.new("RGB", (48, 36)).save(capture / "images" / "stray.png")
    try:
        result = stipple("inspect", capture, "-o", tmp_path / "c.png", "--test-every", 5)
    finally:
        (capture / "images" / "stray.png").unlink()
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for wanted in (
        "COLMAP",
        "10: 8 to train on, 2 held out",
        "60, with the views that observe them",
        "48 x 36",
        "45.00",
        "stray.png",
    ):
        assert wanted in text, wanted
    assert "there are only 60 points" in text
    picture = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 500
    blue = (np.abs(picture - [0x33, 0x66, 0xAA]).max(axis=2) < 40).sum()
    red = (np.abs(picture - [0xCC, 0x44, 0x33]).max(axis=2) < 40).sum()
    assert blue > 2 * red > 50, "training and held-out cameras are drawn"


def test_inspect_warns_of_photos_far_apart(tmp_path: Path) -> None:
    street = Path(__file__).parents[2] / "examples" / "data" / "lund"
    warning = "the photos were taken far apart: 0.35 units from one to the next, the scene 0.37 away"
    assert warning in " ".join(stipple("inspect", street, "-o", tmp_path / "c.png").output.split())


def test_inspect_warns_of_a_camera_far_out_and_of_a_small_baseline(tmp_path: Path) -> None:
    from dataclasses import replace

    made = truth()
    far = replace(made.cameras[4], viewmat=made.cameras[4].viewmat + np.outer([0, 0, 1, 0], [0, 0, 0, 200.0]))
    write_colmap(replace(made, cameras=(*made.cameras[:4], far, *made.cameras[5:])), tmp_path / "a")
    assert "times farther away than most cameras" in " ".join(
        stipple("inspect", tmp_path / "a", "-o", tmp_path / "a.png").output.split()
    )
    near = tuple(
        replace(made.cameras[0], viewmat=made.cameras[0].viewmat + np.outer([1, 0, 0, 0], [0, 0, 0, 0.001 * i]))
        for i in range(10)
    )
    write_colmap(replace(made, cameras=near), tmp_path / "b")
    message = " ".join(stipple("inspect", tmp_path / "b", "-o", tmp_path / "b.png").output.split())
    assert "depth is poorly determined" in message
    assert "far apart" not in message


def test_inspect_says_what_becomes_of_distortion(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path / "c", binary=False)
    cameras = tmp_path / "c" / "sparse" / "0" / "cameras.txt"
    text = cameras.read_text()
    for model, more in (("OPENCV", " 0.05 -0.02 0.001 0.0005"), ("OPENCV_FISHEYE", " 0.05 -0.02 0.001 0.0005")):
        cameras.write_text(text.replace("PINHOLE", model).rstrip() + more + "\n")
        kind = "fisheye" if "FISHEYE" in model else "radial and tangential"
        for given, done in (([], "undone"), (["--no-undistort"], "kept")):
            output = stipple("inspect", tmp_path / "c", "-o", tmp_path / "c.png", *given).output
            words = re.sub(r"[^\w,]+", " ", output)
            assert all(word in words for word in f"{kind}, {done}".split()), output
            assert ("undone" in words) == (done == "undone")
