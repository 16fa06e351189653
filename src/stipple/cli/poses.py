"""``stipple poses``: camera poses from plain photos."""

from __future__ import annotations

from pathlib import Path

import click

from stipple.cli.terminal import Terminal


@click.command(short_help="Find the camera poses of photos, with COLMAP.")
@click.argument("photos", type=click.Path(file_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder for the capture.")
@click.option("--ordered", is_flag=True, help="For a walk or a video: match only neighbouring photos; faster.")
@click.option("--many-cameras", is_flag=True, help="The photos come from several cameras or zoom settings.")
@click.option("--thorough", is_flag=True, help="Look for more features; much slower.")
@click.option(
    "--max-size", type=click.IntRange(16), help="Store photos with a longer side of at most this many pixels."
)
def poses(photos: str, output: str, ordered: bool, many_cameras: bool, thorough: bool, max_size: int | None) -> None:
    """Find out where the photos in the folder PHOTOS were taken, and write a capture for `stipple train`.

    Needs COLMAP: pip install 'stipple[poses]'. Take 30 to 150 photos of something that does not move, from positions
    all around it, each photo overlapping most of the next.
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
