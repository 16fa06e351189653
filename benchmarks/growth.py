"""Measure how time and memory grow with the number of Gaussians and of pixels, stage by stage, on the CPU.

python benchmarks/growth.py                                        # 10,000 to 5,000,000 Gaussians, 0.3 to 8 megapixels
python benchmarks/growth.py --counts 10000 100000 --widths 736     # some of them
python benchmarks/growth.py --add --counts 5000000 --widths        # one more size, or a round more of it
python benchmarks/growth.py --draw                                 # only the page and the drawing, from the results

Every size has a process of its own: a frame with gradients by the public call, and whole training steps, whose stages
are timed one by one. Each round goes through all sizes, and the fastest of them counts. Writes
results/growth.json, results/growth.md and docs/growth.svg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import stipple
from growth_page import STAGES, draw, markdown
from stipple import numerics as nx
from stipple.bench.cases import Case, frame_of, scene_of, slam_case
from stipple.bench.machine import machine
from stipple.formats.captures import Frame
from stipple.runtime import Session
from stipple.scene import Gaussians
from stipple.train import make_config
from stipple.train.stepper import Stepper

RESULTS = Path(__file__).parent / "results"
DRAWING = Path(__file__).parents[1] / "docs" / "growth.svg"
COUNTS = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 5_000_000]
WIDTHS = [736, 1280, 1920, 2688, 3840]
"""Of images of 16:9: 0.3, 0.9, 2.1, 4.1 and 8.3 megapixels."""
COUNT, WIDTH = 100_000, 1920
"""What stays while the other grows."""
NO_GROWTH = {"schedule": {"steps": 10**6, "sh_every": 1, "coarse": []}, "density": {"start": 10**6}}
REPEATS = 6
"""At least; the first two map the memory that later ones use again."""
RESERVE = 1.5
"""How much memory must be free, over what a size should need: the next size's scene is made beside it."""


def case_of(count: int, width: int) -> Case:
    """Gaussians in a box, seen with the same field of view at any size."""
    height = round(width * 9 / 16)
    return slam_case(count, width, height, 500.0 * width / 1920)


# --- one size, in a process of its own --------------------------------------------------------------------
def stage_of(op: str) -> str:
    """The stage that an op of a step belongs to."""
    return next((name for name, stage in STAGES.items() if op in stage.ops), "others")


def frame_with_gradients(scene: Gaussians, frame: Frame) -> Callable[[], Any]:
    """The public call with the gradients of all inputs."""
    camera = frame.camera
    given = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh)
    view = camera.viewmat[None].astype(np.float32), camera.intrinsics[None].astype(np.float32)
    size = camera.width, camera.height
    v_colors = np.ones((1, size[1], size[0], 3), np.float32)

    def run() -> Any:
        *_, meta, vjp = stipple.rasterization_vjp(*given, *view, *size, sh_degree=scene.sh_degree, device="cpu")
        vjp(v_colors)
        return meta

    return run


def measured_frame(scene: Gaussians, frame: Frame, seconds: float) -> dict[str, Any]:
    """Peak memory of a frame with gradients, its inputs included; milliseconds; entries and visible Gaussians."""
    run = frame_with_gradients(scene, frame)
    tracemalloc.start()
    meta = run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    inputs = sum(a.nbytes for a in (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh))
    return {
        "visible": int((meta["radii"][0, :, 0] > 0).sum()),
        "entries": len(meta["flatten_ids"][0]),
        "frame_mb": (peak + inputs) / 1e6,
        "frame_ms": best_ms(run, seconds),
    }


def measured_step(scene: Gaussians, frame: Frame, seconds: float) -> dict[str, Any]:
    """Peak memory of a training step, parameters and moments included; milliseconds of a step and of its stages."""
    stepper = Stepper(Session("cpu"), make_config(None, NO_GROWTH), 1)
    tracemalloc.start()
    stepper.start(scene)
    tracemalloc.reset_peak()
    stepper.run(100, 0, frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stages: dict[str, float] = {}
    steps: list[float] = []
    end = time.perf_counter() + seconds
    while len(steps) < REPEATS or time.perf_counter() < end:
        begin = time.perf_counter()
        stepper.run(101 + len(steps), 0, frame, timings=True)
        steps.append(1e3 * (time.perf_counter() - begin))
        assert stepper.executable is not None
        found = dict.fromkeys((*STAGES, "others"), 0.0)
        for timing in stepper.executable.timings:
            found[stage_of(timing.op)] += 1e3 * timing.seconds
        stages = {name: min(ms, stages.get(name, ms)) for name, ms in found.items()}
    return {"step_mb": peak / 1e6, "step_ms": min(steps), "stages": stages}


def best_ms(run: Callable[[], object], seconds: float) -> float:
    """The shortest of several calls."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < REPEATS or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin))
    return min(times)


def measured_size(count: int, width: int, seconds: float) -> dict[str, Any]:
    """A row of the results."""
    small = case_of(64, 32)
    for measure in (measured_frame, measured_step):  # kernels are loaded before memory is measured
        measure(scene_of(small), frame_of(small), 0.0)
    case = case_of(count, width)
    scene, frame = scene_of(case), frame_of(case)
    del case
    return {
        "gaussians": count,
        "width": frame.camera.width,
        "height": frame.camera.height,
        "pixels": frame.camera.width * frame.camera.height,
        **measured_frame(scene, frame, seconds),
        **measured_step(scene, frame, seconds),
    }


# --- all sizes --------------------------------------------------------------------------------------------
def available_mb() -> float | None:
    """Memory that is free, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) / 1e3 for line in lines if line.startswith("MemAvailable")), None)


