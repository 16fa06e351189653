"""report.html: one self-contained page about a run, to view or to share."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from stipple import __version__
from stipple.train.evaluation import Comparison, Score, mean_scores
from stipple.train.rundir import RunFolder, write_text
from stipple.train.trainer import Outcome

Array = np.ndarray
_WIDEST = 640
_FULL_ERROR = 0.25
_BLUE, _RED = "#3366aa", "#cc4433"


def write_report(folder: RunFolder, outcome: Outcome, title: str, facts: Mapping[str, str], config: str) -> None:
    """Write a run's report: facts, curves, renders beside their photos with error maps, scores, configuration."""
    tests = [p for p in outcome.pictures if p.score.split == "test"]
    page = (
        Environment(loader=PackageLoader("stipple.train"), autoescape=True)
        .get_template("report.html.j2")
        .render(
            title=title,
            version=__version__,
            folder=folder.root,
            facts=facts,
            curves=curves_svg(outcome.rows),
            groups=[
                ("Held-out views", "not trained on", [_picture(p) for p in tests]),
                ("Training views", "", [_picture(p) for p in outcome.pictures if p.score.split == "train"]),
            ],
            full_error=_FULL_ERROR,
            means=[
                (s, _means(outcome.scores, s)) for s in ("test", "train") if any(x.split == s for x in outcome.scores)
            ],
            scores=[s.as_dict() for s in outcome.scores],
            config=config,
        )
    )
    write_text(folder.report, page)


def _means(scores: Sequence[Score], split: str) -> dict[str, Any]:
    chosen = [s for s in scores if s.split == split]
    return {"count": len(chosen), **mean_scores(chosen)}


def _picture(compared: Comparison) -> dict[str, Any]:
    """A view's photo, render and error map as data URLs."""
    error = np.abs(compared.image - compared.photo).mean(axis=2)
    images = [_bytes(compared.photo), _bytes(compared.image), error_colors(error)]
    return {**compared.score.as_dict(), "images": [_data_url(i) for i in images]}


def error_colors(error: Array) -> Array:
    """A mean absolute error [H, W] as colours [H, W, 3] uint8, from black (0) to bright (0.25 or more)."""
    from matplotlib import colormaps

    shade = colormaps["inferno"](np.clip(error / _FULL_ERROR, 0, 1))
    return _bytes(np.asarray(shade)[..., :3])


def _bytes(values: Array) -> Array:
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _data_url(pixels: Array) -> str:
    image = Image.fromarray(pixels)
    if image.width > _WIDEST:
        image = image.resize((_WIDEST, max(1, round(image.height * _WIDEST / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def curves_svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss, PSNR and number of Gaussians over steps, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    steps = [r for r in rows if all(name in r for name in ("loss", "psnr", "count"))]
    tests = [r for r in rows if "test_psnr" in r]
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "stipple"}):
        figure = Figure(figsize=(11, 2.9), layout="constrained")
        axes = figure.subplots(1, 3)
        x = [r["step"] for r in steps]
        axes[0].plot(x, [r["loss"] for r in steps], color=_BLUE, alpha=0.25, linewidth=0.8)
        axes[0].plot(x, _smoothed([r["loss"] for r in steps]), color=_BLUE)
        axes[0].set_title("loss")
        axes[0].set_ylim(bottom=0)
        axes[1].plot(x, [r["psnr"] for r in steps], color=_BLUE, label="training views, running mean")
        if tests:
            marks = [r["step"] for r in tests], [r["test_psnr"] for r in tests]
            axes[1].plot(*marks, "o-", color=_RED, markersize=4, label="held-out views")
        axes[1].legend(frameon=False)
        axes[1].set_title("PSNR, dB")
        axes[2].plot(x, [r["count"] for r in steps], color=_BLUE)
        axes[2].set_title("Gaussians")
        axes[2].set_ylim(bottom=0)
        for axis in axes:
            axis.grid(alpha=0.2)
            axis.set_xlabel("step")
            axis.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"(?s)^.*?(?=<svg)", "", buffer.getvalue())


def _smoothed(values: Sequence[float]) -> Array:
    """A running mean over a fiftieth of the values."""
    width = max(1, len(values) // 50)
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))
