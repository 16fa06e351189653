"""Entry point of the command line: errors are reported in one sentence, with exit status 1."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from stipple import __version__
from stipple.cli.bench import bench_command
from stipple.cli.convert import convert
from stipple.cli.devices import devices
from stipple.cli.evaluate import evaluate
from stipple.cli.info import info
from stipple.cli.inspect import inspect
from stipple.cli.poses import poses
from stipple.cli.render import render
from stipple.cli.selftest import selftest
from stipple.cli.terminal import write_whatever_comes
from stipple.cli.train import train
from stipple.errors import StippleError
from stipple.text import visible


class _Commands(click.Group):
    """Commands whose expected failures end in one line."""

    def main(self, *args: Any, **more: Any) -> Any:
        write_whatever_comes()
        return super().main(*args, **more)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StippleError as error:
            raise click.ClickException(visible(str(error))) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader of the output is gone: click exits silently
            where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            raise click.ClickException(visible(f"{where}{error.strerror or error}")) from None
        except MemoryError as error:
            needed = f": {error}" if str(error) else " for this command"
            raise click.ClickException(f"not enough memory{needed}") from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="stipple")
def main() -> None:
    """Differentiable 3D Gaussian splatting for every machine."""


for command in (poses, train, evaluate, inspect, render, info, convert, devices, selftest, bench_command):
    main.add_command(command)

if __name__ == "__main__":
    sys.exit(main())
