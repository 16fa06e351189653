"""Poses from plain photos: the photos that ship give a capture that trains."""

from __future__ import annotations

import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stipple.cli import main
from stipple.errors import FileFormatError, InputError
from stipple.formats.captures import load_frame, open_capture
from stipple.poses import make_poses, store_photo

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
    with pytest.raises(InputError, match="could not be connected"):
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


def _photos(folder: Path) -> None:
    for i in range(4):
        Image.new("RGB", (40, 30), (9 * i, 9, 9)).save(folder / f"{i}.png")


def _bomb(path: Path) -> None:
    """A header that announces 900 million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 10) + b"IDAT")


def test_photos_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    _photos(tmp_path)
    for name, spoil, message in (
        ("1.png", _bomb, "more pixels than an image may have"),
        ("2.png", lambda p: p.write_bytes(p.read_bytes()[:-30]), "broken or truncated"),
        ("3.png", lambda p: p.write_bytes(b"nonsense"), "cannot be read as an image: unknown format"),
    ):
        whole = (tmp_path / name).read_bytes()
        spoil(tmp_path / name)
        with pytest.raises(FileFormatError, match=rf"{name}: {message}"):
            make_poses(tmp_path, tmp_path / "out")
        (tmp_path / name).write_bytes(whole)


def test_a_photo_that_colmap_leaves_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on without the photo, and find other poses."""

    def store(source: Path, target: Path, max_size: int | None) -> None:
        store_photo(source, target, max_size)
        if target.name == "2.png":
            target.write_bytes(b"nonsense")

    _photos(tmp_path)
    monkeypatch.setattr("stipple.poses.store_photo", store)
    with pytest.raises(InputError, match=r"COLMAP could not read 2\.png;"):
        make_poses(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_broken_colour_profile_does_no_harm(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    Image.new("RGB", (60, 40), (200, 90, 30)).save(source, icc_profile=b"\xff\0broken" * 9)
    store_photo(source, target, 30)
    with Image.open(target) as stored:
        assert stored.size == (30, 20)
        assert "icc_profile" not in stored.info
        assert np.abs(np.asarray(stored.convert("RGB")).astype(int) - [200, 90, 30]).max() < 12


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "jpg"), ("CMYK", "png"), ("P", "jpg"), ("LA", "jpeg")])
def test_a_photo_whose_suffix_lies(mode: str, suffix: str, tmp_path: Path) -> None:
    """Made smaller it is stored as what its name says."""
    source = tmp_path / f"a.{suffix}"
    Image.new("RGB", (60, 40)).convert(mode).save(source, "TIFF" if mode == "CMYK" else "PNG")
    store_photo(source, tmp_path / f"b.{suffix}", 30)
    with Image.open(tmp_path / f"b.{suffix}") as stored:
        assert (stored.size, stored.format) == ((30, 20), "PNG" if suffix == "png" else "JPEG")


def test_formats_that_colmap_cannot_read_are_stored_as_jpeg(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in SOME:
        with Image.open(PHOTOS / name) as image:
            image.save(photos / name.replace(".jpg", ".webp"), quality=95)
    made = make_poses(photos, tmp_path / "out", max_size=200)
    assert made.posed >= 5
    capture = open_capture(tmp_path / "out")
    assert {v.name for v in capture.views} <= {n.replace(".jpg", ".webp.jpg") for n in SOME}
    assert max(load_frame(capture.views[0]).pixels.shape) == 200


@pytest.mark.parametrize("name", ["line\nbreak.png", " ends.png ", os.fsdecode(b"caf\xe9.png")])
def test_names_that_a_model_cannot_hold(name: str, tmp_path: Path) -> None:
    _photos(tmp_path)
    named = tmp_path / f" {name.strip()}" if name.startswith(" ") else tmp_path / name
    try:
        (tmp_path / "3.png").rename(named)
    except OSError:
        pytest.skip("this file system stores no such name")
    with pytest.raises(InputError, match="rename this photo"):
        make_poses(tmp_path, tmp_path / "out")
