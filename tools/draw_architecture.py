"""Draw docs/architecture.svg and the table in docs/architecture.md from the imports in the code.

``python tools/draw_architecture.py`` writes both; with ``--check`` it only says whether they are what it would write.
A package stands one row above the highest package that it imports. Arrows that follow from others are left out.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "stipple"
DRAWING, PAGE = ROOT / "docs" / "architecture.svg", ROOT / "docs" / "architecture.md"
GROUND = "ground"
PROTOCOL = ("runtime", "backends/registry")
"""The one arrow upwards: a Session opens a device by its name, through the registry."""
WIDTH, BOX, HEIGHT, GAP_X, GAP_Y, MARGIN = 1240, 176, 64, 28, 62, 24
BEGIN, END = "<!-- drawn from the code: tools/draw_architecture.py -->\n", "<!-- end -->\n"


def package_of(parts: list[str]) -> str:
    """The box that a module belongs to; the files beside the packages are the ground."""
    if not parts or not (SOURCE / parts[0]).is_dir():
        return GROUND
    return "/".join(parts[:2]) if parts[0] == "backends" and len(parts) > 1 else parts[0]


def imports() -> dict[str, set[str]]:
    """Which packages each package imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted(SOURCE.rglob("*.py")):
        parts = list(file.relative_to(SOURCE).with_suffix("").parts)
        if parts in (["__init__"], ["__main__"], ["poses"], ["selftest"], ["backends", "__init__"]):
            continue  # the doors and the two programs beside the packages
        me = package_of(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stipple":
                base = node.module.split(".")[1:]
                for alias in node.names:
                    target = SOURCE.joinpath(*base, alias.name)
                    deeper = target.is_dir() or target.with_suffix(".py").exists()
                    found[me].add(package_of([*base, alias.name] if deeper else base))
        found[me].discard(me)
    return dict(found)


def rows(knows: dict[str, set[str]]) -> dict[str, int]:
    """The row of each package, from the bottom."""
    heights: dict[str, int] = {}

    def height(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise SystemExit(f"packages import each other: {' -> '.join([*path, name])}")
        if name not in heights:
            below = [height(other, (*path, name)) for other in knows.get(name, ()) if (name, other) != PROTOCOL]
            heights[name] = 1 + max(below, default=-1)
        return heights[name]

    for name in sorted(knows):
        height(name, ())
    return heights


def reduced(knows: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows that no way of several arrows replaces."""

    def reaches(name: str, target: str) -> bool:
        return any(n == target or reaches(n, target) for n in knows.get(name, ()) if (name, n) != PROTOCOL)

    return [
        (name, other)
        for name, others in sorted(knows.items())
        for other in sorted(others)
        if (name, other) != PROTOCOL
        and not any(reaches(n, other) for n in others if n != other and (name, n) != PROTOCOL)
    ]


def subject(name: str) -> str:
    """What a package says of itself: the first sentence of its docstring."""
    if name == GROUND:
        return "Errors, files, text, numbers of the method, checks of arguments."
    path = SOURCE.joinpath(*name.split("/"))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return doc.split("\n\n")[0].replace("\n", " ").replace("``", "`")


def drawing(knows: dict[str, set[str]]) -> str:
    """The picture as SVG."""
    heights = rows(knows)
    top = max(heights.values())
    places: dict[str, tuple[float, float]] = {}
    for row in range(top + 1):
        names = sorted(n for n, h in heights.items() if h == row)
        span = len(names) * BOX + (len(names) - 1) * GAP_X
        for i, name in enumerate(names):
            places[name] = ((WIDTH - span) / 2 + i * (BOX + GAP_X), MARGIN + (top - row) * (HEIGHT + GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {2 * MARGIN + top * (HEIGHT + GAP_Y) + HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#8899aa"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for name, other in reduced(knows):
        (x0, y0), (x1, y1) = places[name], places[other]
        parts.append(
            f'<path d="M{x0 + BOX / 2:.0f} {y0 + HEIGHT:.0f} C {x0 + BOX / 2:.0f} {y0 + HEIGHT + 30:.0f} '
            f'{x1 + BOX / 2:.0f} {y1 - 34:.0f} {x1 + BOX / 2:.0f} {y1 - 2:.0f}" fill="none" stroke="#8899aa" '
            'stroke-width="1.3" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in sorted(places.items()):
        files = len(_files(name))
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="7" fill="#f3f6fb" stroke="#3c5a86"/>'
            f'<text x="{x + BOX / 2:.0f}" y="{y + 28:.0f}" text-anchor="middle" font-size="16" fill="#12263f">'
            f'{escape(name)}</text><text x="{x + BOX / 2:.0f}" y="{y + 48:.0f}" text-anchor="middle" font-size="12" '
            f'fill="#5a6b80">{files} file{"s" if files != 1 else ""}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _files(name: str) -> list[Path]:
    if name == GROUND:
        return sorted(SOURCE.glob("*.py"))
    path = SOURCE.joinpath(*name.split("/"))
    return sorted(f for f in path.rglob("*") if f.suffix in (".py", ".wgsl")) if path.is_dir() else [path]


def table(knows: dict[str, set[str]]) -> str:
    """The packages as a Markdown table, from the top row down."""
    heights = rows(knows)
    lines = ["| package | what it is | knows |", "| --- | --- | --- |"]
    for name in sorted(heights, key=lambda n: (-heights[n], n)):
        others = ", ".join(f"`{n}`" for n in sorted(knows.get(name, ())) if n != GROUND)
        lines.append(f"| `{name}` | {subject(name)} | {others} |")
    return "\n".join(lines) + "\n"


def page(old: str, knows: dict[str, set[str]]) -> str:
    """The page with a fresh table between its marks."""
    before, rest = old.split(BEGIN)
    return before + BEGIN + table(knows) + END + rest.split(END)[1]


def main() -> None:
    knows = imports()
    wanted = {DRAWING: drawing(knows), PAGE: page(PAGE.read_text(encoding="utf-8"), knows)}
    if "--check" in sys.argv[1:]:
        stale = [f.name for f, text in wanted.items() if not f.exists() or f.read_text(encoding="utf-8") != text]
        if stale:
            raise SystemExit(f"out of date: {', '.join(stale)}; run python tools/draw_architecture.py")
        return
    for file, text in wanted.items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
