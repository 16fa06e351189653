"""Bars and lines of training: the time left follows the speed of the last minute."""

from __future__ import annotations

import io
import re

from rich.console import Console

from stipple.cli.progress import TerminalMeter

VALUES = {"loss": 0.5, "psnr": 20.0, "count": 1000.0}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(seconds: list[float], first: int = 0) -> list[str]:
    """What is printed where there is no terminal, for steps that take so many seconds."""
    clock, out = Clock(), io.StringIO()
    meter = TerminalMeter(Console(file=out, width=200, get_time=clock))
    meter.training(first, first + len(seconds))
    for i, duration in enumerate(seconds):
        clock.now += duration
        meter.step(first + i + 1, VALUES)
    meter.close()
    return out.getvalue().splitlines()


def left(line: str) -> int:
    minutes, seconds = re.search(r"(\d+):(\d\d) left", line).groups()  # type: ignore[union-attr]
    return 60 * int(minutes) + int(seconds)


def test_steady_steps() -> None:
    printed = lines([0.5] * 400)
    assert len(printed) == 20
    assert printed[4].startswith("step    100 of 400  loss 0.5000  PSNR 20.00  1,000 Gaussians  2.0/s")
    assert abs(left(printed[4]) - 150) <= 1
    assert left(printed[-1]) == 0


def test_steps_that_become_slower() -> None:
    """After a minute at the new speed the time left is that of the new speed."""
    printed = lines([0.1] * 200 + [1.0] * 200)
    assert abs(left(printed[14]) - 100) <= 2, "100 steps are left at a second each"
    assert "1.0/s" in printed[14]


def test_a_resumed_run_does_not_count_what_was_done_before() -> None:
    printed = lines([0.5] * 100, first=900)
    assert "of 1000" in printed[0]
    assert "2.0/s" in printed[-1]
    assert abs(left(printed[0]) - 25) <= 1


def test_bars_in_a_terminal() -> None:
    out = io.StringIO()
    meter = TerminalMeter(Console(file=out, width=100, force_terminal=True, get_time=Clock()))
    meter.loading(2)
    meter.loaded_one()
    meter.loaded_one()
    meter.training(0, 3)
    for step in (1, 2, 3):
        meter.step(step, VALUES)
    meter.evaluating(1)
    meter.evaluated_one()
    meter.close()
    for title in ("Loading photos", "Training", "Evaluating", "3/3", "PSNR 20.00"):
        assert title in out.getvalue()
