"""Measure the CPU backend: stages, peers, ceiling, memory and start. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from rich.console import Console

from scenes import garden_case
from stipple.backends.cpu import CpuBackend, rasterization, splat
from stipple.backends.cpu.simd import LANES, broadcast, fma, load, stack_floats, store
from stipple.backends.cpu.threads import Threads
from stipple.bench import cpu
from stipple.bench.cases import Case, scene_case, slam_case, usual_cases
from stipple.bench.timing import best_of

RESULTS = Path(__file__).parent / "results"
INSTRUCTIONS = 36
"""Vector instructions in the forward's inner loop for one row: exponent 6, masks and test 6, exp2 10, compositing 8,
colours and depth 8; loads folded into arithmetic are not counted."""
CONSOLE = Console(stderr=True)


# --- scenes -----------------------------------------------------------------------------------------------
# --- ceiling ----------------------------------------------------------------------------------------------
@njit(nogil=True, error_model="numpy")
def _fma_loop(steps, factor, term, out):
    buffer = stack_floats(256)
    for i in range(0, 256, LANES):
        store(buffer, i, broadcast(term))
    a, b, c, d = load(buffer, 0), load(buffer, 0), load(buffer, 0), load(buffer, 0)
    e, f, g, h = load(buffer, 0), load(buffer, 0), load(buffer, 0), load(buffer, 0)
    m, n = broadcast(factor), broadcast(term)
    for _ in range(steps):
        a, b, c, d = fma(a, m, n), fma(b, m, n), fma(c, m, n), fma(d, m, n)
        e, f, g, h = fma(e, m, n), fma(f, m, n), fma(g, m, n), fma(h, m, n)
    for i, v in enumerate((a, b, c, d, e, f, g, h)):
        store(out, i * LANES, v)


def fma_rate() -> float:
    """Independent vector FMAs a second on one thread."""
    out, steps = np.empty(8 * LANES, np.float32), 2_000_000
    return 8 * steps / (best_of(lambda: _fma_loop(steps, np.float32(0.999), np.float32(0.5), out), 1.0) * 1e-3)


def row_evaluations(made: list[np.ndarray], last_ids: np.ndarray, attrs: dict[str, Any]) -> int:
    """Rows of 16 pixels that the forward evaluates: each entry's rows, until its tile has stopped."""
    means2d, conics, _, opacities, _, _, ranges, ids = made
    size, height, width = attrs["tile_size"], attrs["height"], attrs["width"]
    across, down = -(-width // size), -(-height // size)
    padded = np.full((down * size, across * size), -1)
    padded[:height, :width] = last_ids
    last = padded.reshape(down, size, across, size).max(axis=(1, 3)).ravel()
    tile = np.repeat(np.arange(len(ranges)), ranges[:, 1] - ranges[:, 0])
    live = np.arange(len(ids)) <= last[tile]
    i, row0 = ids[live], (tile[live] // across) * size
    reach = np.minimum(0.5 * 3.33**2, np.log(opacities[i] / attrs["alpha_cutoff"]))
    a, b, c = conics[i].T.astype(float)
    half = np.sqrt(2 * reach * a / (a * c - b * b))
    y = means2d[i, 1] - row0 - 0.5
    first, end = np.clip(np.floor(y - half), 0, size), np.clip(np.floor(y + half), -1, size - 1)
    return int(np.maximum(end - first + 1, 0).sum())


def ceiling(case: Case) -> dict[str, Any]:
    """How near the forward rasterization comes to the rate of its arithmetic, on one thread."""
    pool = Threads(1)
    made = splat.prepare(case.operands, case.attrs, pool)
    background = np.zeros(3, np.float32)
    images = splat.rasterize([*made[:5], background, *made[6:]], case.attrs, pool)
    ray, fixed = rasterization.variant("ewa", 4)
    cutoff = np.float32(np.log2(case.attrs["alpha_cutoff"]))
    arguments = (made[6], made[7], *made[:2], made[3], made[2], made[4], background, 16, cutoff, np.float32(1e-4))
    empty = np.empty(0, np.float32)
    milliseconds = best_of(
        lambda: rasterization.forward(ray, fixed, 0, len(made[6]), *arguments, np.float32(0), empty, *images)
    )
    rows, rate = row_evaluations(made, images[3], case.attrs), fma_rate()
    least = rows * (16 // LANES) * INSTRUCTIONS / rate * 1e3
    return {
        "scene": case.name,
        "row_evaluations": rows,
        "fma_per_second": rate,
        "ceiling_ms": least,
        "kernel_ms": milliseconds,
        "share_of_ceiling": least / milliseconds,
    }


# --- peers, memory, start ---------------------------------------------------------------------------------
def torch_dense(count: int = 2000, width: int = 160, height: int = 120) -> dict[str, Any]:
    """All Gaussians at all pixels as PyTorch tensors, forward + backward, beside ours."""
    import torch

    case = slam_case(count, width, height, 125.0)
    pool = Threads(None)
    made = splat.prepare(case.operands, case.attrs, pool)
    order = np.argsort(np.where(made[5][:, 0] > 0, made[4], np.inf))[: int((made[5][:, 0] > 0).sum())]
    fields = [torch.tensor(made[k][order], requires_grad=True) for k in (0, 1, 2, 3)]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")

    def dense() -> Any:
        means2d, conics, colors, opacities = fields
        dx, dy = x.ravel()[:, None] - means2d[:, 0], y.ravel()[:, None] - means2d[:, 1]
        power = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
        alpha = (opacities * torch.exp(-power)).clamp(max=0.99)
        alpha = torch.where(alpha < 1 / 255, torch.zeros_like(alpha), alpha)
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], dim=1), dim=1)
        return (alpha * light) @ colors

    operands = [*made[:5], np.zeros(3, np.float32), *made[6:]]
    images = splat.rasterize(operands, case.attrs, pool)
    v_rgba = np.ones_like(images[0])
    difference = float((dense().detach().numpy().reshape(height, width, 3) - images[0][..., :3]).__abs__().mean())
    ours = best_of(
        lambda: splat.rasterize_backward(
            [*operands, *splat.rasterize(operands, case.attrs, pool), v_rgba, images[1]], case.attrs, pool, (False,)
        )
    )
    theirs = best_of(lambda: dense().sum().backward(), 2.0)
    return {
        "scene": case.name,
        "stipple_ms": ours,
        "torch_ms": theirs,
        "ratio": theirs / ours,
        "mean_difference": difference,
        "torch": torch.__version__,
    }


