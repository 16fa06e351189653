"""``stipple info``: what a scene file holds."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.text import Text

from stipple.cli.terminal import Terminal, facts

_BAR = 40


@click.command(short_help="Show what a scene file holds.")
@click.argument("file", type=click.Path(dir_okay=False))
def info(file: str) -> None:
    """Show what the scene FILE holds: counts, bounds, SH degree, the spread of opacities and sizes."""
    from stipple.formats import load_scene

    scene = load_scene(file)
    console = Terminal()
    low, high = scene.bounds()
    near, far = scene.bounds(0.95)
    finite = scene.finite
    rows = {
        "file": f"{file}, {Path(file).stat().st_size / 1e6:.1f} MB",
        "Gaussians": f"{scene.count:,}",
        "SH": f"degree {scene.sh_degree} ({scene.sh.shape[1]} coefficients per channel)",
        "bounds": f"{_vector(low)} to {_vector(high)}",
        "95 % of means": f"{_vector(near)} to {_vector(far)}",
        "not finite": f"{int((~finite).sum()):,} (never drawn)" if not finite.all() else "none",
    }
    console.print(facts(rows))
    if scene.count:
        _histogram(console, "opacity", scene.opacities[finite], np.linspace(0, 1, 11))
        sizes = np.log10(np.maximum(scene.scales[finite].max(axis=1), 1e-12)) if finite.any() else np.zeros(0)
        _histogram(console, "largest sigma, log10", sizes, None)


def _vector(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"


def _histogram(console: Terminal, title: str, values: np.ndarray, edges: np.ndarray | None) -> None:
    """Bars in the terminal."""
    if not len(values):
        return
    counts, edges = np.histogram(values, bins=10 if edges is None else edges)
    console.print(Text(f"\n{title}", "bold"))
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = ("#" if console.plain else "█") * round(_BAR * count / max(counts.max(), 1))
        console.print(f"  {low:6.2f} to {high:5.2f}  {bar:<{_BAR}} {count:,}")
