"""Measurements of the CPU backend's stages, each the best of several runs in one process."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from stipple.backends.cpu import CpuBackend, binning, splat
from stipple.backends.cpu.threads import Threads
from stipple.bench.cases import Case
from stipple.bench.machine import machine
from stipple.bench.scalar_loop import boxed, scalar_loop
from stipple.bench.timing import best_of


def measure_case(case: Case, threads: int, with_scalar: bool) -> dict[str, Any]:
    """Milliseconds of every stage and of whole frames."""
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


def run(cases: list[Case], console: Console) -> dict[str, Any]:
    """Measure all cases with 1 thread and with all."""
    threads = CpuBackend().threads.count
    rows = []
    for case in cases:
        for count in sorted({1, threads}):
            console.print(f"measuring {case.name}, {count} threads ...", highlight=False)
            rows.append(measure_case(case, count, with_scalar=count == 1 and case.operands[4].shape[-1] == 3))
    return {"machine": machine(), "rows": rows}
