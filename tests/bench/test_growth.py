"""Slopes of times over sizes, and stages that grow faster than their data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # last: it has a module scenes of its own
from growth_page import (
    ALL,
    MEMORY,
    STAGES,
    WHOLE,
    Row,
    draw,
    handled,
    markdown,
    slopes,
    too_fast,
)


def rows(power: float) -> list[Row]:
    """Ten times as many Gaussians and entries each; times grow with a power of them, but for what handles pixels."""
    found = []
    for count in (1_000, 10_000, 100_000):
        stages = dict.fromkeys((*STAGES, "others"), count**power) | {"rasterize": 1.0, "image losses": 7.0}
        sizes = {"gaussians": count, "visible": count, "entries": 6 * count, "pixels": 640 * 360}
        whole = dict.fromkeys((*WHOLE.values(), *MEMORY.values()), float(count))
        found.append({**sizes, **whole, "width": 640, "height": 360, "stages": stages | {"image losses backward": 7.0}})
    return found


def page(found: list[Row]) -> str:
    machine = {"processor": "abacus", "threads": 2, "lanes": 4, "python": "3.12"}
    results = {
        "machine": machine,
        "commands": ["count"],
        "series": {"gaussians": found},
        "stopped": ["Full."],
    }
    assert draw(results).startswith("<svg")
    return markdown(results)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.3])
def test_slopes_are_powers(power: float) -> None:
    for slope in slopes(rows(power), "Adam", "gaussians"):
        assert slope.over_size == pytest.approx(power)
        assert slope.over_data == pytest.approx(power)
        assert slope.too_fast == (power > 1.1)
    assert slopes(rows(power), "image losses", "gaussians")[0].over_data is None


def test_a_stage_whose_data_stay_must_not_grow() -> None:
    found = rows(1.0)
    found[2]["stages"]["image losses"] = 10.0
    assert list(too_fast(found, "gaussians")) == ["image losses from 10K to 100K (1.4 x, its data 1.0 x)"]


def test_the_page_names_what_grows_too_fast() -> None:
    assert "No stage grows faster than its data." in page(rows(1.0))
    text = page(rows(1.3))
    assert "Adam from 1K to 10K (20.0 x, its data 10.0 x)" in text
    assert "| **1.30 (1.30)** | **1.30 (1.30)** |" in text
    assert text.endswith("\nFull.\n")


def test_every_stage_says_what_it_handles() -> None:
    assert all(set(stage.data) <= set(ALL) and stage.ops for stage in STAGES.values())
    assert handled("training step") == ALL
