"""Running out of memory: one sentence with what was needed, no hang, and the checkpoint of before is kept."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from captures import truth, write_colmap
from stipple import Gaussians
from stipple.cli import main
from stipple.errors import OutOfMemoryError
from stipple.formats import save_ply
from stipple.memory import memory_for
from stipple.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stipple.train.stepper import Stepper

QUICK = ["--steps", "40", "--checkpoint-every", "10", "--set", "density.strategy=none"]


def stipple(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def too_much() -> np.ndarray:
    """NumPy's own failure to allocate: an eighth of the address space."""
    return np.empty(2**58, np.float64)


def opencv_short() -> np.ndarray:
    error = cv2.error("short")
    error.code, error.err = -4, "Failed to allocate 123 bytes"
    raise error


def last(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, MemoryError)
    return result.output.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("capture")
    write_colmap(truth(), root)
    return root


def test_a_step_without_memory(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out, run = tmp_path / "whole", tmp_path / "out", Stepper.run
    assert stipple("train", capture, "-o", whole, *QUICK).exit_code == 0

    def short(self: Stepper, step: int, *rest: object) -> dict[str, float]:
        if step == 26:
            too_much()
        return run(self, step, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "run", short)
        text = last(stipple("train", capture, "-o", out, *QUICK))
    assert text.startswith("Error: not enough memory for step 26 with 60 Gaussians and photos of about 48 x 36; the ")
    assert "the checkpoint of step 20 is kept; a larger --downscale or a lower --max-gaussians needs less" in text
    assert "(Unable to allocate 2.00 EiB" in text
    assert load_checkpoint(out / "checkpoint.safetensors").step == 20
    assert stipple("train", "-o", out, "--resume").exit_code == 0
    assert (out / "scene.ply").read_bytes() == (whole / "scene.ply").read_bytes()


def test_a_checkpoint_without_memory_is_tried_again(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def short(checkpoint: Checkpoint, *paths: Path) -> None:
        steps.append(checkpoint.step)
        if len(steps) == 2:
            too_much()
        save_checkpoint(checkpoint, *paths)

    monkeypatch.setattr("stipple.train.trainer.save_checkpoint", short)
    result = stipple("train", capture, "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    assert "could not be written: not enough memory for a copy of the parameters (Unable to allocate" in result.output
    assert load_checkpoint(tmp_path / "out" / "checkpoint.safetensors").step == 40


@pytest.mark.parametrize("fail", [too_much, opencv_short])
def test_photos_without_memory(fail: object, capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stipple.train.loader.load_frame", lambda view, downscale: fail())  # type: ignore[operator]
    text = last(stipple("train", capture, "-o", tmp_path / "out", *QUICK))
    assert text.startswith("Error: not enough memory for 10 photos; a lower --image-memory streams more of them (")
    assert "allocate" in text
    assert not (tmp_path / "out").exists()


def test_an_evaluation_without_memory_keeps_the_scene(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("stipple.train.evaluation.ssim", lambda *rest: too_much())
        text = last(stipple("train", capture, "-o", tmp_path / "out", *QUICK, "--set", "output.evaluate_every=40"))
    assert "not enough memory for the scene and its evaluation with 60 Gaussians" in text
    assert "the checkpoint of step 40 is kept" in text
    assert (tmp_path / "out" / "scene.ply").exists()
    assert stipple("train", "-o", tmp_path / "out", "--resume").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr("stipple.train.evaluation.ssim", lambda *rest: too_much())
        text = last(stipple("eval", tmp_path / "out"))
    assert text.startswith("Error: not enough memory for 000.png, 48 x 36 pixels, and 60 Gaussians (Unable to")


def test_other_commands_say_what_numpy_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stipple.formats.load_scene", lambda path: too_much())
    text = last(stipple("info", tmp_path / "scene.ply"))
    assert text.startswith("Error: not enough memory: Unable to allocate 2.00 EiB")


_LIMITED = """
import resource, sys
from stipple.cli import main
import stipple.render, numpy, PIL.Image
arguments = sys.argv[1:]
main(["render", *arguments, "--size", "64x64"], standalone_mode=False)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, -1))
main(["render", *arguments, "--size", "16000x12000"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_a_picture_larger_than_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    save_ply(Gaussians.from_linear(rng.normal(size=(50, 3)), 0.1, 0.9, rng.uniform(size=(50, 3))), tmp_path / "s.ply")
    program = [sys.executable, "-c", _LIMITED, str(tmp_path / "s.ply"), "-o", str(tmp_path / "x.png")]
    result = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    text = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert text.startswith("Error: not enough memory for 50 Gaussians at 16000 x 12000; a smaller --size helps"), text


def test_what_is_a_shortage_of_memory() -> None:
    for short in (MemoryError(), RuntimeError("can't start new thread"), OSError(errno.ENOMEM, "Cannot allocate")):
        with pytest.raises(OutOfMemoryError, match="not enough memory for it"), memory_for("it"):
            raise short
    others = (
        OSError(errno.ENOSPC, "full"),
        RuntimeError("other"),
        cv2.error("other"),
        ValueError(),
        KeyboardInterrupt(),
    )
    for other in others:
        with pytest.raises(type(other)) as caught, memory_for("it"):
            raise other
        assert caught.value is other
    with pytest.raises(OutOfMemoryError, match=r"^not enough memory for the inner$"), memory_for("outer"):  # noqa: SIM117
        with memory_for(lambda: "the inner"):
            raise MemoryError
