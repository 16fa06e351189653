"""``stipple bench``: how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from stipple.cli.options import device_options


@click.command()
@click.option("--quick", is_flag=True, help="Only the small scene.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Also write the figures to a file.")
@click.option("--scene", type=click.Path(dir_okay=False), help="Also measure this splat PLY, at 1280x720.")
@device_options
def bench(quick: bool, json_file: str | None, scene: str | None, device: str) -> None:
    """Measure each stage and whole frames on this machine, with 1 thread and with all, and print a table.

    Scenes: 10,000 Gaussians at 640x480, and 100,000 at 1920x1080, spread before the camera. Beside them stands
    the loop that other CPU renderers run, one pixel and one Gaussian at a time, in the same run.
    """
    from stipple.cli import measure

    console = Console()
    measured = measure.run(quick=quick, scene=scene, device=device, console=Console(stderr=True))
    console.print(measure.table(measured))
    if json_file:
        Path(json_file).write_text(json.dumps(measured, indent=1))
        console.print(f"Wrote {json_file}")
