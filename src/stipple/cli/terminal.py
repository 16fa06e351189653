"""Printing for the commands: text from files and users is shown literally, on terminals of every encoding."""

from __future__ import annotations

import sys
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stipple.text import visible


class Terminal(Console):
    """A console that prints text literally: brackets are not markup, words between colons are not emoji.

    Control characters are printed as escapes. Styles are passed separately, never in the text.
    """

    def __init__(self, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **more: Any) -> Text:
        """Every string on its way to the terminal, including those in tables."""
        return super().render_str("\n".join(visible(line) for line in text.split("\n")), **more)

    def say(self, text: str) -> None:
        """Print a sentence that only the terminal wraps, so that paths in it can be copied."""
        self.print(visible(text), soft_wrap=True)

    def say_labelled(self, label: str, style: str, text: str) -> None:
        """Print a sentence after a label in a style of its own."""
        self.print(Text.assemble((visible(label), style), " ", visible(text)), soft_wrap=True)

    @property
    def plain(self) -> bool:
        """Whether the terminal's encoding lacks the characters for bars and spinners."""
        return self.options.ascii_only


def facts(rows: dict[str, str]) -> Table:
    """A table of names and values."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")  # a path is never cut
    for name, value in rows.items():
        table.add_row(visible(name), visible(value))
    return table


def write_whatever_comes() -> None:
    """Let standard output and error write characters that their encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a caller from Python may have replaced them
            reconfigure(errors="backslashreplace")
