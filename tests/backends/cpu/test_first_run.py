"""A machine's first run: kernels compiled by several processes, or by this one where that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHEAP = ("sort.count_digits", "sort.move_by_digit", "binning.place_listed", "copies.move_columns",
         "copies.clear_columns", "adam.update_visible")  # fmt: skip


@pytest.mark.parametrize(
    ("change", "compiled_here"),
    [
        ("", 0),
        ("sys.executable = '/nowhere/python3'", len(CHEAP)),
        ("sys.executable = '/usr/bin/blender'", len(CHEAP)),
        ("sys.frozen = True", len(CHEAP)),
        ("w.serve = None; w._start = lambda: subprocess.Popen([sys.executable, '-c', 'pass'], text=True, "
         "stdin=subprocess.PIPE, stdout=subprocess.PIPE)", len(CHEAP)),
    ],
    ids=["processes", "none starts", "embedded", "frozen", "all end"],
)  # fmt: skip
def test_kernels_are_compiled_by_processes_or_here(tmp_path: Path, change: str, compiled_here: int) -> None:
    code = (
        "import subprocess, sys\n"
        "from stipple.backends.cpu import first_run as w\n"
        f"cheap = [c for c in w.compilations() if c.name.removeprefix('stipple.backends.cpu.')[:-2] in {CHEAP}]\n"
        "w.compilations = lambda: cheap\n"
        f"{change}\n"
        "print(w.warm_up(2), sum(c.missing for c in cheap), sum(bool(c.dispatcher.overloads) for c in cheap))\n"
        "print(w.warm_up(2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [str(len(CHEAP)), "0", str(compiled_here), "0"], done.stderr[-3000:]
    assert f"{len(CHEAP)}/{len(CHEAP)}" in done.stderr
