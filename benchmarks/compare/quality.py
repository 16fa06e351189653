"""Compare the quality of training with that of an earlier commit: held-out PSNR over several seeds.

python benchmarks/compare/quality.py b368319 lego=fast:../shared/data/lego --seeds 5

Each run is a fresh process that trains as a user does. What the earlier commit depends on must be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from commits import ROOT, short_hash, sources_of
from scenes import named_capture
from stipple.bench.machine import machine

RESULTS = HERE.parent / "results"


def held_out(sources: Path, cache: Path, capture: str, options: list[str]) -> float:
    """Mean PSNR of the held-out views of one training, in dB."""
    environment = {**os.environ, "PYTHONPATH": str(sources), "NUMBA_CACHE_DIR": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "stipple",
            "train",
            capture,
            "-o",
            folder + "/run",
            "--device",
            "cpu",
            *options,
        ]
        print(" ".join(command[2:]), file=sys.stderr, flush=True)
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"training under {sources} failed:\n{done.stdout}{done.stderr}")
        return float(json.loads(Path(folder, "run", "eval.json").read_text())["mean"]["test"]["psnr"])


def compare(commit: str, capture: str, options: list[str], seeds: int) -> dict[str, list[float]]:
    """Held-out PSNR before and after, by seed; in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trees = {"before": sources_of(commit, folder), "after": ROOT / "src"}
        found: dict[str, list[float]] = {tree: [] for tree in trees}
        for seed in range(seeds):
            for tree, sources in trees.items():
                psnr = held_out(sources, folder / f"cache-{tree}", capture, [*options, "--seed", str(seed)])
                print(f"seed {seed}, {tree}: {psnr:.2f} dB", file=sys.stderr, flush=True)
                found[tree].append(psnr)
    return found


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m, found = results["machine"], results["psnr"]
    seeds = len(found["before"])
    lines = [
        f"# Quality beside commit {results['commit']}: {results['capture']}",
        "",
        f"{m['processor']}, {m['threads']} threads; `{results['command']}`. PSNR of held-out views in dB.",
        "",
        "| | " + " | ".join(f"seed {s}" for s in range(seeds)) + " | mean | standard error |",
        "| --- |" + " ---: |" * (seeds + 2),
    ]
    for tree in ("before", "after"):
        values = np.array(found[tree])
        error = values.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
        cells = " | ".join(f"{v:.2f}" for v in values)
        lines.append(f"| {tree} | {cells} | {values.mean():.3f} | {error:.3f} |")
    difference = np.mean(found["after"]) - np.mean(found["before"])
    return "\n".join(lines) + f"\n\nThe mean changed by {difference:+.3f} dB.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("capture", metavar="NAME=PRESET:PATH[,OPTION...]")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    name, preset, capture, more = named_capture(arguments.capture)
    commit = short_hash(arguments.commit)
    command = f"python benchmarks/compare/quality.py {commit} {name}={preset}:... --seeds {arguments.seeds}"
    found = compare(commit, capture, ["--preset", preset, *more], arguments.seeds)
    results = {
        "machine": machine(),
        "commit": commit,
        "capture": f"{name}, {preset}",
        "command": command,
        "psnr": found,
    }
    base = RESULTS / f"quality_{commit}_{name}"
    base.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    base.with_suffix(".md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
