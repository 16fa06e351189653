"""The page and the drawing of growth.py: slopes of times and memory, and stages that grow faster than their data."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LIMIT = 1.1
"""A slope over a stage's data above this counts as growing faster than the data."""
STEADY = 1.02
"""Data that grow less than this stay as they are."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """Ops of a step, and what they handle: keys of a row."""

    ops: tuple[str, ...]
    data: tuple[str, ...]


STAGES = {
    "project": Stage(("splat_project",), ("gaussians",)),
    "SH": Stage(("splat_sh",), ("gaussians",)),
    "bin": Stage(("splat_bin",), ("gaussians", "entries")),
    "rasterize": Stage(("splat_rasterize",), ("entries", "pixels")),
    "image losses": Stage(("image_l1_ssim",), ("pixels",)),
    "image losses backward": Stage(("image_l1_ssim_backward",), ("pixels",)),
    "rasterize backward": Stage(("splat_rasterize_backward",), ("gaussians", "entries", "pixels")),
    "SH backward": Stage(("splat_sh_backward",), ("gaussians",)),
    "project backward": Stage(("splat_project_backward",), ("gaussians",)),
    "Adam": Stage(("adam",), ("gaussians",)),
}
ALL = ("gaussians", "entries", "pixels")
WHOLE = {"frame with gradients": "frame_ms", "training step": "step_ms"}
MEMORY = {"memory of a frame with gradients": "frame_mb", "memory of a training step": "step_mb"}
NAMES = {"gaussians": "Gaussians", "entries": "entries", "pixels": "pixels"}


@dataclass(frozen=True)
class Slope:
    """Growth from one size to the next: of a quantity, of the data that it handles, and of the size itself."""

    grown: float
    data: float
    size: float

    @property
    def over_size(self) -> float:
        return math.log(self.grown) / math.log(self.size)

    @property
    def over_data(self) -> float | None:
        """Over the data of the stage that grows fastest; None where they stay as they are."""
        return math.log(self.grown) / math.log(self.data) if self.data > STEADY else None

    @property
    def too_fast(self) -> bool:
        """Faster than the data; where these stay, at more than a tenth of the size's slope."""
        over_data = self.over_data
        return self.over_size > LIMIT - 1 if over_data is None else over_data > LIMIT


def value(row: Row, name: str) -> float:
    """A stage's milliseconds, or those of a whole frame or step, or megabytes."""
    key = (WHOLE | MEMORY).get(name)
    return float(row[key] if key else row["stages"][name])


def handled(name: str) -> tuple[str, ...]:
    """The data of a stage; of a frame, a step, or their memory."""
    return STAGES[name].data if name in STAGES else ALL


def slopes(rows: list[Row], name: str, over: str) -> list[Slope]:
    """One for each pair of neighbouring sizes."""
    found = []
    for a, b in pairwise(rows):
        grown = max(value(b, name), 1e-6) / max(value(a, name), 1e-6)
        found.append(Slope(grown, max(b[kind] / a[kind] for kind in handled(name)), b[over] / a[over]))
    return found


def shown_names(rows: list[Row]) -> list[str]:
    """Stages, whole frames and steps, memory."""
    return [*rows[0]["stages"], *WHOLE, *MEMORY]


def size_of(row: Row, over: str) -> str:
    """How a size is written."""
    if over == "pixels":
        return f"{row['pixels'] / 1e6:.1f} MP"
    count = row["gaussians"]
    return f"{count // 1_000_000}M" if count % 1_000_000 == 0 else f"{count // 1000}K"


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m = results["machine"]
    lines = [
        "# Growth",
        "",
        f"{', '.join(f'`{command}`' for command in results['commands'])} on {m['processor']}, {m['threads']} threads, "
        f"{m['lanes']} lanes, Python {m['python']}. Milliseconds, the fastest of several; megabytes, the peak of all "
        "arrays, inputs or parameters and moments included. The stages are those of a training step with SH of degree "
        "3; `others` are elementwise ops between them.",
        "",
        "A slope is log(growth of time) / log(growth of Gaussians or pixels) from one size to the next, in brackets "
        "the slope over the data that the stage handles, by those that grow fastest. **Bold** are those that grow "
        f"faster than their data: a slope over them above {LIMIT}, or, where the data stay as they are, above "
        f"{LIMIT - 1:.1f} over the size.",
    ]
    for over, rows in results["series"].items():
        if len(rows) > 1:
            lines += ["", *_series(rows, over)]
    return "\n".join([*lines, *(f"\n{sentence}" for sentence in results["stopped"])]) + "\n"


