"""How a run reports its progress. The command line shows bars; a program may pass its own meter."""

from __future__ import annotations

from collections.abc import Mapping


class Meter:
    """Says nothing. Override what is of interest."""

    def loading(self, total: int) -> None:
        """Photos begin to be decoded."""

    def loaded_one(self) -> None:
        """One photo has been decoded."""

    def training(self, first: int, steps: int) -> None:
        """Steps begin, ``first`` of ``steps`` having been done before."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """A step is done; values hold loss, psnr (running mean) and count."""

    def evaluating(self, total: int) -> None:
        """Views begin to be evaluated at the end."""

    def evaluated_one(self) -> None:
        """One view has been evaluated."""

    def note(self, text: str) -> None:
        """Something a user should know."""

    def close(self) -> None:
        """The run is over."""
