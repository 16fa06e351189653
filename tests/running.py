"""Commands and whole runs on a small capture, for the tests of the command line and of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import stipple as package
from captures import truth, write_colmap
from stipple.cli import main
from stipple.formats import save_ply
from stipple.train import Meter, Outcome, Problem, RunFolder, Trainer, make_config

STEPS, EVERY = 60, 20
SETTINGS: dict[str, Any] = {
    "schedule": {"steps": STEPS, "sh_every": 25},
    "density": {"start": 10, "every": 10, "strategy": "mcmc", "max_count": 80},
    "output": {"checkpoint_every": EVERY, "log_every": 5},
}


# --- commands ---------------------------------------------------------------------------------------------
def stipple(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="stipple")


def make_capture(root: Path) -> Path:
    """Ten photos of a ball of 60 points, as COLMAP describes them."""
    write_colmap(truth(), root)
    return root


def make_run(capture: Path, out: Path) -> Path:
    """A run of 400 steps, eight views of it trained on and two held out."""
    result = stipple("train", capture, "-o", out, "--steps", 400, "--set", "density.start=50", "--test-every", 5)
    assert result.exit_code == 0, result.output
    assert "8 training and 2 held-out views of about 48 x 36, 60 points" in result.output
    return out


def make_scene(path: Path) -> Path:
    """300 Gaussians around the origin."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(300, 3))
    save_ply(package.Gaussians.from_linear(means, 0.15, 0.8, rng.uniform(size=(300, 3))), path)
    return path


# --- runs that are interrupted ----------------------------------------------------------------------------
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
