"""report.html."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path


class _Page(HTMLParser):
    """Counts tags and refuses anything that a page on its own cannot show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith(("data:", "#")), f"{tag} {name} {value[:60]}"


def test_report_is_one_page_that_needs_nothing_else(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.tags.count("img") == 3 * (2 + 3), "photo, render and error of held-out and some training views"
    assert "svg" in page.tags
    assert "http://" not in re.sub(r'xmlns[:\w]*="[^"]*"|<!DOCTYPE[^>]*>|"http://purl[^"]*"', "", text)
    for wanted in ("Held-out views", "Training views", "[schedule]", "steps = 400", "PSNR"):
        assert wanted in text
    scores = json.loads((run / "eval.json").read_text())["mean"]["test"]
    assert f"{scores['psnr']:.2f}" in text
