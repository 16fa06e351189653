"""How a run reports its progress. The command line shows bars; a program may pass its own meter."""

from __future__ import annotations

from collections.abc import Mapping


class Meter:
    """Ignores everything. Override the methods of interest."""

    def loading(self, total: int) -> None:
        """Decoding of the photos begins."""

    def loaded_one(self) -> None:
        """One photo has been decoded."""

    def training(self, first: int, steps: int) -> None:
        """Training begins; ``first`` of ``steps`` steps are already done."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """A step is done; values hold loss, psnr (running mean) and count."""

    def evaluating(self, total: int) -> None:
        """The final evaluation of the views begins."""

    def evaluated_one(self) -> None:
        """One view has been evaluated."""

    def note(self, text: str) -> None:
        """Something a user should know."""

    def close(self) -> None:
        """The run is over."""
