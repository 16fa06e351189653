"""Bars in the terminal for training, and plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from stipple.train.progress import Meter

_REDRAWN = 0.2
_PLAIN_LINES = 20


class TerminalMeter(Meter):
    """A live bar with step, loss, PSNR, Gaussians, steps a second and time left; lines where output is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._first = self._steps = 0
        self._started = self._drawn = 0.0

    def _bar(self, title: str, total: int, done: int = 0, *columns: str) -> None:
        self.close()
        self._progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            *(TextColumn(c) for c in columns),
            TimeElapsedColumn(),
            console=self.console,
            refresh_per_second=4,
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
        self._bar("Training", steps, first, "{task.fields[text]}")
        self._first, self._steps, self._started = first, steps, time.perf_counter()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        now = time.perf_counter()
        plain = not self.console.is_terminal
        due = step % max(1, self._steps // _PLAIN_LINES) == 0 if plain else now - self._drawn > _REDRAWN
        if not (due or step == self._steps):
            return
        self._drawn = now
        rate = (step - self._first) / max(now - self._started, 1e-9)
        left = (self._steps - step) / max(rate, 1e-9)
        text = (
            f"loss {values['loss']:.4f}  PSNR {values['psnr']:.2f}  {values['count']:,.0f} Gaussians  "
            f"{rate:.1f} steps/s  {_clock(left)} left"
        )
        if plain:
            self.console.print(f"step {step:>6} of {self._steps}  {text}", highlight=False, soft_wrap=True)
        elif self._progress is not None:
            self._progress.update(self._task, completed=step, text=text)

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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
