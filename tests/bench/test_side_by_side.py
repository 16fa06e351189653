"""Two programs side by side: only the same work is measured, in turns, and the page says what was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))  # last: it has a module scenes of its own
from compare import side_by_side  # noqa: E402 - a program beside the package
from compare.side_by_side import Peer, Work, markdown, results_of  # noqa: E402


def work(turns: list[str], apart: float) -> Work:
    image = np.zeros((4, 6, 3), np.float32)
    return Work("scene", "frame", lambda: turns.append("ours"), lambda: turns.append("theirs"), (image, image + apart))


def test_both_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "PAUSE", 0.0)
    turns: list[str] = []
    results = results_of(Peer("abacus", "Abacus", {"Abacus": "1.2"}, ["By hand."], [work(turns, 1e-3)]), 2, 0.0)
    assert turns == ["ours"] * 2 + ["theirs"] * 4 + ["ours"] * 2
    (row,) = results["rows"]
    assert len(row["ratios"]) == 2
    assert row["mean_difference"] == pytest.approx(1e-3)
    page = markdown(results)
    assert page.startswith("# Beside Abacus\n")
    assert ", Abacus 1.2. " in page
    assert page.endswith("\nBy hand.\n")


def test_a_command_does_not_say_where_folders_are() -> None:
    words = ["prototype", "--source", "/home/me/prototypes", "--rounds", "3"]
    assert side_by_side.command_line(words).endswith("peer.py prototype --source prototypes --rounds 3")


@pytest.mark.parametrize("apart", [0.1, np.nan])
def test_other_work_is_not_measured(apart: float) -> None:
    turns: list[str] = []
    with pytest.raises(SystemExit, match="The pictures differ by"):
        results_of(Peer("abacus", "Abacus", {}, [], [work(turns, apart)]), 1, 0.0)
    assert turns == []


def test_a_peer_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "compare" / "peer.py", "prototype", "--source", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    sentence = (
        f"The prototype cannot be measured: --source must be a folder with kernels.py and simd.py, got {tmp_path}.\n"
    )
    assert done.stderr == sentence
    assert done.stdout == ""
