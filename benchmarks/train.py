"""Measure training: what a step costs beside rasterization, and what captures come to. See README.md beside this file.

python benchmarks/train.py --step
python benchmarks/train.py fern=fast:../shared/data/fern lego=standard:../shared/data/lego
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from scenes import garden_case, named_capture
from stipple.bench.cases import frame_of, training
from stipple.bench.machine import machine
from stipple.runtime import Session

RESULTS = Path(__file__).parent / "results"
GARDEN = Path(__file__).parents[1] / "examples" / "data" / "garden_points.npz"
RASTERIZATION = (
    "splat_project", "splat_sh", "splat_bin", "splat_rasterize",
    "splat_rasterize_backward", "splat_sh_backward", "splat_project_backward",
)  # fmt: skip
CONSOLE = Console(stderr=True)


def measure_step(device: str, repeats: int = 15) -> dict[str, Any]:
    """Whole steps, and the rasterization's forward and backward inside them, in milliseconds: medians."""
    case = garden_case()
    stepper, take = training(Session(device), case)
    whole, raster, parts = [], [], []
    frame = frame_of(case)
    for i in range(repeats + 3):
        started = time.perf_counter()
        take()
        whole.append(time.perf_counter() - started)
        stepper.run(100 + i, 0, frame, timings=True)
        assert stepper.executable is not None
        times: dict[str, float] = {}
        for t in stepper.executable.timings:
            times[t.op] = times.get(t.op, 0.0) + t.seconds
        raster.append(sum(times[op] for op in RASTERIZATION))
        parts.append(times)
    step, alone = (1e3 * float(np.median(v[3:])) for v in (whole, raster))
    largest = {op: 1e3 * float(np.median([p.get(op, 0.0) for p in parts[3:]])) for op in parts[-1]}
    return {
        "gaussians": stepper.count,
        "size": "648x420",
        "step_ms": round(step, 2),
        "rasterization_ms": round(alone, 2),
        "ratio": round(step / alone, 3),
        "parts_ms": {op: round(ms, 2) for op, ms in sorted(largest.items(), key=lambda kv: -kv[1])[:12]},
    }


def train(name: str, preset: str, capture: str, device: str, more: list[str]) -> dict[str, Any]:
    """Train a capture as a user does, and collect its figures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "stipple", "train", capture, "-o", str(out), "--preset", preset]
        command += ["--device", device, *more]
        CONSOLE.print(" ".join(command[1:]), highlight=False)
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        evaluation = json.loads((out / "eval.json").read_text())
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        description = json.loads((out / "run.json").read_text())
    steps = [r for r in rows if "loss" in r]
    return {
        "capture": name,
        "kind": description["kind"],
        "preset": " ".join([preset, *more]),
        "steps": steps[-1]["step"],
        "seconds": round(seconds),
        "gaussians": steps[-1]["count"],
        "held_out_curve": [r["test_psnr"] for r in rows if "test_psnr" in r],
        "mean": evaluation["mean"],
        "views": {s: sum(1 for v in evaluation["views"] if v["split"] == s) for s in ("train", "test")},
    }


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m = results["machine"]
    lines = ["# Training", "", f"{m['processor']}, {m['threads']} threads; `{results['command']}`", ""]
    if "step" in results:
        s = results["step"]
        lines += [
            f"A step on {s['gaussians']:,} Gaussians (degree 3) at {s['size']}: {s['step_ms']} ms; rasterization "
            f"forward and backward in it {s['rasterization_ms']} ms; ratio **{s['ratio']}**.",
            "",
            "| op | ms |",
            "| --- | ---: |",
            *(f"| {op} | {ms} |" for op, ms in s["parts_ms"].items()),
            "",
        ]
    if results.get("captures"):
        lines += [
            "| capture | preset | steps | time | Gaussians | training views | held-out views | held out on the way |",
            "| --- | --- | ---: | ---: | ---: | --- | --- | --- |",
        ]
        for r in results["captures"]:
            shown = {}
            for split in ("train", "test"):
                mean = r["mean"].get(split)
                shown[split] = (
                    f"{r['views'][split]}: {mean['psnr']:.2f} dB, SSIM {mean['ssim']:.4f}" if mean else "none"
                )
            curve = ", ".join(f"{v:.1f}" for v in r["held_out_curve"])
            lines.append(
                f"| {r['capture']} ({r['kind']}) | {r['preset']} | {r['steps']:,} | {r['seconds']} s | "
                f"{r['gaussians']:,} | {shown['train']} | {shown['test']} | {curve} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="*", metavar="NAME=PRESET:PATH[,OPTION...]")
    parser.add_argument("--step", action="store_true", help="measure a step beside its rasterization")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="training", help="name of the results' files")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "machine": machine(),
        "command": " ".join(["python", "benchmarks/train.py", *sys.argv[1:]]),
    }
    if arguments.step:
        results["step"] = measure_step(arguments.device)
        CONSOLE.print(results["step"])
    results["captures"] = []
    for text in arguments.captures:
        name, preset, path, more = named_capture(text)
        results["captures"].append(train(name, preset, path, arguments.device, more))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"{arguments.name}.md").write_text(markdown(results))
    CONSOLE.print(markdown(results), highlight=False, markup=False)


if __name__ == "__main__":
    main()
