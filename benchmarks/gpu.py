"""Measure the GPU backend, beside gsplat where PyTorch with CUDA and gsplat are installed. See README.md here.

python benchmarks/gpu.py --device gpu
python benchmarks/gpu.py --device vulkan --quick      # a small scene: a software device takes minutes for the others
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from stipple import Camera, Gaussians, ir
from stipple.cli.devices import describe_device
from stipple.cli.measure import Case, slam_case
from stipple.formats.captures import Frame
from stipple.runtime import Executable, Session
from stipple.train import make_config
from stipple.train.population import Population
from stipple.train.stepper import Stepper

RESULTS = Path(__file__).parent / "results"
CONSOLE = Console(stderr=True)
NAMES = ("means", "quats", "scales", "opacities", "colors")


def executable(session: Session, case: Case, backward: bool) -> Executable:
    """A frame, or a frame with the gradients of its mean; everything but one number stays on the device."""
    graph = ir.Graph("frame")
    params = {n: graph.param(n, a.shape, "f32", a) for n, a in zip(NAMES, case.operands, strict=False)}
    camera = [
        graph.param(n, a.shape, "f32", a) for n, a in zip(("viewmat", "intrinsics"), case.operands[5:7], strict=True)
    ]
    background = graph.constant(np.zeros(3, np.float32))
    rgba, _ = ir.splat_render(
        *params.values(), *camera, background, width=case.attrs["width"], height=case.attrs["height"]
    )
    loss = ir.mean(ir.square(rgba))
    graph.output("loss", loss)
    if backward:
        for (name, param), gradient in zip(params.items(), ir.grad(graph, loss, list(params.values())), strict=True):
            kept = graph.param(f"v_{name}", param.shape, "f32", np.zeros(param.shape.static, np.float32))
            graph.update(kept, gradient)
    return session.compile(graph)


def best_of(run: Callable[[], object], wait: Callable[[], None], repeats: int) -> float:
    """Milliseconds of the fastest of several runs, after two that warm up."""
    times = []
    for i in range(repeats + 2):
        wait()
        started = time.perf_counter()
        run()
        wait()
        if i >= 2:
            times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def training_step(session: Session, case: Case) -> Callable[[], object]:
    """A whole step: harmonics of degree 3, loss, gradients, Adam."""
    means, quats, scales, opacities, colors, viewmat, intrinsics = case.operands[:7]
    scene = Gaussians.from_linear(means, scales, opacities, colors, quats).with_sh_degree(3)
    width, height = case.attrs["width"], case.attrs["height"]
    k = intrinsics
    camera = Camera(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2], viewmat)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    config = make_config(None, {"schedule": {"steps": 10**6, "sh_every": 1, "coarse": []}, "density": {"start": 10**6}})
    stepper = Stepper(session, config, 1)
    stepper.start(Population.start(scene))
    frame, step = Frame(camera, pixels), [100]

    def run() -> None:
        step[0] += 1
        stepper.run(step[0], 0, frame)

    return run


def kernels_of(run: Executable) -> dict[str, float]:
    """Milliseconds of each op, the device waited for after each."""
    run.run(timings=True)
    run.run(timings=True)
    times: dict[str, float] = {}
    for t in run.timings:
        times[t.op] = times.get(t.op, 0.0) + 1e3 * t.seconds
    return {op: round(ms, 3) for op, ms in sorted(times.items(), key=lambda kv: -kv[1])[:10]}


def measure(session: Session, case: Case, repeats: int) -> dict[str, Any]:
    wait = session.backend.synchronize
    forward, both = executable(session, case, False), executable(session, case, True)
    row: dict[str, Any] = {"scene": case.name}
    row["forward_ms"] = round(best_of(forward.run, wait, repeats), 3)
    row["forward_backward_ms"] = round(best_of(both.run, wait, repeats), 3)
    row["step_ms"] = round(best_of(training_step(session, case), wait, repeats), 3)
    row["ops_ms"] = kernels_of(both)
    return row


def gsplat_rows(cases: list[Case], repeats: int) -> dict[str, dict[str, float]] | None:
    """The same frames by gsplat, if it can run here."""
    try:
        import torch
        from gsplat import rasterization
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    rows = {}
    for case in cases:
        values = [torch.tensor(a, device="cuda") for a in case.operands[:7]]
        params = [v.requires_grad_() for v in values[:5]]
        width, height = case.attrs["width"], case.attrs["height"]

        def frame(params: list[Any] = params, rest: list[Any] = values, w: int = width, h: int = height) -> Any:
            return rasterization(*params, rest[5][None], rest[6][None], w, h, packed=False)[0]

        def both(frame: Callable[[], Any] = frame, params: list[Any] = params) -> None:
            for p in params:
                p.grad = None
            frame().square().mean().backward()

        def forward(frame: Callable[[], Any] = frame) -> None:
            with torch.no_grad():
                frame().square().mean()

        wait = torch.cuda.synchronize
        rows[case.name] = {
            "forward_ms": round(best_of(forward, wait, repeats), 3),
            "forward_backward_ms": round(best_of(both, wait, repeats), 3),
        }
    return rows


def markdown(results: dict[str, Any]) -> str:
    lines = ["# The GPU backend", "", f"{results['device']}; {results['machine']}; `{results['command']}`", ""]
    if results["software"]:
        lines += [
            "**No GPU could be had for this run.** This is Mesa's software Vulkan on the processor: it shows that the "
            "kernels run, not how fast a GPU is. On a machine with one, run the command with `--device gpu` and "
            "without `--quick`; where CUDA and gsplat are installed, gsplat is measured in the same run.",
            "",
        ]
    lines += ["| scene | forward | forward + backward | training step | gsplat forward | gsplat forward + backward |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in results["rows"]:
        peer = (results["gsplat"] or {}).get(row["scene"])
        shown = [f"{row[k]:.2f} ms" for k in ("forward_ms", "forward_backward_ms", "step_ms")]
        for key in ("forward_ms", "forward_backward_ms"):
            shown.append(f"{peer[key]:.2f} ms, {peer[key] / row[key]:.2f} x ours" if peer else "not here")
        lines.append(f"| {row['scene']} | " + " | ".join(shown) + " |")
    for row in results["rows"]:
        ops = ", ".join(f"{op} {ms:.2f}" for op, ms in row["ops_ms"].items())
        lines += ["", f"{row['scene']}, forward + backward, milliseconds an op, each waited for: {ops}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--quick", action="store_true", help="only 10,000 Gaussians at 640x480")
    parser.add_argument("--counts", type=int, nargs="*", default=[100_000, 1_000_000, 3_000_000])
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    cases = [slam_case(10_000, 640, 480, 500.0)]
    if not arguments.quick:
        cases += [slam_case(n, 1920, 1080, 500.0) for n in arguments.counts]
    session = Session(arguments.device)
    described = describe_device(session.device)
    rows = []
    for case in cases:
        CONSOLE.print(f"measuring {case.name} ...", highlight=False)
        rows.append(measure(session, case, arguments.repeats))
    results = {
        "device": described,
        "machine": platform.platform(),
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "software": "software" in described,
        "rows": rows,
        "gsplat": gsplat_rows(cases, arguments.repeats),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "gpu.md").write_text(markdown(results))
    CONSOLE.print(markdown(results), highlight=False, markup=False)


if __name__ == "__main__":
    main()
