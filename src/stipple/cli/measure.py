"""Measurements of the CPU backend's stages, for ``stipple bench`` and ``benchmarks/``.

Times are the best of several runs in one process. The scalar loop is compiled by the same compiler with the same
precision: one pixel after the other, one Gaussian after the other, over tile lists made from squares around the
means, as CPU renderers commonly do it; it is also measured over our own, exact lists.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from rich.console import Console, Group
from rich.table import Table

from stipple.cli.workloads import Case, ply_case, slam_case

Array = np.ndarray


# --- the peer ---------------------------------------------------------------------------------------------
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def scalar_loop(ranges, ids, means2d, conics, colors, opacities, depths, size, image):  # type: ignore[no-untyped-def]
    """Composite pixel by pixel, Gaussian by Gaussian."""
    height, width = image.shape[:2]
    across = (width + size - 1) // size
    for y in range(height):
        for x in range(width):
            tile = (y // size) * across + x // size
            light, r, g, b, d = np.float32(1), np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for e in range(ranges[tile, 0], ranges[tile, 1]):
                i = ids[e]
                dx = np.float32(x) + np.float32(0.5) - means2d[i, 0]
                dy = np.float32(y) + np.float32(0.5) - means2d[i, 1]
                power = np.float32(0.5) * (conics[i, 0] * dx * dx + conics[i, 2] * dy * dy) + conics[i, 1] * dx * dy
                alpha = min(np.float32(0.99), opacities[i] * math.exp(-power))
                if alpha < np.float32(1 / 255):
                    continue
                after = light * (np.float32(1) - alpha)
                if after <= np.float32(1e-4):
                    break
                weight = alpha * light
                r += weight * colors[i, 0]
                g += weight * colors[i, 1]
                b += weight * colors[i, 2]
                d += weight * depths[i]
                light = after
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = r, g, b
            image[y, x, 3], image[y, x, 4] = np.float32(1) - light, d


@njit(nogil=True, cache=True, error_model="numpy")
def box_lists(order, means2d, radii, width, height, size, count_only, ranges, ids):  # type: ignore[no-untyped-def]
    """Tile lists as such renderers make them: a square around the mean, as wide as the larger radius."""
    across, down = (width + size - 1) // size, (height + size - 1) // size
    total = 0
    for i in order:
        r = float(max(radii[i, 0], radii[i, 1]))
        x0, x1 = max(0, int((means2d[i, 0] - r) // size)), min(across, int((means2d[i, 0] + r) // size) + 1)
        y0, y1 = max(0, int((means2d[i, 1] - r) // size)), min(down, int((means2d[i, 1] + r) // size) + 1)
        for y in range(y0, y1):
            for x in range(x0, x1):
                if not count_only:
                    ids[ranges[y * across + x, 1]] = i
                ranges[y * across + x, 1] += 1
                total += 1
    return total


def boxed(order: Array, means2d: Array, radii: Array, attrs: dict[str, Any]) -> tuple[Array, Array]:
    """tile_ranges and sorted_ids by squares instead of by ellipses."""
    width, height, size = attrs["width"], attrs["height"], attrs["tile_size"]
    ranges = np.zeros((-(-width // size) * -(-height // size), 2), np.int32)
    total = box_lists(order, means2d, radii, width, height, size, True, ranges, np.empty(0, np.int32))
    ends = np.cumsum(ranges[:, 1])
    ranges[:, 0] = ranges[:, 1] = ends - ranges[:, 1]
    ids = np.empty(total, np.int32)
    box_lists(order, means2d, radii, width, height, size, False, ranges, ids)
    return ranges, ids


# --- measuring --------------------------------------------------------------------------------------------
def best_of(run: Callable[[], object], seconds: float = 1.0, least: int = 3) -> float:
    """The shortest time of a call in milliseconds, over at least ``least`` calls and about ``seconds``."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 200):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def measure_case(case: Case, threads: int, with_scalar: bool) -> dict[str, Any]:
    """Milliseconds of every stage and of whole frames."""
    from stipple.backends.cpu import binning, splat
    from stipple.backends.cpu.threads import Threads

    pool, attrs, x = Threads(threads), case.attrs, case.operands
    made = splat.prepare(x, attrs, pool)
    background = np.zeros(made[2].shape[1], np.float32)
    operands = [*made[:5], background, *made[6:]]
    images = splat.rasterize(operands, attrs, pool)
    rng = np.random.default_rng(1)
    v_rgba = rng.normal(size=images[0].shape).astype(np.float32)
    v_depth = rng.normal(size=images[1].shape).astype(np.float32)
    arriving = [*operands, *images, v_rgba, v_depth]
    v = splat.rasterize_backward(arriving, attrs, pool, (False,))
    order = binning.depth_order(made[5], made[4], pool)

    def forward() -> Any:
        p = splat.prepare(x, attrs, pool)
        o = [*p[:5], background, *p[6:]]
        return p, o, splat.rasterize(o, attrs, pool)

    def both() -> None:
        p, o, i = forward()
        g = splat.rasterize_backward([*o, *i, v_rgba, v_depth], attrs, pool, (False,))
        splat.prepare_backward([*x, p[5], *g[:5]], attrs, pool)

    prepare = best_of(lambda: splat.prepare(x, attrs, pool))
    sort = best_of(lambda: binning.depth_order(made[5], made[4], pool), 0.3)
    bins = best_of(lambda: binning.bin_into_tiles(order, made[0], made[1], made[3], made[5], attrs, pool), 0.5)
    result: dict[str, Any] = {
        "scene": case.name,
        "threads": threads,
        "visible": int((made[5][:, 0] > 0).sum()),
        "tile_entries": len(made[7]),
        "project_ms": prepare - sort - bins,
        "sort_ms": sort,
        "bin_ms": bins,
        "rasterize_ms": best_of(lambda: splat.rasterize(operands, attrs, pool)),
        "rasterize_backward_ms": best_of(lambda: splat.rasterize_backward(arriving, attrs, pool, (False,))),
        "project_backward_ms": best_of(lambda: splat.prepare_backward([*x, made[5], *v[:5]], attrs, pool), 0.5),
        "forward_ms": best_of(forward),
        "forward_backward_ms": best_of(both),
    }
    if with_scalar:
        image = np.empty((attrs["height"], attrs["width"], 5), np.float32)
        fields = (made[0], made[1], made[2], made[3], made[4], attrs["tile_size"], image)
        tight = best_of(lambda: scalar_loop(made[6], made[7], *fields), 0.5, 2)
        ranges, ids = boxed(order, made[0], made[5], attrs)
        scalar = best_of(lambda: scalar_loop(ranges, ids, *fields), 0.5, 2)
        result["scalar_loop_ms"] = scalar
        result["scalar_over_rasterize"] = scalar / result["rasterize_ms"]
        result["scalar_loop_on_our_lists_ms"] = tight
        result["scalar_difference"] = float(np.abs(image[..., :3] - images[0][..., :3]).mean())
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from stipple.backends.cpu.simd import LANES
    from stipple.backends.cpu.threads import default_threads

    return {
        "processor": _processor(),
        "threads": default_threads(),
        "lanes": LANES,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def usual_cases(quick: bool, scene: str | None) -> list[Case]:
    """What ``stipple bench`` measures."""
    cases = [slam_case(10_000, 640, 480, 500.0)]
    if not quick:
        cases.append(slam_case(100_000, 1920, 1080, 500.0))
    return [*cases, ply_case(scene)] if scene else cases


def run(cases: list[Case], console: Console) -> dict[str, Any]:
    """Measure all cases with 1 thread and with all."""
    from stipple.backends.cpu import CpuBackend

    threads = CpuBackend().threads.count
    rows = []
    for case in cases:
        for count in sorted({1, threads}):
            console.print(f"measuring {case.name}, {count} threads ...", highlight=False)
            rows.append(measure_case(case, count, with_scalar=count == 1 and case.operands[4].shape[-1] == 3))
    return {"machine": machine(), "rows": rows}


_STAGES = {
    "project_ms": "project",
    "sort_ms": "sort",
    "bin_ms": "bin",
    "rasterize_ms": "rasterize",
    "forward_ms": "whole frame",
    "rasterize_backward_ms": "rasterize backward",
    "project_backward_ms": "project backward",
    "forward_backward_ms": "frame + backward",
    "scalar_loop_ms": "scalar loop (for rasterize)",
}


def table(measured: dict[str, Any]) -> Group:
    """The figures for people: one table a scene, stages down, threads across."""
    m = measured["machine"]
    parts: list[Any] = [f"{m['processor']}, {m['lanes']} lanes; milliseconds, best of several"]
    by_scene: dict[str, list[dict[str, Any]]] = {}
    for row in measured["rows"]:
        by_scene.setdefault(row["scene"], []).append(row)
    for scene, rows in by_scene.items():
        made = Table(title=f"{scene}\n{rows[0]['visible']:,} visible, {rows[0]['tile_entries']:,} tile entries")
        made.add_column("stage")
        for row in rows:
            made.add_column("1 thread" if row["threads"] == 1 else f"{row['threads']} threads", justify="right")
        for key, title in _STAGES.items():
            if any(key in row for row in rows):
                made.add_row(title, *(f"{row[key]:.2f}" if key in row else "" for row in rows))
        ratio = rows[0].get("scalar_over_rasterize")
        if ratio is not None:
            made.caption = f"one thread: {ratio:.0f} times the scalar loop"
        parts.append(made)
    return Group(*parts)
