"""``stipple inspect``: what a capture holds, before hours of training are spent on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from stipple.cli.config_options import ConfigCommand, given_layers
from stipple.cli.terminal import Terminal, facts

if TYPE_CHECKING:
    from stipple.formats.captures.survey import Survey


@click.command(
    cls=ConfigCommand,
    short_help="Show what a capture holds, and what may go wrong.",
    sections=("data",),
    without=("data.image_memory",),
)
@click.argument("capture", type=click.Path())
@click.option("-o", "--output", default="capture.png", show_default=True, type=click.Path(dir_okay=False),
              help="Picture of the cameras and points from above.")  # fmt: skip
def inspect(capture: str, output: str, **flags: Any) -> None:
    """Show what CAPTURE holds: cameras, points, photos, and what may go wrong in training; draw it as seen from above.

    CAPTURE is anything that `stipple train` accepts.
    """
    from stipple.cli.survey_plot import draw, picture_kind
    from stipple.formats.captures import open_capture
    from stipple.formats.captures.survey import Survey
    from stipple.train.config import make_config
    from stipple.train.problem import capture_options

    picture_kind(output)
    data = make_config(None, *given_layers(flags)).data
    survey = Survey.of(open_capture(capture, capture_options(data)), data.test_every, data.downscale)
    console = Terminal()
    console.print(_summary(survey))
    console.print(_cameras(survey))
    for warning in survey.warnings:
        console.say_labelled("warning", "yellow", warning)
    draw(survey, output)
    console.say(f"Wrote {output}")


def _summary(survey: Survey) -> Table:
    capture = survey.capture
    return facts(
        {
            "capture": f"{capture.root}, {capture.kind}",
            "views": f"{len(capture.views)}: {len(survey.train)} to train on, {len(survey.test)} held out",
            "points": f"{len(capture.points):,}" + (", with the views that observe them" if survey.tracks else ""),
            "depth maps": f"{sum(1 for v in capture.views if v.depth)}",
            "masks": f"{sum(1 for v in capture.views if v.mask)}",
            "unused photos": f"{len(capture.unused)}",
            "cameras' extent": f"{survey.extent:.4g} units; the median point is {survey.distance:.4g} from a camera"
            if survey.distance
            else f"{survey.extent:.4g} units",
        }
    )


def _cameras(survey: Survey) -> Table:
    table = Table(title="Cameras")
    for name in ("size", "views", "focal lengths", "principal point", "field of view", "distortion"):
        table.add_column(name, justify="right" if name == "views" else "left")
    for row in survey.cameras:
        table.add_row(
            f"{row.width} x {row.height}",
            str(row.views),
            row.focal,
            row.center,
            f"{row.fov[0]:.1f} x {row.fov[1]:.1f} degrees",
            row.lens,
        )
    return table
