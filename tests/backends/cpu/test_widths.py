"""The CPU's kernels with vectors of every width, as on other machines: those not this machine's in their own processes,
for the width is chosen at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stipple.backends.cpu.simd import LANES

HERE = Path(__file__).parent


@pytest.mark.parametrize("lanes", [n for n in (4, 8, 16) if n != LANES])
def test_every_width(lanes: int) -> None:
    """Tests with the mark ``every_width``, all in one process: it compiles each kernel once."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "every_width", str(HERE)],
        cwd=HERE.parents[2],
        env={**os.environ, "STIPPLE_SIMD_WIDTH": str(lanes)},
        timeout=900,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"{lanes} lanes" in done.stdout


@pytest.mark.every_width
def test_width_of_this_process(capfd: pytest.CaptureFixture[str]) -> None:
    """What the test above looks for."""
    with capfd.disabled():
        print(f"{LANES} lanes")
    assert int(os.environ.get("STIPPLE_SIMD_WIDTH", LANES)) == LANES
