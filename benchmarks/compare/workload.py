"""Measures one commit: public calls and training steps, in a process of its own.

Runs under either commit's sources (they are first in PYTHONPATH), so it uses what both have. Prints one JSON object:
milliseconds (medians) and megabytes by workload.
"""

from __future__ import annotations

import argparse
import inspect
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import stipple
from stipple.formats.captures import Frame
from stipple.runtime import Session
from stipple.scene import Camera, Gaussians
from stipple.train import make_config
from stipple.train.stepper import Stepper

Array = np.ndarray
NO_GROWTH = {"schedule": {"steps": 10**6, "sh_every": 1, "coarse": []}, "density": {"start": 10**6}}


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, after two that warm up."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times[2:]))


def start(stepper: Stepper, scene: Gaussians) -> None:
    """Start with these Gaussians; earlier commits made the state of training, by its name of the time, themselves."""
    if "scene" in inspect.signature(Stepper.start).parameters:
        stepper.start(scene)
        return
    try:
        from stipple.train.state import TrainingState
    except ImportError:
        from stipple.train.population import Population as TrainingState
    stepper.start(TrainingState.start(scene))


def step_ms(case: dict[str, Array], repeats: int) -> float:
    """A whole training step with SH of degree 3: render, loss, gradients, Adam."""
    scene = Gaussians(**{n: case[n] for n in ("means", "log_scales", "quats", "logit_opacities", "sh")})
    height, width = case["pixels"].shape[:2]
    k = case["intrinsics"]
    frame = Frame(Camera(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2], case["viewmat"]), case["pixels"])
    stepper = Stepper(Session("cpu"), make_config(None, NO_GROWTH), 1)
    start(stepper, scene.with_sh_degree(3))
    number = iter(range(100, 10**6))
    return median_ms(lambda: stepper.run(next(number), 0, frame), repeats)


def frame_ms(case: dict[str, Array], repeats: int) -> dict[str, float]:
    """The public calls: a frame, and a frame with the gradients of all its inputs."""
    scene = Gaussians(**{n: case[n] for n in ("means", "log_scales", "quats", "logit_opacities", "sh")})
    height, width = case["pixels"].shape[:2]
    given: tuple[Any, ...] = (
        scene.means, scene.quats, scene.scales, scene.opacities, scene.sh, case["viewmat"][None].astype(np.float32),
        case["intrinsics"][None].astype(np.float32), width, height,
    )  # fmt: skip
    options: dict[str, Any] = {"sh_degree": scene.sh_degree, "device": "cpu"}
    v_colors = np.ones((1, height, width, 3), np.float32)

    def both() -> None:
        *_, vjp = stipple.rasterization_vjp(*given, **options)
        vjp(v_colors)

    few = (*(a[:9] for a in given[:5]), *given[5:7], 16, 16)
    stipple.rasterization_vjp(*few, **options)[3](v_colors[:, :16, :16])  # kernels are loaded; buffers stay small
    return {
        "peak memory of a frame with gradients, MB": peak_mb(both),
        "frame, ms": median_ms(lambda: stipple.rasterization(*given, **options), repeats),
        "frame with gradients, ms": median_ms(both, repeats),
    }


def peak_mb(call: Callable[[], object]) -> float:
    """Peak of the arrays that the first call of a size allocates, with buffers that later calls reuse, in megabytes."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", help="NAME.npz: Gaussians, a camera, and a photo (pixels)")
    parser.add_argument("--repeats", type=int, default=12)
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for path in arguments.cases:
        with np.load(path) as file:
            case = dict(file)
        found[path] = {**frame_ms(case, arguments.repeats), "training step, ms": step_ms(case, arguments.repeats)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
