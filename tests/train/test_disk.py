"""Folders that cannot be written, and disks that are full."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from running import SETTINGS, Watcher, stipple, train
from stipple.errors import InputError
from stipple.train import make_config
from stipple.train.checkpoint import checkpoint_bytes, load_checkpoint

QUICK = ["--steps", "60", "--set", "density.start=10", "--set", "density.every=10", "--set", "schedule.sh_every=15"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stipple", *(str(a) for a in arguments)]


def test_a_folder_that_cannot_be_written_is_said_before_training(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = stipple("train", capture, "-o", tmp_path / "file" / "out", *QUICK)
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_too_small_is_said_before_training(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    result = stipple("train", capture, "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "0 MB are free" in result.output


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(capture: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: checkpoints outgrow it while Gaussians are added."""
    out = tmp_path / "out"
    arguments = command(
        "train", capture, "-o", out, *QUICK, "--steps", 400, "--checkpoint-every", 5, "--set", "density.strategy=mcmc",
        "--set", "density.growth=0.3",
    )  # fmt: skip

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    environment = {**os.environ, "NUMBA_DISABLE_PERFORMANCE_WARNINGS": "1"}
    result = subprocess.run(
        arguments, preexec_fn=limit, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 1
    assert "could not be written" in result.stderr
    assert "training continues and will try again" in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr
    kept = load_checkpoint(out / "checkpoint.safetensors")
    assert 5 <= kept.step < 400
    assert not list(out.glob(".*.tmp"))
    again = subprocess.run(command("train", "-o", out, "--resume"), check=False, capture_output=True)
    assert again.returncode == 0
    assert load_checkpoint(out / "checkpoint.safetensors").step == 400


STEPS, EVERY = 60, 20


def test_the_disk_is_asked_for_what_is_needed(
    capture: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice a checkpoint, less what the run already has there or replaces."""
    usage, free = shutil.disk_usage(tmp_path), [0]
    monkeypatch.setattr("stipple.train.rundir.shutil.disk_usage", lambda path: usage._replace(free=free[0]))
    held = sum((out / n).stat().st_size for n in ("checkpoint.safetensors", "checkpoint.older.safetensors"))
    count = len(load_checkpoint(out / "checkpoint.safetensors").arrays["means"])
    config = make_config(None, SETTINGS)
    need = 2 * checkpoint_bytes(count, config)
    free[0] = need - held - 1
    with pytest.raises(InputError, match="MB are free; checkpoints and scene need"):
        train(capture, out, resume=True)
    free[0] += 1
    train(capture, out, resume=True)
    begin = 2 * checkpoint_bytes(60, config)
    free[0] = begin - 1
    with pytest.raises(InputError, match="MB are free"):
        train(capture, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    meter = Watcher()
    free[0] = begin
    train(capture, tmp_path / "new", meter=meter)
    assert any("checkpoints of 80 Gaussians, the maximum, need" in n for n in meter.notes)
    there = sum(p.stat().st_size for p in (tmp_path / "new").iterdir())
    free[0] = begin - there
    train(capture, tmp_path / "new")  # what it replaces makes room
    largest = load_checkpoint(tmp_path / "new" / "checkpoint.safetensors")
    written = (tmp_path / "new" / "checkpoint.safetensors").stat().st_size
    estimate = checkpoint_bytes(len(largest.arrays["means"]), config)
    degree_in_use = largest.arrays["sh"].shape[1]
    assert written <= estimate + 4000
    assert degree_in_use < 16, "the estimate is for the last SH degree"
