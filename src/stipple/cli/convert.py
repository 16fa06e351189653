"""``stipple convert``: a scene in another format."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from stipple.cli.terminal import Terminal


class _WithFormats(click.Command):
    """Lists the available formats."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from stipple.formats.scenes import FORMATS

        with formatter.section("Formats"):
            rows = [(f.suffix, f"{f.about}{'' if f.write else ' (only read)'}") for f in FORMATS]
            formatter.write_dl(sorted(rows))


@click.command(cls=_WithFormats, short_help="Write a scene in another format.")
@click.argument("scene", type=click.Path(dir_okay=False))
@click.argument("output", type=click.Path(dir_okay=False))
def convert(scene: str, output: str) -> None:
    """Write SCENE to OUTPUT in the format that OUTPUT's suffix names.

    \b
    stipple convert run/scene.ply scene.splat
    stipple convert scene.compressed.ply scene.ply
    """
    from stipple.formats import load_scene, save_scene

    console = Terminal(stderr=True)
    gaussians = load_scene(scene)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save_scene(gaussians, output)
    for warning in caught:
        console.say(f"note: {warning.message}")
    console.say(f"Wrote {output}: {gaussians.count:,} Gaussians, {Path(output).stat().st_size / 1e6:.1f} MB")
