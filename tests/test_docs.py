"""Examples and the code in the documentation run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stipple
from stipple import ir

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["README.md", "docs/ir.md"])
def test_code_on_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/ir.md",
        "docs/cpu.md",
        "docs/training.md",
        "docs/gpu.md",
        "docs/values.md",
        "docs/promises.md",
        "benchmarks/README.md",
        "tests/data/README.md",
        "examples/data/README.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


def test_every_op_is_on_the_page() -> None:
    page = (ROOT / "docs/ir.md").read_text()
    for name in ir.REGISTRY:
        short = name.removesuffix("_backward").removeprefix("logical_")
        assert re.search(rf"\b{short}\b", page), name


def test_the_tests_that_hold_promises_exist() -> None:
    named = re.findall(r"`([a-z_/]+\.py)(?:::([a-z_0-9]+))?`", (ROOT / "docs/promises.md").read_text())
    assert len(named) > 20
    for file, function in named:
        text = (ROOT / "tests" / file).read_text()
        assert f"def {function}(" in text if function else "def test_" in text, f"{file}::{function}"


def test_first_picture(tmp_path: Path) -> None:
    script = ROOT / "examples" / "first_picture.py"
    out = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, check=True, timeout=120, capture_output=True, text=True
    ).stdout
    assert "splat_rasterize" in out
    picture = np.asarray(Image.open(tmp_path / "out" / "first_picture.png"), dtype=float)
    assert picture.shape == (300, 800, 3)
    color, depth = picture[:, :400], picture[:, 400:]
    assert np.ptp(color, axis=2).max() > 150, "colourful"
    assert 0.05 < (depth.max(axis=2) > 0).mean() < 0.6, "an object before an empty background"
    loaded = ir.load(tmp_path / "out" / "first_picture.safetensors")
    assert loaded.count("splat_render") == 1


def test_garden(tmp_path: Path) -> None:
    script = ROOT / "examples" / "garden.py"
    out = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, check=True, timeout=300, capture_output=True, text=True
    ).stdout
    assert out.startswith("stipple render out/garden.ply")
    picture = np.asarray(Image.open(tmp_path / "out" / "garden.png"), dtype=float)
    assert picture.shape == (840, 1296, 3)
    grass = picture[400:560, 0:250].mean(axis=(0, 1))
    assert grass[1] > grass[0] > grass[2], "the lawn on the left is green"
    depth = np.asarray(Image.open(tmp_path / "out" / "garden_depth.png"), dtype=float)
    assert depth[700:].mean() > 1.2 * depth[100:200].mean(), "the ground in front is nearer than the hedge"


def test_features(tmp_path: Path) -> None:
    script = ROOT / "examples" / "features.py"
    out = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, check=True, timeout=300, capture_output=True, text=True
    ).stdout
    assert re.fullmatch(r"out/features.png: up to \d+ Gaussians in a pixel\n", out)
    picture = np.asarray(Image.open(tmp_path / "out" / "features.png"), dtype=float)
    assert picture.shape == (640, 960, 3)
    color, normals = picture[:320, :480], picture[:320, 480:]
    nearness, crowd = picture[320:, :480, 0], picture[320:, 480:, 0]
    sky, lawn = (slice(0, 60), slice(None)), (slice(200, 280), slice(40, 110))
    assert (color[sky] == np.floor(255 * np.array([0.5, 0.6, 0.7]))).all(), "nothing is before the background"
    assert not nearness[sky].any()
    assert not crowd[sky].any()
    red, green, blue = color[lawn].mean(axis=(0, 1))
    assert green > red > blue, "the lawn is green"
    right, up, back = normals[lawn].mean(axis=(0, 1))
    assert up > max(right, back) + 40, "its normals point upwards"
    assert nearness[290:310, 200:280].mean() > 1.5 * nearness[200:220, 200:280].mean(), "the ground in front is nearer"
    assert (crowd[lawn] > 0).mean() > 0.9


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", stipple.__version__)
