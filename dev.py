#!/usr/bin/env python3
"""Set up and run everything, with only Python installed: ``python3 dev.py demo | garden | test | lint``.

The first call makes a virtual environment in .venv and installs Stipple into it in editable mode with its
development tools; later calls reuse it until pyproject.toml changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENV = ROOT / ".venv"
STAMP = ENV / "stipple-installed"
COMMANDS = {
    "demo": "train a scene from the photos that ship, about three minutes; writes out/room/report.html",
    "garden": "render points of a real garden to out/garden.png",
    "test": "run the tests, on all cores (further arguments go to pytest; -n 0: in one process)",
    "lint": "run ruff and mypy",
    "setup": "only set up the environment",
}


def python() -> str:
    """The environment's interpreter."""
    return str(ENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def run(*command: str) -> None:
    """Run a command from the project's root; stop with its status if it fails."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def set_up() -> None:
    """Make the environment and install into it, unless that is done for this pyproject.toml."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    print(f"Setting up {ENV} (once; about a minute) ...", flush=True)
    venv.create(ENV, with_pip=True, clear=True)
    run(python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", ".[dev]")
    STAMP.write_text(wanted)


def main() -> None:
    """Entry point."""
    if sys.version_info < (3, 10):  # noqa: UP036 - the one file that an older Python may run
        sys.exit(f"Stipple needs Python 3.10 or newer; this is {sys.version.split()[0]}")
    listing = "\n".join(f"  {name:<6} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        description="Set up Stipple's environment and run a command in it.",
        epilog=f"commands:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    arguments, more = parser.parse_known_args()
    if more and arguments.command != "test":
        parser.error(f"unexpected arguments: {' '.join(more)}")
    set_up()
    if arguments.command == "demo":
        room = ["examples/data/room", "-o", "out/room", "--overwrite", "--preset", "fast", "--depth-weight", "0.1"]
        room += ["--max-gaussians", "80000", "--set", "start.count=30000"]
        run(python(), "-m", "stipple", "train", *room)
        print("Look at out/room/report.html. How to train on your own photos: docs/training.md")
    elif arguments.command == "garden":
        run(python(), "examples/garden.py")
    elif arguments.command == "test":
        run(python(), "-m", "pytest", "--numprocesses", "auto", "--dist", "worksteal", *more)
    elif arguments.command == "lint":
        run(python(), "-m", "ruff", "check", ".")
        run(python(), "-m", "ruff", "format", "--check", ".")
        run(python(), "-m", "mypy")


if __name__ == "__main__":
    main()
