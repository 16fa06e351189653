"""Runs that were killed go on as if they had not been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from running import Watcher, killed, results, train
from stipple.errors import FileFormatError
from stipple.train import Meter
from stipple.train.checkpoint import load_checkpoint
from stipple.train.metrics import read_metrics
from stipple.train.report import curves_svg

STEPS, EVERY = 60, 20


def test_what_is_logged_does_not_reveal_that_a_run_was_killed(capture: Path, whole: Any, out: Path) -> None:
    """The running mean of PSNR goes on over the steps before the checkpoint, too."""
    train(capture, out, resume=True)
    assert results(out) == whole
    assert sorted(p.name for p in out.iterdir()) == [
        "cameras.json", "checkpoint.safetensors", "config.toml", "eval.json", "metrics.jsonl", "run.json", "scene.ply",
    ]  # fmt: skip


def test_a_run_killed_before_its_first_checkpoint_starts_again(capture: Path, whole: Any, tmp_path: Path) -> None:
    out, meter = killed(capture, tmp_path / "out", 7), Watcher()
    assert not (out / "checkpoint.safetensors").exists()
    train(capture, out, resume=True, meter=meter)
    assert any("ended before its first checkpoint; it starts again" in n for n in meter.notes)
    assert results(out) == whole


def test_a_run_that_ended_but_lost_its_checkpoint_is_not_trained_again(capture: Path, out: Path) -> None:
    train(capture, out, resume=True)
    (out / "checkpoint.safetensors").unlink()
    scene = (out / "scene.ply").read_bytes()
    with pytest.raises(FileFormatError, match="no checkpoint to resume from, though the run has ended"):
        train(capture, out, resume=True)
    assert (out / "scene.ply").read_bytes() == scene


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone", "old format"])
def test_a_damaged_checkpoint_costs_steps_and_not_the_run(damage: str, capture: Path, whole: Any, out: Path) -> None:
    file, meter = out / "checkpoint.safetensors", Watcher()
    data = bytearray(file.read_bytes())
    assert load_checkpoint(file).step == 40
    assert load_checkpoint(out / "checkpoint.older.safetensors").step == 20
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "old format":
        data = data.replace(b"stipple checkpoint 4", b"stipple checkpoint 1")
    file.write_bytes(data[: {"cut": 1000, "empty": 0}.get(damage, len(data))])
    if damage == "gone":
        file.unlink()
    train(capture, out, resume=True, meter=meter)
    assert damage == "gone" or any("continuing from the previous one, of step 20" in n for n in meter.notes)
    assert results(out) == whole


def test_two_damaged_checkpoints_are_one_sentence(capture: Path, out: Path) -> None:
    for name in ("checkpoint.safetensors", "checkpoint.older.safetensors"):
        (out / name).write_bytes(b"\0" * 500)
    with pytest.raises(FileFormatError, match=r"checkpoint\.older\.safetensors: broken checkpoint"):
        train(capture, out, resume=True)
    (out / "checkpoint.older.safetensors").unlink()
    with pytest.raises(FileFormatError, match="no checkpoint is intact: start again with --overwrite"):
        train(capture, out, resume=True)


@pytest.mark.parametrize(
    "lines",
    [
        b"\xff\xfe\x00\n",
        b'{"step": 3}\n{"step": 4, "loss": 1}\n{"step": 5, "loss": "x", "psnr": null, "count": []}\n',
        b'{"step": 1e3}\n{"step": -1}\n{"step": true}\n{"step": "7"}\n{"loss": 1}\n[1]\n7\nnull\n',
        b'{"step": 5, "loss": NaN, "psnr": Infinity, "count": 1' + b"0" * 400 + b"}\n",
        b"[" * 200_000 + b"\n",
        b'{"step": ' + b"9" * 5000 + b"}\n",
        b'{"step": 3, "test_psnr": "high"}\n{"step": 10, "lo',
        None,
    ],
)
def test_damaged_metrics_never_block(lines: bytes | None, capture: Path, whole: Any, out: Path) -> None:
    file = out / "metrics.jsonl"
    if lines is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(lines + b"\n" + file.read_bytes() + lines)
        curves_svg(read_metrics(file))
    meter = Watcher()
    outcome = train(capture, out, resume=True, meter=meter)
    curves_svg(outcome.rows)
    assert (out / "scene.ply").read_bytes() == whole[0]
    if lines is None:
        reported = [n for n in meter.notes if "metrics.jsonl" in n]
        assert len(reported) == 2, "read and written, and not for every line"
    else:
        assert [r for r in results(out)[2] if "loss" in r and "psnr" in r] == [r for r in whole[2] if "loss" in r]


def test_a_signal_ends_the_evaluation_and_resume_takes_it_up(capture: Path, whole: Any, out: Path) -> None:
    class Impatient(Meter):
        def evaluated_one(self) -> None:
            signal.raise_signal(signal.SIGINT)

    outcome = train(capture, out, resume=True, meter=Impatient())
    assert outcome.signal == signal.SIGINT
    assert outcome.scores == []
    assert (out / "scene.ply").read_bytes() == whole[0]
    assert not (out / "eval.json").exists()
    assert train(capture, out, resume=True).signal is None
    assert results(out) == whole
