"""A run that was stopped anywhere goes on to the same bytes; what has changed or is damaged is noticed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captures import truth, write_colmap, write_nerfstudio, write_open3d
from stipple.errors import FileFormatError, InputError, StippleError
from stipple.files import atomic_write, remove_leftovers
from stipple.train import Meter, Outcome, Problem, RunFolder, Trainer, make_config
from stipple.train.checkpoint import Checkpoint, checkpoint_bytes, load_checkpoint, save_checkpoint
from stipple.train.metrics import read_metrics
from stipple.train.report import curves_svg
from stipple.train.stop import stop_on_signal

STEPS, EVERY = 60, 20
SETTINGS: dict[str, Any] = {
    "schedule": {"steps": STEPS, "sh_every": 25},
    "density": {"start": 10, "every": 10, "strategy": "mcmc", "max_count": 80},
    "output": {"checkpoint_every": EVERY, "log_every": 5},
}


class Kill(BaseException):
    """Ends a run as a kill does: nobody catches it."""


class Watcher(Meter):
    """Keeps what is said, and kills at a step."""

    def __init__(self, kill_at: int = -1) -> None:
        self.kill_at, self.notes = kill_at, list[str]()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.kill_at:
            raise Kill

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(
    capture: Path, out: Path, *, resume: bool = False, meter: Meter | None = None, settings: Mapping[str, Any] = {}
) -> Outcome:
    config = make_config(None, SETTINGS, settings)
    problem = Problem.open(str(capture), config)
    try:
        return Trainer(problem, RunFolder(out), str(capture), "cpu", meter).run(resume)
    finally:
        problem.close()


def killed(capture: Path, out: Path, step: int, settings: Mapping[str, Any] = {}) -> Path:
    with pytest.raises(Kill):
        train(capture, out, meter=Watcher(step), settings=settings)
    return out


def results(out: Path) -> tuple[bytes, Any, Any]:
    """What must not depend on interruptions: the scene, the figures, and all that was logged but the time."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return (out / "scene.ply").read_bytes(), json.loads((out / "eval.json").read_text()), rows


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("capture")
    write_colmap(truth(), root)
    return root


@pytest.fixture(scope="module")
def whole(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Any, Any]:
    """The results of the undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(capture, out)
    return results(out)


@pytest.fixture(scope="module")
def stopped(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed at step 47, with checkpoints of steps 40 and 20; to be copied."""
    return killed(capture, tmp_path_factory.mktemp("stopped") / "out", 47)


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "out"))


# --- where it goes on -------------------------------------------------------------------------------------
def test_what_is_logged_does_not_tell_that_a_run_was_killed(capture: Path, whole: Any, out: Path) -> None:
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
        data = data.replace(b"stipple checkpoint 2", b"stipple checkpoint 1")
    file.write_bytes(data[: {"cut": 1000, "empty": 0}.get(damage, len(data))])
    if damage == "gone":
        file.unlink()
    train(capture, out, resume=True, meter=meter)
    assert damage == "gone" or any("going on from the one before, of step 20" in n for n in meter.notes)
    assert results(out) == whole


def test_two_damaged_checkpoints_are_one_sentence(capture: Path, out: Path) -> None:
    for name in ("checkpoint.safetensors", "checkpoint.older.safetensors"):
        (out / name).write_bytes(b"\0" * 500)
    with pytest.raises(FileFormatError, match=r"checkpoint\.older\.safetensors: broken checkpoint"):
        train(capture, out, resume=True)
    (out / "checkpoint.older.safetensors").unlink()
    with pytest.raises(FileFormatError, match="no checkpoint is whole: train anew with --overwrite"):
        train(capture, out, resume=True)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = {"means": rng.normal(size=(3, 2)).astype(np.float32), "b": np.arange(4, dtype=np.float32)}
    file = tmp_path / "c.safetensors"
    save_checkpoint(Checkpoint(7, arrays, "name", 1.5, [0.25, 1 / 3]), file, tmp_path / "older")
    read = load_checkpoint(file)
    assert (read.step, read.run, read.seconds, read.errors) == (7, "name", 1.5, [0.25, 1 / 3])
    for name, array in arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
    data = file.read_bytes()
    noticed = 0
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << place % 8
        file.write_bytes(spoilt)
        try:
            load_checkpoint(file)
        except FileFormatError:
            noticed += 1
    assert noticed >= len(data) - 8, "all but the blanks that fill the header up"


