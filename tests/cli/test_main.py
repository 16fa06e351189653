"""The program as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stipple as package
from running import stipple


def test_ctrl_c_while_the_program_starts_is_no_traceback() -> None:
    program = """
import sys
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "stipple.cli.train":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
import stipple.cli
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "Aborted!\n"


FAILURES = {
    "missing": (["info", "nowhere.ply"], "nowhere.ply: No such file or directory"),
    "folder": (["info", "."], "directory"),
    "not a scene": (["info", __file__], "not a scene: expected packed splats (.splat), splat PLY (.ply)"),
    "size": (["render", "SCENE", "-o", "x.png", "--size", "big"], "expected pixels such as 1920x1080"),
    "vector": (["render", "SCENE", "-o", "x.png", "--from", "1,2"], "expected three numbers"),
    "ending": (["render", "SCENE", "-o", "x.xyz"], "expected a picture"),
    "same point": (["render", "SCENE", "-o", "OUT.png", "--from", "0,0,0", "--look-at", "0,0,0"], "same point"),
    "device": (["render", "SCENE", "-o", "OUT.png", "--device", "cuda"], "no device 'cuda'"),
    "fov": (["render", "SCENE", "-o", "x.png", "--fov", "200"], "fov"),
}


@pytest.mark.parametrize("case", list(FAILURES))
def test_failures_are_one_clear_line(case: str, scene: Path, tmp_path: Path) -> None:
    arguments, message = FAILURES[case]
    filled = [a.replace("SCENE", str(scene)).replace("OUT", str(tmp_path / "out")) for a in arguments]
    result = stipple(*filled)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("out*"))


def test_the_installed_command() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "stipple", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    for command in ("render", "info", "devices", "bench"):
        assert command in out.stdout
    version = subprocess.run([sys.executable, "-m", "stipple", "--version"], capture_output=True, text=True, check=True)
    assert package.__version__ in version.stdout