def expected_mb(count: int, width: int, row: dict[str, Any]) -> float:
    """What a size should need, from one that was measured: at most as much more as it has more Gaussians and pixels."""
    growth = max(1.0, count / row["gaussians"]) * max(1.0, width / row["width"]) ** 2
    scene = 4 * (3 + 4 + 3 + 1 + 3 * nx.sh_coeff_count(3)) * count / 1e6
    return RESERVE * (growth * max(row["frame_mb"], row["step_mb"]) + scene)


def measure(
    rows: list[dict[str, Any]], sizes: list[tuple[int, int]], seconds: float, rounds: int
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Measure sizes, the smallest first, beside rows that there are: after each all rows, and one sentence about where
    it stopped, if it did."""
    known = {(row["gaussians"], row["width"]): row for row in rows}
    stopped = None
    for number in range(rounds):
        for i, size in enumerate(sizes):
            named = f"{size[0]:,} Gaussians at {size[1]}x{round(size[1] * 9 / 16)}"
            print(f"round {number + 1} of {rounds}: {named} ...", file=sys.stderr, flush=True)
            below = [row for (count, width), row in known.items() if count <= size[0] and width <= size[1]]
            row = measured_apart(*size, seconds, max(below, key=lambda row: row["step_mb"], default=None))
            if isinstance(row, str):
                sizes, stopped = sizes[:i], f"{named} {row}: not measured{'' if size not in known else ' again'}."
                break
            known[size] = faster(known[size], row) if size in known else row
            yield [known[size] for size in sorted(known)], stopped
    yield [known[size] for size in sorted(known)], stopped


def measured_apart(count: int, width: int, seconds: float, smaller: dict[str, Any] | None) -> dict[str, Any] | str:
    """A row, measured by a process of its own, or why there is none."""
    free = available_mb()
    if smaller and free is not None and (needed := expected_mb(count, width, smaller)) > free:
        return f"should need {needed / 1e3:.1f} GB, and {free / 1e3:.1f} GB were free"
    command = [sys.executable, __file__, "--size", str(count), str(width), "--seconds", str(seconds)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return f"ended with exit code {done.returncode}" if done.returncode else dict(json.loads(done.stdout))


def faster(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The shorter of two rounds' times, each by itself."""
    times = {name: min(a[name], b[name]) for name in ("frame_ms", "step_ms")}
    return {**a, **times, "stages": {name: min(ms, b["stages"][name]) for name, ms in a["stages"].items()}}


def write(results: dict[str, Any], output: Path, drawing: Path) -> None:
    """The page and the drawing."""
    (output / "growth.md").write_text(markdown(results))
    drawing.write_text(draw(results))
    print(markdown(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help=f"Gaussians, at {WIDTH} pixels a row")
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help=f"pixels a row, of {COUNT:,} Gaussians")
    parser.add_argument("--rounds", type=int, default=2, help="how often all sizes are measured")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long a frame and a step are repeated")
    parser.add_argument("--add", action="store_true", help="keep what growth.json holds; of a size, the fastest counts")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for growth.json and growth.md")
    parser.add_argument("--drawing", type=Path, default=DRAWING, help="the drawing's file")
    parser.add_argument("--draw", action="store_true", help="only the page and the drawing, from growth.json")
    parser.add_argument("--size", type=int, nargs=2, metavar=("COUNT", "WIDTH"), help="only this size, as JSON")
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(measured_size(*arguments.size, arguments.seconds)))
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "growth.json"
    if not arguments.draw:
        command = " ".join(["python", "benchmarks/growth.py", *sys.argv[1:]])
        earlier = json.loads(file.read_text()) if arguments.add else {"series": {}, "commands": []}
        sizes = {"gaussians": [(count, WIDTH) for count in sorted(arguments.counts)]}
        sizes["pixels"] = [(COUNT, width) for width in sorted(arguments.widths)]
        commands = list(dict.fromkeys([*earlier["commands"], command]))
        results: dict[str, Any] = {"machine": machine(), "commands": commands, "series": earlier["series"]}
        stopped: dict[str, str | None] = {}
        for name, of_series in sizes.items():
            rows = results["series"].get(name, [])
            for found, stopped[name] in measure(rows, of_series, arguments.seconds, arguments.rounds):
                results["series"][name] = found
                results["stopped"] = [sentence for sentence in stopped.values() if sentence]
                file.write_text(json.dumps(results, indent=1) + "\n")  # after each size: it may be interrupted
    write(json.loads(file.read_text()), arguments.output, arguments.drawing)


if __name__ == "__main__":
    main()
