"""Train a capture with lens distortion both ways, on undistorted photos and through the lens, and compare both scenes
on the same pixels: the photos as the camera took them, and the photos undistorted. See README.md beside this file.

python benchmarks/lens.py examples/data/lund --depth-weight 0.1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from stipple.bench.machine import machine
from stipple.formats import load_scene
from stipple.formats.captures import CaptureOptions, load_frame, open_capture
from stipple.scene import Gaussians
from stipple.train import make_config
from stipple.train.evaluation import Evaluator, mean_scores

RESULTS = Path(__file__).parent / "results"
WAYS = {"undistorted photos": "--undistort", "through the lens": "--no-undistort"}


def trained(capture: str, options: list[str]) -> tuple[Gaussians, float]:
    """The scene of a run, and how many seconds the run took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stipple", "train", capture, "-o", f"{folder}/run", *options]
        print(" ".join(command[1:]), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        seconds = max(float(r.get("seconds", 0)) for r in rows)
        return load_scene(f"{folder}/run/scene.ply"), seconds


def scores(scene: Gaussians, capture: str, undistort: bool) -> dict[str, dict[str, float]]:
    """Mean scores of a scene's training and held-out views beside photos of one kind."""
    config = make_config(None, {})
    views = open_capture(capture, CaptureOptions(undistort=undistort))
    evaluator = Evaluator(config, "cpu")
    means = {}
    for split, indices in zip(("train", "test"), views.split(config.data.test_every), strict=True):
        found = []
        for i in indices:
            frame = load_frame(views.views[i])
            found.append(evaluator.compare(scene, frame.camera, frame, views.views[i].name, split).score)
        means[split] = mean_scores(found)
    return means


def measure(capture: str, options: list[str], seeds: int) -> list[dict[str, Any]]:
    """One row for each way of training and kind of photos: means over seeds."""
    rows = []
    for way, flag in WAYS.items():
        runs = [trained(capture, [*options, flag, "--seed", str(seed)]) for seed in range(seeds)]
        for photos, undistort in (("as taken", False), ("undistorted", True)):
            found = [scores(scene, capture, undistort) for scene, _ in runs]
            row: dict[str, Any] = {"trained": way, "photos": photos}
            row["seconds"] = float(np.mean([seconds for _, seconds in runs]))
            row["gaussians"] = float(np.mean([scene.count for scene, _ in runs]))
            for split in ("train", "test"):
                for score in ("psnr", "ssim"):
                    row[f"{split}_{score}"] = float(np.mean([f[split][score] for f in found]))
            rows.append(row)
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m = results["machine"]
    lines = [
        "# Lens distortion",
        "",
        f"{m['processor']}, {m['threads']} threads; `{results['command']}`; means over {results['seeds']} seeds.",
        "",
        "| trained on | photos compared | time | Gaussians | training views | held-out views |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for r in results["rows"]:
        views = [f"{r[f'{s}_psnr']:.2f} dB, SSIM {r[f'{s}_ssim']:.3f}" for s in ("train", "test")]
        lines.append(
            f"| {r['trained']} | {r['photos']} | {r['seconds']:.0f} s | {r['gaussians']:,.0f} | {' | '.join(views)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seeds", type=int, default=2)
    arguments, options = parser.parse_known_args()
    results = {
        "machine": machine(),
        "command": " ".join(["python", "benchmarks/lens.py", *sys.argv[1:]]),
        "seeds": arguments.seeds,
        "rows": measure(arguments.capture, ["--preset", arguments.preset, *options], arguments.seeds),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "lens.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "lens.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
