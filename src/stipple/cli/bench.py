"""``stipple bench``: how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stipple.cli.options import device_options
from stipple.cli.terminal import Terminal


@click.command("bench", short_help="Measure how fast this machine is.")
@click.option("--quick", is_flag=True, help="Only the small scene.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Also write the results to a file.")
@click.option("--scene", type=click.Path(dir_okay=False), help="Also measure this scene file, at 1280x720.")
@device_options
def bench_command(quick: bool, json_file: str | None, scene: str | None, device: str) -> None:
    """Measure this machine and print tables: 10,000 Gaussians at 640x480, and 100,000 at 1920x1080.

    On the CPU: each stage and whole frames, with one thread and with all; and for comparison, in the same run, the
    scalar loop of other CPU renderers, one pixel and one Gaussian at a time. On a GPU: frames, training steps, and the
    time of each kernel by the device's own clock.
    """
    from stipple import bench

    console = Terminal()
    measured = bench.measure(device, bench.usual_cases(quick, scene), Terminal(stderr=True))
    console.print(bench.table(measured))
    if json_file:
        Path(json_file).write_text(json.dumps(measured, indent=1))
        console.say(f"Wrote {json_file}")
