"""``stipple poses``: camera poses from plain photos."""

from __future__ import annotations

from pathlib import Path

import click

from stipple.cli.terminal import Terminal


@click.command()
@click.argument("photos", type=click.Path(file_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder for the capture.")
@click.option("--ordered", is_flag=True, help="Photos of a walk or a video: match neighbours only, which is faster.")
@click.option("--many-cameras", is_flag=True, help="Different cameras or zooms took the photos.")
@click.option("--thorough", is_flag=True, help="Look for more features; much slower.")
@click.option(
    "--max-size", type=click.IntRange(16), help="Store photos with a longer side of at most this many pixels."
)
def poses(photos: str, output: str, ordered: bool, many_cameras: bool, thorough: bool, max_size: int | None) -> None:
    """Find where the PHOTOS in a folder were taken, and write a capture for `stipple train`.

    Needs COLMAP: pip install 'stipple[poses]'. Photograph a thing that stands still from 30 to 150 places around it,
    each view sharing most of what it shows with the next.
    """
    from stipple.poses import make_poses

    console = Terminal(stderr=True)
    found = make_poses(
        Path(photos),
        Path(output),
        ordered=ordered,
        one_camera=not many_cameras,
        thorough=thorough,
        max_size=max_size,
        say=console.say,
    )
    console.say(
        f"{found.posed} of {found.photos} photos have a pose; {found.points:,} points, mean error "
        f"{found.error:.2f} pixels. "
        f"Now: stipple inspect {output}, and stipple train {output} -o run/"
    )
