"""``stipple convert``, and the other commands on scenes of every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from ply_files import scene
from running import stipple
from stipple.formats import load_scene, save_scene


def test_to_a_smaller_file_and_back(tmp_path: Path) -> None:
    save_scene(scene(40, 2), tmp_path / "s.ply")
    result = stipple("convert", tmp_path / "s.ply", tmp_path / "s.splat")
    assert result.exit_code == 0, result.output
    flat = " ".join(result.output.split())
    assert "note: a .splat file holds no SH above degree 0" in flat
    assert "40 Gaussians" in flat
    assert (tmp_path / "s.splat").stat().st_size == 40 * 32
    result = stipple("convert", tmp_path / "s.splat", tmp_path / "back.ply")
    assert result.exit_code == 0, result.output
    assert "note" not in result.output
    assert load_scene(tmp_path / "back.ply").sh_degree == 0


def test_info_and_render(tmp_path: Path) -> None:
    save_scene(scene(40, 0), tmp_path / "s.splat")
    assert "degree 0" in stipple("info", tmp_path / "s.splat").output
    result = stipple("render", tmp_path / "s.splat", "-o", tmp_path / "p.png", "--size", "48x32")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [("s.ply", "s.obj", "expected the name of a scene file"), ("none.ply", "s.splat", "No such file")],
)
def test_failures(source: str, target: str, message: str, tmp_path: Path) -> None:
    save_scene(scene(2, 0), tmp_path / "s.ply")
    result = stipple("convert", tmp_path / source, tmp_path / target)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / target).exists()