def _series(rows: list[Row], over: str) -> list[str]:
    fixed = f"{rows[0]['width']}x{rows[0]['height']}" if over == "gaussians" else f"{rows[0]['gaussians']:,} Gaussians"
    sizes = [size_of(row, over) for row in rows]
    bar = "| --- |" + " ---: |" * len(rows)
    lines = [f"## From {sizes[0]} to {sizes[-1]} {'' if over == 'pixels' else 'Gaussians'}".rstrip() + f", {fixed}", ""]
    lines += ["| | " + " | ".join(sizes) + " |", bar]
    lines += ["| " + " | ".join([kind, *(f"{row[kind]:,}" for row in rows)]) + " |" for kind in ("visible", "entries")]
    for name in shown_names(rows):
        unit = "MB" if name in MEMORY else "ms"
        digits = 0 if name in MEMORY else 2
        lines.append("| " + " | ".join([f"{name}, {unit}", *(f"{value(r, name):,.{digits}f}" for r in rows)]) + " |")
    pairs = [f"{a} to {b}" for a, b in pairwise(sizes)]
    lines += ["", "| slope | its data | " + " | ".join(pairs) + " |", "| --- | --- |" + " ---: |" * len(pairs)]
    for name in shown_names(rows):
        data = ", ".join(NAMES[kind] for kind in handled(name))
        lines.append("| " + " | ".join([name, data, *(_cell(s) for s in slopes(rows, name, over))]) + " |")
    flagged = list(too_fast(rows, over))
    sentence = "Faster than their data: " + "; ".join(flagged) if flagged else "No stage grows faster than its data"
    return [*lines, "", f"{sentence}."]


def _cell(slope: Slope) -> str:
    own = "steady" if slope.over_data is None else f"{slope.over_data:.2f}"
    text = f"{slope.over_size:.2f} ({own})"
    return f"**{text}**" if slope.too_fast else text


def too_fast(rows: list[Row], over: str) -> Iterator[str]:
    """Where a stage grows faster than its data, with how much both grow."""
    for name in shown_names(rows):
        for (a, b), slope in zip(pairwise(rows), slopes(rows, name, over), strict=True):
            if slope.too_fast:
                sizes = f"from {size_of(a, over)} to {size_of(b, over)}"
                yield f"{name} {sizes} ({slope.grown:.1f} x, its data {slope.data:.1f} x)"


def draw(results: dict[str, Any]) -> str:
    """Times of stages, frames and steps over Gaussians and over pixels, and memory, as SVG."""
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "stipple"}):
        figure = Figure(figsize=(12, 9), layout="constrained")
        grid = figure.subplots(2, 2, height_ratios=[2, 1])
        for column, (over, rows) in enumerate(results["series"].items()):
            if len(rows) < 2:
                continue
            x = [row[over] / (1e6 if over == "pixels" else 1) for row in rows]
            times, memory = grid[0, column], grid[1, column]
            for i, name in enumerate([*rows[0]["stages"], *WHOLE]):
                style = {"color": "black", "linestyle": "-" if name == "training step" else "--", "linewidth": 1.5}
                if name not in WHOLE:
                    style = {"color": colormaps["tab20"](i), "linestyle": "-", "linewidth": 1.1}
                _line(times, x, rows, name, style)
            for name, style in zip(MEMORY, ({"color": "black", "linestyle": "--"}, {"color": "black"}), strict=True):
                _line(memory, x, rows, name, style)
            times.set_title("milliseconds, and the slope over all sizes")
            memory.set_title("megabytes")
            for axes in (times, memory):
                axes.set_xlabel("megapixels" if over == "pixels" else "Gaussians")
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.grid(alpha=0.2)
                axes.spines[["top", "right"]].set_visible(False)
                axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"(?s)^.*?(?=<svg)", "", buffer.getvalue()).replace("<svg", '<svg style="background: white"', 1)


def _line(axes: Any, x: list[float], rows: list[Row], name: str, style: dict[str, Any]) -> None:
    """A line with its slope from the first size to the last."""
    y = [max(value(row, name), 1e-3) for row in rows]
    slope = math.log(y[-1] / y[0]) / math.log(x[-1] / x[0])
    axes.plot(x, y, marker=".", markersize=4, label=f"{name.removeprefix('memory of ')}: {slope:.2f}", **style)
