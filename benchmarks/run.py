"""Measure the CPU backend: stages, peers, floor, memory and start. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numba import njit
from rich.console import Console

import stipple
from scenes import garden_case
from stipple.backends.cpu import CpuBackend
from stipple.backends.cpu.simd import LANES, broadcast, fma, load, stack_floats, store
from stipple.bench import cpu
from stipple.bench.cases import Case, scene_case, slam_case, usual_cases
from stipple.bench.timing import best_of
from stipple.runtime import Executable, Session

RESULTS = Path(__file__).parent / "results"
MULTIPLICATIONS, ADDITIONS = 16, 8
"""Vector instructions of the forward's inner loop for a vector of pixels and four features that go to the pipes for
multiplications (exponent 2, exp2 7, light 2, weight 1, features 4) and to those for additions and comparisons (exponent
1, exp2 2, tests and limits 5). Selections, logic and loads are not counted."""
CONSOLE = Console(stderr=True)


# --- floor ------------------------------------------------------------------------------------------------
@njit(nogil=True, error_model="numpy")
def _arithmetic(steps, factor, term, out):
    """Eight multiply-adds and four additions a step, none of which waits for another's result of the same step."""
    buffer = stack_floats(256)
    for i in range(0, 256, LANES):
        store(buffer, i, broadcast(term))
    a, b, c, d = load(buffer, 0), load(buffer, 0), load(buffer, 0), load(buffer, 0)
    e, f, g, h = load(buffer, 0), load(buffer, 0), load(buffer, 0), load(buffer, 0)
    p, q, r, s = load(buffer, 0), load(buffer, 0), load(buffer, 0), load(buffer, 0)
    m, n = broadcast(factor), broadcast(term)
    for _ in range(steps):
        a, b, c, d = fma(a, m, n), fma(b, m, n), fma(c, m, n), fma(d, m, n)
        e, f, g, h = fma(e, m, n), fma(f, m, n), fma(g, m, n), fma(h, m, n)
        p, q, r, s = p + n, q + n, r + n, s + n
    for i, v in enumerate((a, b, c, d, e, f, g, h, p, q, r, s)):
        store(out, i * LANES, v)


def arithmetic_rate() -> float:
    """Independent vector instructions a second on one thread, two multiplications to one addition."""
    out, steps = np.empty(12 * LANES, np.float32), 2_000_000
    return 12 * steps / (best_of(lambda: _arithmetic(steps, np.float32(0.999), np.float32(0.5), out), 1.0) * 1e-3)


def floor(case: Case) -> dict[str, Any]:
    """How near the forward rasterization comes, on one thread, to the arithmetic of its contributions alone: as if
    every lane of every vector were a pixel to which a Gaussian contributes."""
    feeds = case.operands._asdict()
    counts = cpu.whole_frame(Session(CpuBackend(1)), case, backward=False, counts=True).run(feeds)["counts"]
    executable = cpu.whole_frame(Session(CpuBackend(1)), case, backward=False)
    milliseconds = cpu.op_milliseconds(executable, feeds)["splat_rasterize"]
    contributions, rate = int(counts.sum()), arithmetic_rate()
    least = contributions / LANES * (MULTIPLICATIONS + ADDITIONS) / rate * 1e3
    return {
        "scene": case.name,
        "contributions": contributions,
        "instructions_per_second": rate,
        "floor_ms": least,
        "kernel_ms": milliseconds,
        "kernel_over_floor": milliseconds / least,
    }


