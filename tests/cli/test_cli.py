"""The command line as a user meets it: pictures, frames, videos, tables, and one clear line when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import stipple
from stipple.cli import main
from stipple.formats import save_ply


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    count = 300
    means = rng.normal(size=(count, 3))
    made = stipple.Gaussians.from_linear(means, 0.15, 0.8, rng.uniform(size=(count, 3)))
    save_ply(made, tmp_path / "scene.ply")
    return tmp_path / "scene.ply"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="stipple")


def test_a_picture_with_a_camera_that_frames_the_scene(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "picture.png"
    result = run(
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
        assert run("render", scene, "-o", out, "--size", "64x48", "--look-at", "0,0,0", *more).exit_code == 0
        pictures.append(np.asarray(Image.open(out)).astype(int))
    for other in pictures[1:]:
        assert np.abs(other - pictures[0]).mean() > 1
    assert pictures[3][0, 0].tolist() == [255, 255, 255]


# imageio leaves its reader's pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_frames_and_video(scene: Path, tmp_path: Path) -> None:
    result = run("render", scene, "-o", tmp_path / "frames", "--orbit", 5, "--size", "48x32")
    assert result.exit_code == 0, result.output
    frames = sorted(p.name for p in (tmp_path / "frames").iterdir())
    assert frames == [f"{i:04d}.png" for i in range(5)]
    first, third = (np.asarray(Image.open(tmp_path / "frames" / f"{i:04d}.png")).astype(int) for i in (0, 2))
    assert np.abs(first - third).mean() > 1
    result = run("render", scene, "-o", tmp_path / "turn.mp4", "--orbit", 6, "--size", "64x48")
    assert result.exit_code == 0, result.output
    with imageio.get_reader(tmp_path / "turn.mp4") as video:
        assert video.get_meta_data()["size"] == (64, 48)
        assert video.count_frames() == 6


def test_info(scene: Path) -> None:
    result = run("info", scene)
    assert result.exit_code == 0
    assert "300" in result.output
    assert "degree 0" in result.output
    assert "opacity" in result.output


def test_devices() -> None:
    result = run("devices")
    assert result.output.splitlines()[0].startswith("cpu")
    assert "reference" in result.output


def test_bench(tmp_path: Path) -> None:
    result = run("bench", "--quick", "--json", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert rows[0]["threads"] == 1
    assert rows[0]["scalar_over_rasterize"] > 1
    assert rows[0]["scalar_difference"] < 1e-3, "the loop beside ours draws the same picture"


FAILURES = {
    "missing": (["info", "nowhere.ply"], "nowhere.ply: No such file or directory"),
    "folder": (["info", "."], "directory"),
    "not a scene": (["info", __file__], "not a scene: expected .splat (.splat), splat PLY (.ply)"),
    "size": (["render", "SCENE", "-o", "x.png", "--size", "big"], "expected pixels such as 1920x1080"),
    "vector": (["render", "SCENE", "-o", "x.png", "--from", "1,2"], "expected three numbers"),
    "ending": (["render", "SCENE", "-o", "x.xyz"], "expected a picture"),
    "same point": (["render", "SCENE", "-o", "OUT.png", "--from", "0,0,0", "--look-at", "0,0,0"], "same point"),
    "device": (["render", "SCENE", "-o", "OUT.png", "--device", "cuda"], "no device 'cuda'"),
    "fov": (["render", "SCENE", "-o", "x.png", "--fov", "200"], "fov"),
}


@pytest.mark.parametrize("case", list(FAILURES))
def test_failures_are_one_clear_line(case: str, scene: Path, tmp_path: Path) -> None:
    arguments, message = FAILURES[case]
    filled = [a.replace("SCENE", str(scene)).replace("OUT", str(tmp_path / "out")) for a in arguments]
    result = run(*filled)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("out*"))


def test_a_scene_without_gaussians(tmp_path: Path) -> None:
    save_ply(stipple.Gaussians.from_linear(np.zeros((0, 3)), 0.1, 0.5, np.zeros((0, 3))), tmp_path / "none.ply")
    assert run("info", tmp_path / "none.ply").exit_code == 0
    result = run("render", tmp_path / "none.ply", "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "holds no Gaussians" in result.output


def test_a_scene_of_nan(tmp_path: Path) -> None:
    values = [np.full((3, 3), np.nan), np.zeros((3, 3)), np.ones((3, 4)), np.zeros(3), np.zeros((3, 1, 3))]
    save_ply(stipple.Gaussians(*values), tmp_path / "nan.ply")
    assert "3 (never drawn)" in run("info", tmp_path / "nan.ply").output
    result = run("render", tmp_path / "nan.ply", "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "all 3 Gaussians hold NaN or infinity" in result.output
    assert not (tmp_path / "x.png").exists()


def test_the_installed_command() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "stipple", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    for command in ("render", "info", "devices", "bench"):
        assert command in out.stdout
    version = subprocess.run([sys.executable, "-m", "stipple", "--version"], capture_output=True, text=True, check=True)
    assert stipple.__version__ in version.stdout
