"""``stipple selftest``: does this machine's device compute correctly?"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from stipple import __version__
from stipple.cli.devices import describe_device
from stipple.cli.options import device_options
from stipple.cli.terminal import Terminal


@click.command(short_help="Check that a device computes correctly.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Also write the results to a file.")
@device_options
def selftest(json_file: str | None, device: str) -> None:
    """Compare a device's ops with the float64 reference on this machine, and print a table.

    Ends with status 1 if a check fails. If your device is not listed in the documentation, please send the table in an
    issue.
    """
    from stipple.runtime import Session
    from stipple.selftest import run_checks

    name = Session(device).device
    console = Terminal()
    where = f"{describe_device(name)}; {platform.platform()}, Python {platform.python_version()}, Stipple {__version__}"
    console.say_labelled(name, "bold", where)
    table = Table()
    table.add_column("check")
    for column in ("worst error", "allowed", "milliseconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    checks = []
    with console.status("checking ...", spinner="line" if console.plain else "dots"):
        for check in run_checks(device):
            checks.append(check)
            verdict = Text("ok", "green") if check.passed else Text("WRONG", "red bold")
            figures = (
                f"{check.error:.2g}",
                f"{check.allowed:.0e}" if check.allowed else "0",
                f"{1e3 * check.seconds:.1f}",
            )
            table.add_row(check.name, *figures, verdict)
    console.print(table)
    if json_file:
        rows = [{**asdict(c), "passed": c.passed} for c in checks]
        Path(json_file).write_text(json.dumps({"device": name, "where": where, "checks": rows}, indent=1) + "\n")
    failed = [c.name for c in checks if not c.passed]
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    console.print(f"All {len(checks)} checks passed.")
