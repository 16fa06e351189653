"""Which format a file is read and written in, and that a new one is one registration."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from ply_files import packed, scene
from stipple import Gaussians
from stipple.errors import FileFormatError, InputError
from stipple.formats import load_ply, load_scene, save_ply, save_scene
from stipple.formats.scenes.base import FORMATS, SceneFormat, scene_format


def test_the_suffix_says_which(tmp_path: Path) -> None:
    made = scene(3, 0)
    for name in ("a.ply", "b.PLY", "c.splat"):
        save_scene(made, tmp_path / name)
        assert load_scene(tmp_path / name).count == 3
    assert (tmp_path / "b.PLY").read_bytes().startswith(b"ply")
    (tmp_path / "d.ply").write_bytes(packed(2, 9))
    assert load_scene(tmp_path / "d.ply").sh_degree == 2


def test_a_file_without_a_known_suffix_is_known_by_its_begin(tmp_path: Path) -> None:
    save_ply(scene(3, 1), tmp_path / "scene")
    assert load_scene(tmp_path / "scene").sh_degree == 1
    assert load_ply(tmp_path / "scene").sh_degree == 1
    (tmp_path / "scene.txt").write_text("text")
    with pytest.raises(
        FileFormatError, match=r"txt: not a scene: expected packed splats \(\.splat\), splat PLY \(\.ply\)$"
    ):
        load_scene(tmp_path / "scene.txt")


def test_writing_needs_a_known_suffix(tmp_path: Path) -> None:
    for name in ("scene", "scene.obj"):
        with pytest.raises(InputError, match=rf"{name}: expected the name of a scene file: .*\.ply"):
            save_scene(scene(1, 0), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    for name in ("none.ply", "none.xyz"):
        with pytest.raises(FileNotFoundError):
            load_scene(tmp_path / name)


def test_a_new_format_is_one_registration(tmp_path: Path) -> None:
    def read(name: str, file: BinaryIO) -> Gaussians:
        del name
        return Gaussians.from_linear(np.frombuffer(file.read(), np.float32).reshape(-1, 3), 0.1, 0.5, np.zeros((2, 3)))

    def write(made: Gaussians, file: BinaryIO) -> None:
        file.write(made.means.tobytes())

    added = scene_format(SceneFormat("means", "positions alone", ".means", read, write))
    try:
        save_scene(scene(2, 0), tmp_path / "s.means")
        np.testing.assert_array_equal(load_scene(tmp_path / "s.means").means, scene(2, 0).means)
    finally:
        FORMATS.remove(added)
