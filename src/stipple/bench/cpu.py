"""Measurements of the CPU backend's ops, each the best of several runs in one process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rich.console import Console

from stipple import ir
from stipple import numerics as nx
from stipple.backends.cpu import CpuBackend
from stipple.bench.cases import Case
from stipple.bench.machine import machine
from stipple.bench.scalar_loop import Splats, boxed, scalar_loop
from stipple.bench.timing import best_of
from stipple.ir.ops import splat
from stipple.runtime import Executable, Session

Array = np.ndarray
OPS = (
    "splat_project", "splat_sh", "splat_bin", "splat_rasterize",
    "splat_rasterize_backward", "splat_sh_backward", "splat_project_backward",
)  # fmt: skip


def whole_frame(session: Session, case: Case, backward: bool, counts: bool = False) -> Executable:
    """A frame: ``image`` [H, W, C + 1] of colours and depth, ``alpha`` and all intermediate results, and each pixel's
    number of contributors if ``counts``; with ``backward`` also the gradients of all operands from ``v_image`` and
    ``v_alpha``."""
    graph = ir.Graph("frame")
    x = splat.PrepareOperands(*(graph.input(n, a.shape) for n, a in case.operands._asdict().items()))
    prepared = splat.PrepareResults(*graph.add("splat_prepare", x, case.attrs).outputs)
    features = ir.concat([prepared.colors, ir.reshape(prepared.depths, [len(case.operands.means), 1])], 1)
    background = graph.constant(np.zeros(features.shape[1].value or 0, np.float32))
    lists = prepared.tile_ranges, prepared.sorted_ids
    size = {n: case.attrs[n] for n in ("width", "height")}
    r = ir.splat_rasterize(prepared.means2d, prepared.conics, prepared.opacities, features, background, *lists, **size)
    outputs = {**prepared._asdict(), "image": r.image, "alpha": r.alpha}
    if counts:
        outputs["counts"] = r.counts
    if backward:
        seeds = [
            (image, graph.input(f"v_{name}", image.shape)) for name, image in (("image", r.image), ("alpha", r.alpha))
        ]
        wrt = {n: v for n, v in x._asdict().items() if n not in ("clip", "distortion")}
        outputs |= {f"v_{n}": v for n, v in zip(wrt, ir.pullback(seeds, list(wrt.values())), strict=True)}
    for name, value in outputs.items():
        graph.output(name, value)
    return session.compile(graph)


def op_milliseconds(executable: Executable, feeds: dict[str, Any], seconds: float = 1.0) -> dict[str, float]:
    """Milliseconds of each splat op, the fastest of several frames."""
    found: dict[str, float] = {}
    end, rounds = time.perf_counter() + seconds, 0
    keep = list(executable.graph.outputs)
    while rounds < 4 or time.perf_counter() < end:
        executable.run(feeds, timings=True, keep=keep)
        rounds += 1
        for timing in executable.timings:
            if timing.op in OPS:
                found[timing.op] = min(found.get(timing.op, np.inf), 1e3 * timing.seconds)
    return found


def measure_case(case: Case, threads: int, with_scalar: bool) -> dict[str, Any]:
    """Milliseconds of every op and of whole frames."""
    session = Session(CpuBackend(threads))
    forward, both = (whole_frame(session, case, backward) for backward in (False, True))
    feeds: dict[str, Any] = {n: session.upload(a) for n, a in case.operands._asdict().items()}
    frame = forward.run(feeds)
    rng = np.random.default_rng(1)
    gradients = {
        f"v_{n}": session.upload(rng.normal(size=frame[n].shape).astype(np.float32)) for n in ("image", "alpha")
    }
    keep_forward, keep_both = list(forward.graph.outputs), list(both.graph.outputs)
    ops = op_milliseconds(both, feeds | gradients)
    result: dict[str, Any] = {
        "scene": case.name,
        "threads": threads,
        "visible": int((frame["radii"][:, 0] > 0).sum()),
        "tile_entries": len(frame["sorted_ids"]),
        **{f"{op.removeprefix('splat_')}_ms": ops.get(op, 0.0) for op in OPS},
        "forward_ms": best_of(lambda: forward.run(feeds, keep=keep_forward)),
        "forward_backward_ms": best_of(lambda: both.run(feeds | gradients, keep=keep_both)),
    }
    return result | _scalar(frame, case, result["rasterize_ms"]) if with_scalar else result


def _scalar(frame: dict[str, Array], case: Case, ours: float) -> dict[str, float]:
    """The same image by the scalar loop that other renderers use, over their lists and over ours."""
    width, height = case.attrs["width"], case.attrs["height"]
    image = np.empty((height, width, 5), np.float32)
    splats = Splats(*(frame[n] for n in Splats._fields))
    tight = best_of(lambda: scalar_loop(frame["tile_ranges"], frame["sorted_ids"], splats, nx.TILE_SIZE, image), 0.5, 2)
    visible = np.flatnonzero(frame["radii"][:, 0] > 0)
    order = visible[np.argsort(frame["depths"][visible], kind="stable")]
    ranges, ids = boxed(order, frame["means2d"], frame["radii"], (width, height, nx.TILE_SIZE))
    scalar = best_of(lambda: scalar_loop(ranges, ids, splats, nx.TILE_SIZE, image), 0.5, 2)
    return {
        "scalar_loop_ms": scalar,
        "scalar_over_rasterize": scalar / ours,
        "scalar_loop_on_our_lists_ms": tight,
        "scalar_difference": float(np.abs(image[..., :3] - frame["image"][..., :3]).mean()),
    }


def run(cases: list[Case], console: Console) -> dict[str, Any]:
    """Measure all cases with one thread and with all threads."""
    threads = CpuBackend().threads.count
    rows = []
    for case in cases:
        for count in sorted({1, threads}):
            console.print(f"measuring {case.name}, {count} threads ...", highlight=False)
            rows.append(measure_case(case, count, with_scalar=count == 1 and case.operands.colors.shape[-1] == 3))
    return {"machine": machine(), "rows": rows}