# --- memory, calls, start ---------------------------------------------------------------------------------
def memory(case: Case) -> dict[str, Any]:
    """Peak of a forward + backward, inputs included, against inputs + outputs + 48 bytes per tile entry."""
    session = Session(CpuBackend(1))  # a fresh one: its scratch buffers are made, and counted, within
    both = cpu.whole_frame(session, case, backward=True)
    size = (case.attrs["height"], case.attrs["width"])
    gradients = {"v_image": np.ones((*size, 4), np.float32), "v_alpha": np.ones(size, np.float32)}
    feeds = case.operands._asdict() | gradients
    tracemalloc.start()
    results = both.run(feeds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    inputs = sum(a.nbytes for a in feeds.values())
    outputs = sum(a.nbytes for n, a in results.items() if n in ("image", "alpha") or n.startswith("v_"))
    base = inputs + outputs + 48 * len(results["sorted_ids"])
    total = peak + inputs
    return {"scene": case.name, "peak_mb": total / 1e6, "base_mb": base / 1e6, "peak_over_base": total / base}


def whole_and_kernels(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a call, and those of them in kernels."""
    run, seconds = Executable.run, [0.0]

    def timed(executable: Executable, *args: Any, **kwargs: Any) -> dict[str, Any]:
        results = run(executable, *args, **{**kwargs, "timings": True})
        seconds[0] += sum(t.seconds for t in executable.timings)
        return results

    with mock.patch.object(Executable, "run", timed):
        begin = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begin), 1e3 * seconds[0]


def front(case: Case) -> dict[str, Any]:
    """Whole public calls over the time inside their kernels, without and with gradients; medians of calls."""
    x, size = case.operands, (case.attrs["width"], case.attrs["height"])
    given = (x.means, x.quats, x.scales, x.opacities, x.colors, x.viewmat[None], x.intrinsics[None], *size)
    degree = None if case.attrs["sh_degree"] < 0 else case.attrs["sh_degree"]
    v_colors = np.ones((1, size[1], size[0], 3), np.float32)

    def forward() -> None:
        stipple.rasterization(*given, sh_degree=degree, device="cpu")

    def both() -> None:
        *_, vjp = stipple.rasterization_vjp(*given, sh_degree=degree, device="cpu")
        vjp(v_colors)

    row: dict[str, Any] = {"scene": case.name}
    for name, call in (("forward", forward), ("both", both)):
        times = np.array([whole_and_kernels(call) for _ in range(24)])[4:]
        row[name] = dict(zip(("call_ms", "kernels_ms"), np.median(times, axis=0).tolist(), strict=True))
    return row


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
    keys = ("project_ms", "sh_ms", "bin_ms", "rasterize_ms", "forward_ms", "rasterize_backward_ms",
            "sh_backward_ms", "project_backward_ms", "forward_backward_ms")  # fmt: skip
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
    lines += ["", "## Floor of the forward rasterization, one thread", ""]
    lines.append(
        f"Contributions of Gaussians to pixels, {LANES} to a vector, x {MULTIPLICATIONS + ADDITIONS} vector "
        "instructions over their measured rate, multiplications and additions together: no kernel with this arithmetic "
        "is faster.\n"
    )
    lines += ["| scene | contributions | floor | kernel | kernel / floor |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {f['scene']} | {f['contributions']:,} | {f['floor_ms']:.2f} | {f['kernel_ms']:.2f} "
        f"| {f['kernel_over_floor']:.1f} |"
        for f in r["floor"]
    ]
    lines += [
        "",
        "## Memory",
        "",
        "| scene | peak MB | inputs + outputs + 48 B/entry | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for c in r["memory"]:
        lines.append(f"| {c['scene']} | {c['peak_mb']:.1f} | {c['base_mb']:.1f} | {c['peak_over_base']:.2f} |")
    lines += [
        "",
        "## The public call",
        "",
        "`rasterization`, and `rasterization_vjp` with its gradients, over their kernels' time; all threads, medians.",
    ]
    lines += ["", "| scene | call | kernels | ratio | with gradients | kernels | ratio |"]
    lines.append("| --- |" + " ---: |" * 6)
    for f in r["front"]:
        cells = [(f[n]["call_ms"], f[n]["kernels_ms"]) for n in ("forward", "both")]
        lines.append(f"| {f['scene']} | " + " | ".join(f"{a:.1f} | {b:.1f} | {a / b:.2f}" for a, b in cells) + " |")
    s = r["start"]
    lines += ["", "## Start", ""]
    lines.append(
        f"First process with an empty cache, all kernels compiled: {s['first_process_s']:.1f} s. "
        f"Second process, imports included: {s['second_process_s']:.2f} s."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--garden", action="store_true", help="measure the garden's points at three sizes too")
    parser.add_argument("--ply", metavar="PATH", help="a splat PLY")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for cpu.json and cpu.md")
    arguments = parser.parse_args()
    CpuBackend()  # compiles what is missing before anything is measured
    garden = [garden_case(f) for f in (1, 2, 4)] if arguments.garden else []
    scenes = [scene_case(arguments.ply)] if arguments.ply else []
    r = cpu.run([*usual_cases(False, None), *garden, *scenes], CONSOLE)
    studied = [slam_case(100_000, 1920, 1080, 500.0), *garden[:1]]
    CONSOLE.print("measuring floor, memory and start ...")
    r["floor"] = [floor(c) for c in studied]
    r["memory"] = [memory(c) for c in studied]
    r["front"] = [front(c) for c in studied]
    r["start"] = start()
    arguments.output.mkdir(parents=True, exist_ok=True)
    words = ["python benchmarks/run.py", *(["--garden"] if garden else [])]
    words += [f"--ply {Path(arguments.ply).name}"] if arguments.ply else []
    (arguments.output / "cpu.json").write_text(json.dumps(r, indent=1) + "\n")
    (arguments.output / "cpu.md").write_text(markdown(r, " ".join(words)))
    CONSOLE.print(f"Wrote {arguments.output / 'cpu.json'} and cpu.md")


if __name__ == "__main__":
    main()
