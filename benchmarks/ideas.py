"""Time to a picture: how long training takes to reach the held-out PSNR of a preset, with and without an idea.

python benchmarks/ideas.py lego=../shared/data/lego --preset standard --seeds 3 \\
    --idea "half the steps=--steps 3500" --idea "prune by the number of steps=--set density.prune_opacity=0.05"

An idea is options of ``stipple train``. The target is the mean of the preset's own final PSNR over the seeds; time is
that of training alone, without evaluations, and interpolated between them. Every run is a fresh process, and the ideas
take turns. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from stipple.bench.machine import machine

RESULTS = Path(__file__).parent / "results"
CONSOLE = Console(stderr=True)
BASELINE = "as it is"


class Curve(NamedTuple):
    """One training: seconds and held-out PSNR at its evaluations, and the final number of Gaussians."""

    seconds: list[float]
    psnr: list[float]
    gaussians: int

    def time_to(self, target: float) -> float:
        """Seconds until the PSNR is reached, infinite if it is not."""
        for i, psnr in enumerate(self.psnr):
            if psnr >= target:
                if not i:
                    return self.seconds[0]
                share = (target - self.psnr[i - 1]) / (psnr - self.psnr[i - 1])
                return self.seconds[i - 1] + share * (self.seconds[i] - self.seconds[i - 1])
        return float("inf")


def trained(capture: str, options: list[str]) -> Curve:
    """Train a capture as a user does."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stipple", "train", capture, "-o", f"{folder}/run", *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command[2:])} failed:\n{done.stdout}{done.stderr}")
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    times = {r["step"]: r["seconds"] for r in rows if "seconds" in r}
    evaluated = [r for r in rows if "test_psnr" in r]
    seconds = [times[max(step for step in times if step <= r["step"])] for r in evaluated]
    return Curve(seconds, [r["test_psnr"] for r in evaluated], evaluated[-1]["count"])


def summary(capture: str, ideas: dict[str, list[str]], curves: dict[str, list[Curve]]) -> list[dict[str, Any]]:
    """One row for each idea: final PSNR, time, and time to the baseline's PSNR."""
    target = float(np.mean([c.psnr[-1] for c in curves[BASELINE]]))
    rows = []
    for name, options in ideas.items():
        runs = curves[name]
        rows.append(
            {
                "capture": capture,
                "idea": name,
                "options": shlex.join(options),
                "target": target,
                "psnr": [c.psnr[-1] for c in runs],
                "seconds": [c.seconds[-1] for c in runs],
                "seconds_to_target": [c.time_to(target) for c in runs],
                "gaussians": [c.gaussians for c in runs],
                "curves": [c._asdict() for c in runs],
            }
        )
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m = results["machine"]
    lines = [
        "# Time to a picture",
        "",
        f"{m['processor']}, {m['threads']} threads; preset {results['preset']}, {results['seeds']} seeds. Means; the "
        "time to the preset's own final PSNR on held-out views counts only if every seed reaches it.",
        "",
        "| capture | idea | options | held out, dB | training, s | s to the target | Gaussians |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for r in results["rows"]:
        psnr, to = np.array(r["psnr"]), np.mean(r["seconds_to_target"])
        reached = f"{to:.0f}" if np.isfinite(to) else f"not reached ({r['target']:.2f} dB)"
        lines.append(
            f"| {r['capture']} | {r['idea']} | `{r['options']}` "
            f"| {psnr.mean():.2f} ({psnr.min():.2f} to {psnr.max():.2f}) | "
            f"{np.mean(r['seconds']):.0f} | {reached} | {np.mean(r['gaussians']):,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="+", metavar="NAME=PATH[,OPTION...]")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--idea", action="append", default=[], metavar="NAME=OPTIONS")
    parser.add_argument("--evaluate-every", type=int, default=500, help="steps between points of the curves")
    parser.add_argument("--name", default="ideas", help="name of the results' files")
    arguments = parser.parse_args()
    ideas: dict[str, list[str]] = {BASELINE: []}
    ideas |= {n: shlex.split(o) for n, o in (i.split("=", 1) for i in arguments.idea)}
    shared = ["--preset", arguments.preset, "--set", f"output.evaluate_every={arguments.evaluate_every}"]
    rows = []
    for given in arguments.captures:
        name, rest = given.split("=", 1)
        path, *more = rest.split(",")
        curves: dict[str, list[Curve]] = {idea: [] for idea in ideas}
        for seed in range(arguments.seeds):
            for idea, options in ideas.items():
                curve = trained(path, [*shared, "--seed", str(seed), *more, *options])
                CONSOLE.print(f"{name}, {idea}, seed {seed}: {curve.psnr[-1]:.2f} dB in {curve.seconds[-1]:.0f} s")
                curves[idea].append(curve)
        rows += summary(name, ideas, curves)
        results = {"machine": machine(), "preset": arguments.preset, "seeds": arguments.seeds, "rows": rows}
        (RESULTS / f"{arguments.name}.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / f"{arguments.name}.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