def memory(case: Case) -> dict[str, Any]:
    """Peak of a forward + backward, inputs included, against inputs + outputs + 48 bytes per tile entry."""
    pool = Threads(1)  # a fresh pool: its scratch buffers are made, and counted, within
    tracemalloc.start()
    made = splat.prepare(case.operands, case.attrs, pool)
    operands = [*made[:5], np.zeros(3, np.float32), *made[6:]]
    images = splat.rasterize(operands, case.attrs, pool)
    v_rgba, v_depth = np.ones_like(images[0]), np.ones_like(images[1])
    v = splat.rasterize_backward([*operands, *images, v_rgba, v_depth], case.attrs, pool)
    gradients = splat.prepare_backward([*case.operands, made[5], *v[:5]], case.attrs, pool)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    inputs = sum(a.nbytes for a in case.operands) + v_rgba.nbytes + v_depth.nbytes
    outputs = sum(a.nbytes for a in (*images[:2], *gradients))
    base = inputs + outputs + 48 * len(made[7])
    total = peak + sum(a.nbytes for a in case.operands)
    return {"scene": case.name, "peak_mb": total / 1e6, "base_mb": base / 1e6, "peak_over_base": total / base}


def start() -> dict[str, float]:
    """Seconds from starting Python until a picture is rendered: with an empty kernel cache, then again."""
    code = (
        "import numpy as np, stipple\n"
        "s = stipple.Gaussians.from_linear(np.zeros((9, 3)) + [0, 0, 4], 0.1, 0.5, np.ones((9, 3)))\n"
        "stipple.render_view(s, stipple.Camera.from_fov(64, 48, 50))\n"
    )
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NUMBA_CACHE_DIR": cache})
            seconds.append(time.perf_counter() - begin)
    return {"first_process_s": seconds[0], "second_process_s": seconds[1]}


