"""The same work by Stipple and by another program, in turns in one process: times, their ratio, and a page of both."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np

import stipple
from stipple.bench.cases import Case
from stipple.bench.machine import machine

RESULTS = Path(__file__).parents[1] / "results"
TOLERANCE = 2e-3
"""How far pictures of the same scene, with values from 0 to 1, may differ on average. Programs draw the rims of
footprints, where a Gaussian has faded to 1/255, differently."""
PAUSE = 0.05
"""Seconds between turns: threads of the other side that still wait for work in a loop fall asleep."""
Array = np.ndarray
Run = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """The same work by both sides, and the picture that each makes of the scene, [H, W, 3]."""

    scene: str
    what: str
    ours: Run
    theirs: Run
    pictures: tuple[Array, Array]


@dataclass(frozen=True)
class Peer:
    """Another program: what it is called, its versions, how it was run, and the work to measure."""

    name: str
    title: str
    versions: dict[str, str]
    notes: list[str]
    works: Iterable[Work] = field(repr=False)


def picture(case: Case, device: str = "cpu") -> Array:
    """Our picture of a case, [H, W, 3]."""
    x, size = case.operands, (case.attrs["width"], case.attrs["height"])
    degree = None if case.attrs["sh_degree"] < 0 else case.attrs["sh_degree"]
    given = (x.means, x.quats, x.scales, x.opacities, x.colors, x.viewmat[None], x.intrinsics[None], *size)
    return stipple.rasterization(*given, sh_degree=degree, device=device)[0][0]


def with_gradients(case: Case) -> Run:
    """Our public call with the gradients of all inputs."""
    x, (width, height) = case.operands, (case.attrs["width"], case.attrs["height"])
    given = (x.means, x.quats, x.scales, x.opacities, x.colors, x.viewmat[None], x.intrinsics[None], width, height)
    v_colors = np.ones((1, height, width, 3), np.float32)

    def run() -> None:
        *_, vjp = stipple.rasterization_vjp(*given, device="cpu")
        vjp(v_colors)

    return run


def difference(pictures: tuple[Array, Array]) -> dict[str, float]:
    """How far two pictures differ, on average and at most. Ends the program if they do not show the same."""
    apart = np.abs(pictures[0] - pictures[1])
    found = {"mean_difference": float(apart.mean()), "max_difference": float(apart.max())}
    if not found["mean_difference"] <= TOLERANCE:
        raise SystemExit(
            f"The pictures differ by {found['mean_difference']:.2g} on average (at most {TOLERANCE:g} is the same "
            "work): nothing was measured."
        )
    return found


def measured(run: Run, seconds: float) -> float:
    """Median milliseconds of a call, over as many as fit into the time, at least one, after one that warms up."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin))
    time.sleep(PAUSE)
    return float(np.median(times))


def in_turns(work: Work, rounds: int, seconds: float) -> dict[str, Any]:
    """Both sides in turns, in alternating order: the median of each, and the ratio of every round."""
    row: dict[str, Any] = {"scene": work.scene, "work": work.what, **difference(work.pictures)}
    sides = {"ours_ms": work.ours, "theirs_ms": work.theirs}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            times[name].append(measured(sides[name], seconds))
    row |= {name: float(np.median(found)) for name, found in times.items()}
    row["ratios"] = [b / a for a, b in zip(times["ours_ms"], times["theirs_ms"], strict=True)]
    return row


def command_line(words: list[str]) -> str:
    """The command, with the names of folders without where they are."""
    shown = [
        Path(word).name if before == "--source" else word for before, word in zip(["", *words], words, strict=False)
    ]
    return " ".join(["python", "benchmarks/compare/peer.py", *shown])


def results_of(peer: Peer, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure all of a peer's work."""
    rows = []
    for work in peer.works:
        print(f"measuring {work.scene}: {work.what} ...", file=sys.stderr, flush=True)
        rows.append(in_turns(work, rounds, seconds))
    versions = {"Stipple": stipple.__version__, "NumPy": np.__version__, "Numba": numba.__version__, **peer.versions}
    return {
        "peer": peer.title,
        "machine": machine(),
        "versions": versions,
        "command": command_line(sys.argv[1:]),
        "rounds": rounds,
        "notes": peer.notes,
        "rows": rows,
    }


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m, peer = results["machine"], results["peer"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"# Beside {peer}",
        "",
        f"`{results['command']}` on {m['processor']}, {m['threads']} threads, {m['lanes']} lanes, Python "
        f"{m['python']}; {versions}. Milliseconds: both did the same work in turns in one process, {results['rounds']} "
        "rounds; medians, and the ratio with its range over the rounds. Differences are those of the two pictures, "
        "whose values go from 0 to 1.",
        "",
        f"| scene | work | {peer} | Stipple | ratio | mean difference | largest |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results["rows"]:
        ratios = r["ratios"]
        lines.append(
            f"| {r['scene']} | {r['work']} | {r['theirs_ms']:.1f} | {r['ours_ms']:.1f} "
            f"| {np.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {r['mean_difference']:.1e} | {r['max_difference']:.1e} |"
        )
    return "\n".join([*lines, "", "\n\n".join(results["notes"])]) + "\n"


def write(name: str, results: dict[str, Any]) -> None:
    """results/peer_NAME.json and .md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"peer_{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"peer_{name}.md").write_text(markdown(results))
    print(markdown(results))