def test_a_checkpoint_gives_up_the_older_one_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, older = tmp_path / "c", tmp_path / "older"
    made = [Checkpoint(step, {"means": np.full(9, step, np.float32)}, "name", 0.0) for step in range(3)]
    for checkpoint in made[:2]:
        save_checkpoint(checkpoint, file, older)
    assert (load_checkpoint(file).step, load_checkpoint(older).step) == (1, 0)
    flush = os.fsync

    def full(descriptor: int) -> None:
        if older.exists():
            raise OSError(28, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr("stipple.files.os.fsync", full)
    save_checkpoint(made[2], file, older)
    assert (load_checkpoint(file).step, load_checkpoint(older).step) == (2, 1)
    monkeypatch.setattr("stipple.files.os.fsync", lambda descriptor: full(descriptor) or 1 / 0)
    older.unlink()
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(made[0], file, older)
    assert load_checkpoint(file).step == 2, "what could not be written has changed nothing"


# --- what was changed meanwhile ---------------------------------------------------------------------------
def _edit(path: Path) -> None:
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


def test_a_changed_photo_is_named(capture: Path, out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    _edit(copy / "images" / "003.png")
    with pytest.raises(FileFormatError, match=r"003\.png: the file has changed since the run began; put back"):
        train(copy, out, resume=True)
    shutil.copy(capture / "images" / "003.png", copy / "images" / "003.png")
    train(copy, out, resume=True)
    assert json.loads((out / "run.json").read_text())["capture"] == str(copy), "where the capture is now"


@pytest.mark.parametrize("change", ["pose", "points", "photo gone", "photo new"])
def test_a_changed_capture_is_told(change: str, capture: Path, out: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    made = truth()
    message = {
        "pose": r"the camera of 004\.png \(its pose, lens or size\) has changed",
        "points": "the points have changed",
        "photo gone": r"009\.png is gone: these are other photos",
        "photo new": r"010\.png was not there when the run began",
    }[change]
    if change == "pose":
        viewmat = made.cameras[4].viewmat.copy()
        viewmat[0, 3] += 1e-4
        cameras = (*made.cameras[:4], replace(made.cameras[4], viewmat=viewmat), *made.cameras[5:])
        made = replace(made, cameras=cameras)
    elif change == "points":
        made = replace(made, points=made.points + np.eye(60, 3) * 1e-6)
    elif change == "photo gone":
        made = replace(made, cameras=made.cameras[:9], photos=made.photos[:9])
    else:
        made = replace(made, cameras=(*made.cameras, made.cameras[0]), photos=(*made.photos, made.photos[0]))
    write_colmap(made, tmp_path / "changed")
    with pytest.raises(InputError, match=message):
        train(tmp_path / "changed", out, resume=True)


def test_a_changed_depth_map_is_named(tmp_path: Path) -> None:
    write_open3d(truth(), tmp_path / "capture")
    out = killed(tmp_path / "capture", tmp_path / "out", 21)
    file = sorted((tmp_path / "capture" / "depth").iterdir())[2]
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(FileFormatError, match=f"{file.name}: the file has changed"):
        train(tmp_path / "capture", out, resume=True)


def test_a_mask_that_comes_later_is_told(tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path / "capture")
    out = killed(tmp_path / "capture", tmp_path / "out", 21)
    described = json.loads((out / "run.json").read_text())
    for row in described["contents"]["views"].values():
        del row["files"]["mask"]
    (out / "run.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="has a mask now, unlike when the run began"):
        train(tmp_path / "capture", out, resume=True)
    (out / "run.json").write_text(json.dumps({"capture": "x", "contents": {"views": [1]}}))
    with pytest.raises(FileFormatError, match="what it says about the capture is broken"):
        train(tmp_path / "capture", out, resume=True)


def test_a_photo_that_changes_while_it_is_streamed_is_named(capture: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))

    class Meddler(Meter):
        def training(self, first: int, steps: int) -> None:
            for photo in (copy / "images").iterdir():
                _edit(photo)

    with pytest.raises(FileFormatError, match=r"\d\.png: the file has changed since the run began"):
        train(copy, tmp_path / "out", meter=Meddler(), settings={"data": {"image_memory": 1e-9}})


def test_eval_says_that_a_photo_has_changed(capture: Path, out: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from stipple.cli import main

    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    train(copy, out, resume=True)
    assert "note:" not in CliRunner().invoke(main, ["eval", str(out)]).output
    _edit(copy / "images" / "000.png")
    result = CliRunner().invoke(main, ["eval", str(out)])
    assert result.exit_code == 0
    assert "000.png: the file has changed since the run began" in result.output


# --- disks ------------------------------------------------------------------------------------------------
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
    assert any("if 80 Gaussians come, the most that may" in n for n in meter.notes)
    there = sum(p.stat().st_size for p in (tmp_path / "new").iterdir())
    free[0] = begin - there
    train(capture, tmp_path / "new")  # what it replaces makes room
    largest = load_checkpoint(tmp_path / "new" / "checkpoint.safetensors")
    written = (tmp_path / "new" / "checkpoint.safetensors").stat().st_size
    estimate = checkpoint_bytes(len(largest.arrays["means"]), config)
    degree_in_use = largest.arrays["sh"].shape[1]
    assert written <= estimate + 4000
    assert degree_in_use < 16, "the estimate is for the last degree of harmonics"


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
        told = [n for n in meter.notes if "metrics.jsonl" in n]
        assert len(told) == 2, "read and written, and not for every line"
    else:
        assert [r for r in results(out)[2] if "loss" in r and "psnr" in r] == [r for r in whole[2] if "loss" in r]


# --- stopping ---------------------------------------------------------------------------------------------
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


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_closed_terminal_stops_and_what_is_ignored_stays_so() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_on_signal() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal == signal.SIGHUP
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL, "a second one is obeyed"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_on_signal() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal is None, "nohup"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- files ------------------------------------------------------------------------------------------------
def test_writers_of_one_file_do_not_share_what_they_write(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250)
    with atomic_write(target) as first, atomic_write(target) as second:
        first.write(b"first")
        second.write(b"second")
    assert target.read_bytes() == b"first", "the one that was done last"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(StippleError), atomic_write(target):
        raise StippleError("stopped")
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]
    (tmp_path / f".{'n' * 40}.1-abcd.tmp").write_bytes(b"left")
    remove_leftovers(target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_older_file_is_kept_without_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("stipple.files.os.link", refuse)
    for text in (b"1", b"2", b"3"):
        with atomic_write(tmp_path / "a", tmp_path / "b") as file:
            file.write(text)
    assert (tmp_path / "a").read_bytes() == b"3"
    assert (tmp_path / "b").read_bytes() == b"2"


# --- who watches ------------------------------------------------------------------------------------------
def test_a_run_does_not_end_with_the_pipe_that_it_tells(capture: Path, tmp_path: Path) -> None:
    settings = ["--steps", "60", "--set", "density.strategy=none", "-o", str(tmp_path / "out")]
    command = [sys.executable, "-m", "stipple", "train", str(capture), *settings]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_ctrl_c_while_the_program_starts_is_no_traceback() -> None:
    program = """
import sys
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "stipple.cli.train":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
import stipple.cli
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "Aborted!\n"
