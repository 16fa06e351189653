"""``stipple info``, and scenes in which there is nothing to draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import stipple as package
from running import stipple
from stipple.formats import save_ply


def test_info(scene: Path) -> None:
    result = stipple("info", scene)
    assert result.exit_code == 0
    assert "300" in result.output
    assert "degree 0" in result.output
    assert "opacity" in result.output


def test_a_scene_without_gaussians(tmp_path: Path) -> None:
    save_ply(package.Gaussians.from_linear(np.zeros((0, 3)), 0.1, 0.5, np.zeros((0, 3))), tmp_path / "none.ply")
    assert stipple("info", tmp_path / "none.ply").exit_code == 0
    result = stipple("render", tmp_path / "none.ply", "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "holds no Gaussians" in result.output


def test_a_scene_of_nan(tmp_path: Path) -> None:
    values = [np.full((3, 3), np.nan), np.zeros((3, 3)), np.ones((3, 4)), np.zeros(3), np.zeros((3, 1, 3))]
    save_ply(package.Gaussians(*values), tmp_path / "nan.ply")
    assert "3 (never drawn)" in stipple("info", tmp_path / "nan.ply").output
    result = stipple("render", tmp_path / "nan.ply", "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "all 3 Gaussians hold NaN or infinity" in result.output
    assert not (tmp_path / "x.png").exists()
