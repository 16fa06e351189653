"""``python -m stipple.ir``: look at saved graphs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from stipple.errors import StippleError
from stipple.ir.printing import to_dot, to_text
from stipple.ir.serialize import load


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stipple.ir", description="Look at saved Stipple graphs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser("show", help="print a saved graph", description="Print a saved graph.")
    show.add_argument("file", metavar="FILE", help="a graph saved by stipple.ir.save")
    show.add_argument(
        "--dot", action="store_true", help="print Graphviz DOT instead (pipe it into: dot -Tsvg -o graph.svg)"
    )
    arguments = parser.parse_args(argv)
    try:
        graph = load(arguments.file)
        print(to_dot(graph) if arguments.dot else to_text(graph))
    except BrokenPipeError:
        return 0
    except (StippleError, OSError) as error:
        print(f"stipple.ir: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
