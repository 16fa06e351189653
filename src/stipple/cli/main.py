"""Entry point of the command line: errors become one sentence and exit status 1."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from stipple import __version__
from stipple.cli.bench import bench
from stipple.cli.evaluate import evaluate
from stipple.cli.info import info
from stipple.cli.inspect import inspect
from stipple.cli.poses import poses
from stipple.cli.render import render
from stipple.cli.train import train
from stipple.errors import StippleError


class _Commands(click.Group):
    """Commands whose expected failures end in one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StippleError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None
        except MemoryError:
            raise click.ClickException("not enough memory for this scene and image size") from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="stipple")
def main() -> None:
    """Differentiable 3D Gaussian splatting for every machine."""


@click.command()
def devices() -> None:
    """List the devices of this machine, the one that --device auto takes first."""
    from stipple.runtime import devices as names

    console = Console()
    for name in names():
        console.print(f"[bold]{name:<10}[/bold] {_describe(name)}")


def _describe(name: str) -> str:
    if name == "cpu":
        from stipple.backends.cpu.simd import LANES
        from stipple.backends.cpu.threads import default_threads

        return f"SIMD kernels, {LANES} lanes of float32, {default_threads()} threads"
    return "float64 NumPy: the specification, slow" if name == "reference" else ""


for command in (poses, train, evaluate, inspect, render, info, devices, bench):
    main.add_command(command)

if __name__ == "__main__":
    sys.exit(main())
