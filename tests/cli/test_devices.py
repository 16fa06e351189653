"""``stipple devices``."""

from __future__ import annotations

from running import stipple


def test_devices() -> None:
    result = stipple("devices")
    assert result.output.splitlines()[0].startswith("cpu")
    assert "reference" in result.output
