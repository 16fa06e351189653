"""Fuzz graphs by the thousand: ``python tests/fuzz/run.py --graphs 5000 --seed 7 --devices reference,cpu,gpu``."""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
import warnings
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from fuzz import composites
from fuzz.check import VARIANTS, MismatchError, Tally, Variant, check, session
from fuzz.scenario import Round, random_scenario
from fuzz.shrink import shrink
from fuzz.small_splats import random_small_op
from fuzz.splat_programs import random_step
from stipple import ir
from stipple.errors import GraphError

SPLATS = 12
"""Of so many graphs one renders Gaussians, and one runs a splat op alone."""


def fuzz_one(seed: int, variants: list[Variant], tally: Tally, shrinks: bool = True, ignore: str | None = None) -> str:
    """Try the graph of a seed: an empty text, or what went wrong, with the smallest graph that it goes wrong for."""
    try:
        kind = {SPLATS - 1: random_step, SPLATS // 2: random_small_op}.get(seed % SPLATS, random_scenario)
        made = kind(seed)
    except GraphError:
        return f"seed {seed}: the graph could not be built:\n{traceback.format_exc()}"
    try:
        check(made.graph, made.rounds, variants, tally)
    except MismatchError as failure:
        if ignore and re.search(ignore, str(failure)):
            return ""
        failed = [v for v in variants if str(failure).startswith(f"{v.name}:")] or variants
        return report(seed, made.graph, made.rounds, failed, str(failure), shrinks)
    return ""


def report(
    seed: int, graph: ir.Graph, rounds: list[Round], variants: list[Variant], message: str, shrinks: bool
) -> str:
    def fails(graph: ir.Graph, rounds: list[Round]) -> bool:
        try:
            check(graph, rounds, variants)
        except MismatchError as failure:
            nonlocal message
            message = str(failure)
            return True
        except Exception:  # a cut that leaves feeds and graph apart is no smaller case
            return False
        return False

    if shrinks:
        first = message
        graph, rounds = shrink(graph, rounds, fails)
        if not fails(graph, rounds):
            message = first
    lines = [f"seed {seed}: {message}", str(graph)]
    with np.printoptions(threshold=60, floatmode="unique"):
        for k, given in enumerate(rounds):
            for kind, arrays in (("param", given.params), ("feed", given.feeds)):
                lines += [f"run {k}: {kind} {n} = {a!r}" for n, a in arrays.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=1000, help="how many graphs (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first graph; one graph is one number")
    parser.add_argument("--devices", default="reference,cpu", help="reference, cpu and gpu, separated by commas")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many failures")
    parser.add_argument("--ignore", metavar="REGEX", help="pass over failures whose message it matches")
    parser.add_argument("--no-shrink", action="store_true", help="print failing graphs whole")
    given = parser.parse_args()
    devices = given.devices.split(",")
    unknown = set(devices) - {v.device for v in VARIANTS}
    if unknown:
        parser.error(f"no such device: {', '.join(sorted(unknown))}")
    for device in devices:
        found = session(device)
        if isinstance(found, str):
            parser.error(found)
    variants = [v for v in VARIANTS if v.device in devices]
    warnings.simplefilter("error")
    tally, failures, started = Tally(), 0, time.monotonic()
    for k in range(given.graphs):
        text = fuzz_one(given.seed + k, variants, tally, not given.no_shrink, given.ignore)
        if text:
            failures += 1
            print(f"\n{text}\n", flush=True)
        if k % 20 == 19 or k == given.graphs - 1:
            print(f"\r{k + 1} of {given.graphs} graphs, {failures} failures", end="", flush=True)
        if failures == given.failures:
            break
    print(f"\n{tally}; {time.monotonic() - started:.0f} s")
    print("ops: " + ", ".join(f"{op} {n}" for op, n in sorted(tally.ops.items(), key=lambda item: -item[1])))
    return int(failures > 0)


if __name__ == "__main__":
    with composites.registered():
        sys.exit(main())
