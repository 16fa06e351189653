"""Compare an earlier commit with this one: frames, frames with gradients, training steps, in turns in one run.

python benchmarks/compare/commit.py b368319
python benchmarks/compare/commit.py b368319 room=out/room/scene.ply:examples/data/room biker=biker.ply

It measures the garden's points at 648x420, 100,000 Gaussians at 1920x1080, and each NAME=SCENE[:CAPTURE]: a trained
scene seen from the capture's first training view, or, without a capture, from the camera that ``stipple render`` starts
with, at 1280x720. Each round runs a process of either commit, in alternating order. Writes results/commit_<commit>.md.
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

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))  # for the scenes that all benchmarks share

from commits import short_hash, sources_of
from scenes import garden_case
from stipple.bench.cases import Case, frame_of, slam_case
from stipple.bench.machine import machine
from stipple.formats import load_scene
from stipple.formats.captures import Frame, load_frame, open_capture
from stipple.scene import Camera, Gaussians
from stipple.scene.paths import framing_camera

RESULTS = HERE.parent / "results"
Array = np.ndarray


def write_case(path: Path, scene: Gaussians, frame: Frame) -> None:
    """A scene and a view with its photo, as the workload reads them."""
    names = ("means", "log_scales", "quats", "logit_opacities", "sh")
    arrays = {name: getattr(scene, name) for name in names}
    camera = frame.camera
    np.savez(path, **arrays, viewmat=camera.viewmat, intrinsics=camera.intrinsics, pixels=frame.pixels[..., :3])


def plain_scene(case: Case) -> Gaussians:
    """A case's Gaussians, with colours that do not depend on the direction."""
    x = case.operands
    return Gaussians.from_linear(x.means, x.scales, np.clip(x.opacities, 1e-3, 0.999), x.colors, x.quats)


def named_scene(text: str) -> tuple[str, Gaussians, Frame]:
    """NAME=SCENE[:CAPTURE] opened."""
    name, _, rest = text.partition("=")
    path, _, capture = rest.partition(":")
    scene = load_scene(path)
    if capture:
        views = open_capture(capture)
        frame = load_frame(views.views[views.split(8)[0][0]])
    else:
        camera: Camera = framing_camera(scene, (1280, 720))
        frame = Frame(camera, np.random.default_rng(0).integers(0, 256, (720, 1280, 3)).astype(np.uint8))
    height, width = frame.pixels.shape[:2]
    return f"{name}, {scene.count:,} Gaussians, {width}x{height}", scene, frame


def write_cases(folder: Path, scenes: list[str]) -> dict[str, Path]:
    """All cases as files, by name."""
    cases = {}
    for case in (garden_case(), slam_case(100_000, 1920, 1080, 500.0)):
        cases[case.name] = (plain_scene(case), frame_of(case))
    for text in scenes:
        name, scene, frame = named_scene(text)
        cases[name] = (scene, frame)
    files = {}
    for i, (name, (scene, frame)) in enumerate(cases.items()):
        files[name] = folder / f"{i}.npz"
        write_case(files[name], scene, frame)
    return files


def measured(sources: Path, cache: Path, files: list[Path]) -> dict[str, dict[str, float]]:
    """Milliseconds by file and workload, in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(sources), "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, str(HERE / "workload.py"), *map(str, files)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def compare(commit: str, scenes: list[str], rounds: int) -> list[dict[str, Any]]:
    """One row for each case and workload."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_cases(folder, scenes)
        trees = {"before": sources_of(commit, folder), "after": ROOT / "src"}
        times: dict[str, list[dict[str, dict[str, float]]]] = {tree: [] for tree in trees}
        for number in range(rounds):
            order = list(trees.items())
            for tree, sources in order if number % 2 == 0 else order[::-1]:
                print(f"round {number + 1} of {rounds}: {tree} ...", file=sys.stderr, flush=True)
                times[tree].append(measured(sources, folder / f"cache-{tree}", list(files.values())))
    rows = []
    for case, path in files.items():
        for workload in times["after"][0][str(path)]:
            before, after = ([r[str(path)][workload] for r in times[tree]] for tree in trees)
            ratios = [b / a for b, a in zip(before, after, strict=True)]
            row = {"case": case, "workload": workload, "before": float(np.median(before))}
            rows.append({**row, "after": float(np.median(after)), "ratios": ratios})
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The figures as a page."""
    m = results["machine"]
    lines = [
        f"# Compared with commit {results['commit']}",
        "",
        f"{m['processor']}, {m['threads']} threads; `{results['command']}`. Medians of the rounds' "
        "medians, and the ratio with its range over the rounds.",
        "",
        "| scene | what | before | after | ratio |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for r in results["rows"]:
        ratios = r["ratios"]
        span = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {r['case']} | {r['workload']} | {r['before']:.1f} | {r['after']:.1f} | {span} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("scenes", nargs="*", metavar="NAME=SCENE[:CAPTURE]")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    commit = short_hash(arguments.commit)
    results = {
        "machine": machine(),
        "commit": commit,
        "command": " ".join(["python", "benchmarks/compare/commit.py", *sys.argv[1:]]),
        "rows": compare(commit, arguments.scenes, arguments.rounds),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"commit_{commit}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"commit_{commit}.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
