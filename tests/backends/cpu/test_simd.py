"""The vectors beside NumPy, for every width: each in a process of its own, for the width is chosen at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("lanes", ["4", "8", "16"])
def test_vectors_beside_numpy(lanes: str) -> None:
    environment = {**os.environ, "STIPPLE_SIMD_WIDTH": lanes}
    done = subprocess.run(
        [sys.executable, str(HERE / "simd_cases.py"), lanes],
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "checked 11" in done.stdout
