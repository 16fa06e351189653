"""The arrows between packages, and the sizes of files and functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "stipple"
ABOVE = {"backends/reference", "backends/cpu", "backends/gpu", "render", "train", "bench", "cli", "compat", "formats"}
ALLOWED = {
    "ir": set(),
    "scene": set(),
    "runtime": {"ir", "backends/registry"},
    "backends/host": {"ir"},
    "backends/reference": {"ir", "runtime", "backends/host"},
    "backends/cpu": {"ir", "runtime", "backends/host"},
    "backends/gpu": {"ir", "runtime", "backends/host"},
    "formats": {"scene"},
    "render": {"ir", "runtime", "scene"},
    "train": {"ir", "runtime", "scene", "formats", "render"},
    "compat": {"ir", "runtime", "scene", "render"},
}
"""What each package may import besides the files beside the packages."""
FIELD_NAMES = {
    "rasterization", "render_view", "splat_project", "splat_prepare", "splat_render", "splat_rasterize", "adam",
    "splat_noise",
}  # fmt: skip
"""Public functions whose parameters are the field's names."""

sys.path.insert(0, str(ROOT / "tools"))
import draw_architecture  # noqa: E402 - a tool beside the package


def test_packages_import_only_what_stands_below_them() -> None:
    knows = draw_architecture.imports()
    assert knows.keys() >= ABOVE
    for name, allowed in ALLOWED.items():
        others = knows.get(name, set()) - {draw_architecture.GROUND}
        assert others <= allowed, f"{name} imports {sorted(others - allowed)}"
    draw_architecture.rows(knows)  # raises where packages import each other


def test_the_drawing_is_of_this_code() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "draw_architecture.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("library", "home"), [("wgpu", "backends/gpu"), ("numba", "backends/cpu")])
def test_libraries_have_one_home(library: str, home: str) -> None:
    users = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for module in _modules(node)
        if module.split(".")[0] == library
    }
    elsewhere = {f for f in users if not f.startswith(home)} - {"bench/scalar_loop.py"}  # the loop of other renderers
    assert users
    assert not elsewhere


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_files_have_at_most_400_lines() -> None:
    files = [f for f in SOURCE.rglob("*") if f.suffix in (".py", ".wgsl")]
    lengths = {str(f.relative_to(SOURCE)): f.read_text(encoding="utf-8").count("\n") for f in files}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_functions_have_at_most_eight_parameters() -> None:
    crowded = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in FIELD_NAMES:
                a = node.args
                names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in ("self", "cls")]
                if len(names) > 8:
                    crowded.append(f"{file.relative_to(SOURCE)}: {node.name} has {len(names)}")
    assert crowded == []
