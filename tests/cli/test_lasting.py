"""Output whose reader has gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STEPS, EVERY = 60, 20


def test_a_run_does_not_end_with_the_pipe_that_it_tells(capture: Path, tmp_path: Path) -> None:
    settings = ["--steps", "60", "--set", "density.strategy=none", "-o", str(tmp_path / "out")]
    command = [sys.executable, "-m", "stipple", "train", str(capture), *settings]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "out" / "report.html").exists()