# --- report -----------------------------------------------------------------------------------------------
def markdown(r: dict[str, Any], command: str) -> str:
    """The figures as a page."""
    m = r["machine"]
    lines = ["# CPU backend", "", f"`{command}` on {m['processor']}, {m['threads']} threads, {m['lanes']} lanes, "
             f"Python {m['python']}. Milliseconds, best of several.", "", "## Stages", ""]  # fmt: skip
    keys = ("project_ms", "sort_ms", "bin_ms", "rasterize_ms", "forward_ms", "rasterize_backward_ms",
            "project_backward_ms", "forward_backward_ms")  # fmt: skip
    lines.append("| scene | threads | entries | " + " | ".join(k[:-3].replace("_", " ") for k in keys) + " |")
    lines.append("| --- |" + " ---: |" * (len(keys) + 2))
    for row in r["rows"]:
        cells = " | ".join(f"{row[k]:.2f}" for k in keys)
        lines.append(f"| {row['scene']} | {row['threads']} | {row['tile_entries']:,} | {cells} |")
    lines += [
        "",
        "## Scalar loop, one thread",
        "",
        "| scene | scalar loop | ours | ratio | scalar loop on our lists | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in r["rows"]:
        if "scalar_loop_ms" in row:
            cells = f"{row['scalar_loop_ms']:.1f} | {row['rasterize_ms']:.2f} | {row['scalar_over_rasterize']:.1f}"
            tight = row["scalar_loop_on_our_lists_ms"]
            cells += f" | {tight:.1f} | {tight / row['rasterize_ms']:.1f}"
            lines.append(f"| {row['scene']} | {cells} |")
    lines += ["", "## Second thread", "", "| scene | rasterize | backward | frame | forward + backward |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for one, two in zip(r["rows"][::2], r["rows"][1::2], strict=False):
        if one["scene"] == two["scene"]:
            names = ("rasterize_ms", "rasterize_backward_ms", "forward_ms", "forward_backward_ms")
            lines.append(f"| {one['scene']} | " + " | ".join(f"{one[k] / two[k]:.2f} x" for k in names) + " |")
    lines += ["", "## Ceiling of the forward rasterization, one thread", ""]
    lines.append(f"Rows of pixels x {INSTRUCTIONS} vector instructions over the measured FMA rate.\n")
    lines += ["| scene | rows | ceiling | kernel | share |", "| --- | ---: | ---: | ---: | ---: |"]
    for c in r["ceiling"]:
        lines.append(
            f"| {c['scene']} | {c['row_evaluations']:,} | {c['ceiling_ms']:.2f} | {c['kernel_ms']:.2f} "
            f"| {100 * c['share_of_ceiling']:.0f} % |"
        )
    lines += [
        "",
        "## Memory",
        "",
        "| scene | peak MB | inputs + outputs + 48 B/entry | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for c in r["memory"]:
        lines.append(f"| {c['scene']} | {c['peak_mb']:.1f} | {c['base_mb']:.1f} | {c['peak_over_base']:.2f} |")
    s = r["start"]
    lines += ["", "## Start", ""]
    lines.append(
        f"First process with an empty cache, all kernels compiled: {s['first_process_s']:.1f} s. "
        f"Second process, imports included: {s['second_process_s']:.2f} s."
    )
    if "torch" in r:
        t = r["torch"]
        lines += ["", f"## PyTorch {t['torch']}, all Gaussians at all pixels, forward + backward", ""]
        lines.append(f"{t['scene']}: {t['torch_ms']:.0f} ms, ours {t['stipple_ms']:.2f} ms, {t['ratio']:.0f} x.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--garden", action="store_true", help="measure the garden's points at three sizes too")
    parser.add_argument("--ply", metavar="PATH", help="a splat PLY")
    parser.add_argument("--torch", action="store_true", help="measure PyTorch beside ours (must be installed)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for cpu.json and cpu.md")
    arguments = parser.parse_args()
    CpuBackend()  # compiles what is missing before anything is measured
    garden = [garden_case(f) for f in (1, 2, 4)] if arguments.garden else []
    scenes = [scene_case(arguments.ply)] if arguments.ply else []
    r = cpu.run([*usual_cases(False, None), *garden, *scenes], CONSOLE)
    studied = [slam_case(100_000, 1920, 1080, 500.0), *garden[:1]]
    CONSOLE.print("measuring ceiling, memory and start ...")
    r["ceiling"] = [ceiling(c) for c in studied]
    r["memory"] = [memory(c) for c in studied]
    r["start"] = start()
    if arguments.torch:
        r["torch"] = torch_dense()
    arguments.output.mkdir(parents=True, exist_ok=True)
    words = ["python benchmarks/run.py", *(["--garden"] if garden else [])]
    words += [f"--ply {Path(arguments.ply).name}"] if arguments.ply else []
    words += ["--torch"] if arguments.torch else []
    (arguments.output / "cpu.json").write_text(json.dumps(r, indent=1) + "\n")
    (arguments.output / "cpu.md").write_text(markdown(r, " ".join(words)))
    CONSOLE.print(f"Wrote {arguments.output / 'cpu.json'} and cpu.md")


if __name__ == "__main__":
    main()
