"""Whole runs: what a new user gets, and what survives being stopped and killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from captures import truth, write_blender, write_colmap, write_nerfstudio, write_open3d
from running import stipple
from stipple.formats import load_ply
from stipple.train.checkpoint import load_checkpoint

QUICK = ["--steps", "60", "--set", "density.start=10", "--set", "density.every=10", "--set", "schedule.sh_every=15"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stipple", *(str(a) for a in arguments)]


def test_views_that_were_not_trained_on_get_better(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [r["test_psnr"] for r in rows if "test_psnr" in r]
    assert len(curve) == 5
    assert curve[-1] > curve[0] + 3
    assert curve[-1] > 22
    final = rows[-1]
    assert final["final"]
    assert final["train_psnr"] > 24
    losses = [r["loss"] for r in rows if "loss" in r]
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    assert rows[-2]["count"] > 60, "Gaussians were added"


def test_views_are_not_evaluated_right_after_a_reset_of_opacities(capture: Path, tmp_path: Path) -> None:
    curves = {}
    for every in (0, 100):
        more = ["--set", f"density.reset_every={every}", "--set", "density.start=5000"]
        result = stipple("train", capture, "-o", tmp_path / str(every), "--steps", 300, "--set", "density.stop=1.0",
                         "--set", "output.evaluate_every=100", *more)  # fmt: skip
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in (tmp_path / str(every) / "metrics.jsonl").read_text().splitlines()]
        curves[every] = [r["test_psnr"] for r in rows if "test_psnr" in r]
    assert curves[100][0] == curves[0][0], "the first reset comes after the first evaluation"
    assert curves[100][1] != curves[0][1], "but it comes"


def test_the_scene_is_in_the_captures_own_units(run: Path) -> None:
    scene = load_ply(run / "scene.ply")
    assert scene.sh_degree >= 0
    middle = np.median(scene.means, axis=0)
    assert np.linalg.norm(middle) < 0.4, "the ball lies at the origin"
    assert 0.5 < np.linalg.norm(scene.means - middle, axis=1).mean() < 1.2


def test_cameras_are_written(run: Path) -> None:
    rows = json.loads((run / "cameras.json").read_text())
    assert sorted(r["name"] for r in rows) == [f"{i:03d}.png" for i in range(10)]
    for row in rows:
        wanted = truth().cameras[int(row["name"][:3])]
        np.testing.assert_allclose(row["viewmat"], wanted.viewmat, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes(capture: Path, tmp_path: Path) -> None:
    scenes = []
    for name, seed, threads in (("a", 0, 1), ("b", 0, 2), ("c", 1, 2)):
        result = stipple("train", capture, "-o", tmp_path / name, *QUICK, "--seed", seed, "--threads", threads)
        assert result.exit_code == 0, result.output
        scenes.append((tmp_path / name / "scene.ply").read_bytes())
    assert scenes[0] == scenes[1]
    assert scenes[0] != scenes[2]


@pytest.mark.parametrize(
    ("write", "more"),
    [
        (write_blender, ["--strategy", "mcmc", "--set", "start.count=500"]),
        (write_blender, ["--background", "random", "--set", "start.count=500"]),
        (write_open3d, ["--depth-weight", "0.5"]),
        (write_nerfstudio, ["--exposure", "--refine-poses", "--antialiased"]),
        (write_nerfstudio, ["--image-memory", "1e-5", "--downscale", "1.5"]),
    ],
)
def test_every_kind_of_capture_trains(write: object, more: list[str], tmp_path: Path) -> None:
    write(truth(), tmp_path / "capture")  # type: ignore[operator]
    steps = ["--steps", "150", "--set", "density.start=20", "--set", "schedule.sh_every=50"]
    result = stipple("train", tmp_path / "capture", "-o", tmp_path / "out", *steps, *more)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    curve = [r["test_psnr"] for r in rows if "test_psnr" in r]
    assert curve[-1] > curve[0] + 1, curve
    assert stipple("eval", tmp_path / "out").exit_code == 0


def test_a_run_killed_anywhere_goes_on_as_if_it_had_not_been(capture: Path, tmp_path: Path) -> None:
    """SIGKILL after random times, again and again; the final scene and checkpoint are those of an undisturbed run."""
    steps = [*QUICK, "--steps", "300", "--checkpoint-every", "7", "--set", "density.strategy=mcmc"]
    assert subprocess.run(command("train", capture, "-o", tmp_path / "whole", *steps), check=False).returncode == 0
    rng = np.random.default_rng(0)
    out, kills = tmp_path / "killed", 0
    arguments: list[object] = ["train", capture, "-o", out, *steps]
    while kills < 6:
        before = _step_of(out)
        process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while _step_of(out) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        finished = process.wait() == 0
        kills += 1
        arguments = ["train", "-o", out, "--resume"]
        if finished:
            break
    assert kills > 1
    assert subprocess.run(command(*arguments), check=False).returncode == 0
    assert (out / "scene.ply").read_bytes() == (tmp_path / "whole" / "scene.ply").read_bytes()
    ours, theirs = (load_checkpoint(p / "checkpoint.safetensors").arrays for p in (out, tmp_path / "whole"))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    numbers = [r["step"] for r in logged if "loss" in r]
    assert numbers == list(range(10, 301, 10)), "every step is logged once"
    whole = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    for row in (*logged, *whole):
        row.pop("seconds", None)
    assert logged == whole, "and as if nothing had happened"


def _step_of(out: Path) -> int:
    file = out / "checkpoint.safetensors"
    return load_checkpoint(file).step if file.exists() else -1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_a_checkpoint_and_says_how_to_go_on(number: int, capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command("train", capture, "-o", out, "--steps", 100_000)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    found = re.search(r"Stopped after step (\d+); continue with: stipple train -o (\S+) --resume", text)
    assert found is not None, text
    assert load_checkpoint(out / "checkpoint.safetensors").step == int(found[1])
    assert not list(out.glob(".*"))


def test_resume_on_other_photos_or_a_broken_checkpoint(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stipple("train", capture, "-o", out, *QUICK).exit_code == 0
    write_colmap(truth(7), tmp_path / "other")
    result = stipple("train", tmp_path / "other", "-o", out, "--resume")
    assert result.exit_code == 1
    assert "other: 007.png is gone: the capture holds other photos now" in result.output
    file = out / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    result = stipple("train", "-o", out, "--resume")
    assert result.exit_code == 1
    assert "broken checkpoint" in result.output
    file.unlink()
    assert "no checkpoint to resume from" in stipple("train", "-o", out, "--resume").output


def test_a_finished_run_can_be_finished_again(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stipple("train", capture, "-o", out, *QUICK).exit_code == 0
    before = (out / "scene.ply").read_bytes()
    (out / "report.html").unlink()
    assert stipple("train", "-o", out, "--resume").exit_code == 0
    assert (out / "scene.ply").read_bytes() == before
    assert (out / "report.html").exists()
