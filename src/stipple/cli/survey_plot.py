"""A capture drawn as seen from above: cameras with their viewing directions, and points."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from stipple.errors import InputError
from stipple.files import atomic_write
from stipple.formats.captures.survey import Survey
from stipple.text import visible

Array = np.ndarray
_MAX_POINTS = 20_000


def draw(survey: Survey, path: str) -> None:
    """Draw a survey to a picture (its suffix determines the format)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = _ground_axes(survey.up)
    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    capture = survey.capture
    if len(capture.points):
        step = max(1, len(capture.points) // _MAX_POINTS)
        flat = capture.points[::step] @ axes.T
        plot.scatter(flat[:, 0], flat[:, 1], s=1.5, c=capture.colors[::step] / 255, linewidths=0)
    places, aims = survey.positions @ axes.T, survey.directions @ axes.T
    reach = max(0.15 * survey.extent, 0.12 * survey.distance, 1e-9)
    for ids, color, name in ((survey.train, "#3366aa", "training"), (survey.test, "#cc4433", "held out")):
        if ids:
            plot.quiver(
                *places[ids].T, *(aims[ids] * reach).T, color=color, angles="xy", scale_units="xy", scale=1, width=0.003
            )
            plot.plot(*places[ids].T, "o", color=color, markersize=4, label=f"{name}: {len(ids)}")
    _limit(plot, places, capture.points @ axes.T if len(capture.points) else places)
    plot.set_aspect("equal")
    # a name is not a formula, even if it contains dollar signs
    plot.set_title(visible(f"{capture.root.name}: {capture.kind}, from above"), parse_math=False)
    plot.legend(loc="upper right")
    plot.grid(alpha=0.2)
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # missing glyphs are drawn as boxes
        figure.savefig(file, format=picture_kind(path), dpi=110)


def picture_kind(path: str) -> str:
    """The picture format of a path's suffix, png by default. Raises InputError for an unknown one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kind, known = Path(path).suffix.lstrip(".").lower() or "png", FigureCanvasAgg.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"{path}: expected a picture ({', '.join('.' + k for k in known)})")
    return kind


def _ground_axes(up: Array) -> Array:
    """Two unit vectors [2, 3] orthogonal to the mean up direction of the cameras."""
    length = np.linalg.norm(up)
    normal = up / length if length > 1e-6 else np.array([0.0, -1.0, 0.0])
    start = np.eye(3)[np.argmin(np.abs(normal))]
    right = np.cross(normal, start)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(normal, right)])


def _limit(plot: object, places: Array, points: Array) -> None:
    """Show all cameras and most of the points, without the few that are far away."""
    low, high = np.percentile(points, [3, 97], axis=0)
    low, high = np.minimum(low, places.min(axis=0)), np.maximum(high, places.max(axis=0))
    margin = 0.05 * float((high - low).max()) or 1.0
    plot.set_xlim(low[0] - margin, high[0] + margin)  # type: ignore[attr-defined]
    plot.set_ylim(low[1] - margin, high[1] + margin)  # type: ignore[attr-defined]
