"""The command line: ``stipple render | info | devices | bench``."""

from stipple.cli.main import main

__all__ = ["main"]
