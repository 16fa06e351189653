"""Printing for the commands: what comes from files and users is shown as it is, on terminals of every encoding."""

from __future__ import annotations

import sys
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stipple.text import visible


class Terminal(Console):
    """A console that reads nothing into text: brackets are no markup, words between colons no emoji.

    Characters that a terminal would obey come out as escapes. Styles are said beside the text, never in it.
    """

    def __init__(self, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **more: Any) -> Text:
        """Every string on its way to the terminal, those in tables too."""
        return super().render_str("\n".join(visible(line) for line in text.split("\n")), **more)

    def say(self, text: str) -> None:
        """One sentence, which the terminal wraps, so that paths in it can be copied."""
        self.print(visible(text), soft_wrap=True)

    def say_labelled(self, label: str, style: str, text: str) -> None:
        """A sentence behind a word in a style of its own."""
        self.print(Text.assemble((visible(label), style), " ", visible(text)), soft_wrap=True)

    @property
    def plain(self) -> bool:
        """Whether the terminal's encoding lacks bars and dots."""
        return self.options.ascii_only


def facts(rows: dict[str, str]) -> Table:
    """Names and what is known of each."""
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
        if reconfigure is not None:  # whoever calls the commands from Python may have put something else there
            reconfigure(errors="backslashreplace")
