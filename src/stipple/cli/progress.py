"""Progress bars in the terminal for training, and plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stipple.train.progress import Meter

_REDRAWN = 0.2
_PLAIN_LINES = 20
_SPEED_OVER = 60.0
"""Seconds over which speed is measured: steps become slower as photos and the number of Gaussians grow, so an average
since the start would underestimate the time left."""


class TerminalMeter(Meter):
    """A live bar with step, loss, PSNR, Gaussians, steps per second and time left; lines where the output is not a
    terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._left = TimeRemainingColumn(compact=True)
        self._steps, self._drawn = 0, 0.0

    def _bar(self, title: str, total: int, done: int = 0) -> None:
        self.close()
        self._progress = Progress(
            TextColumn(title),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            self._left,
            console=self.console,
            expand=True,
            refresh_per_second=4,
            speed_estimate_period=_SPEED_OVER,
            disable=not self.console.is_terminal,
        )
        self._progress.start()
        self._task = self._progress.add_task(title, total=total, completed=done, text="")

    def _advance(self) -> None:
        if self._progress is not None:
            self._progress.advance(self._task)

    def loading(self, total: int) -> None:
        self._bar("Loading photos", total)

    def loaded_one(self) -> None:
        self._advance()

    def training(self, first: int, steps: int) -> None:
        self._bar("Training", steps, first)
        self._steps = steps

    def step(self, step: int, values: Mapping[str, float]) -> None:
        now, last = self.console.get_time(), step == self._steps
        plain = not self.console.is_terminal
        printed = plain and (last or step % max(1, self._steps // _PLAIN_LINES) == 0)
        if self._progress is None or not (last or printed or now - self._drawn > _REDRAWN):
            return
        self._drawn = now
        self._progress.update(self._task, completed=step)
        task = self._progress.tasks[0]
        speed = "" if task.speed is None else f"  {task.speed:.1f}/s"
        text = f"loss {values['loss']:.4f}  PSNR {values['psnr']:.2f}  {values['count']:,.0f} Gaussians{speed}"
        self._progress.update(self._task, text=text)
        if printed:
            left = f"  {self._left.render(task)} left"
            self.console.print(f"step {step:>6} of {self._steps}  {text}{left}", highlight=False, soft_wrap=True)

    def evaluating(self, total: int) -> None:
        self._bar("Evaluating", total)

    def evaluated_one(self) -> None:
        self._advance()

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
