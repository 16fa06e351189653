"""``stipple bench``."""

from __future__ import annotations

import json
from pathlib import Path

from running import stipple


def test_bench(tmp_path: Path) -> None:
    result = stipple("bench", "--quick", "--json", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert rows[0]["threads"] == 1
    assert rows[0]["scalar_over_rasterize"] > 1
    assert rows[0]["scalar_difference"] < 1e-3, "the loop beside ours draws the same picture"
