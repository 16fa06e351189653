"""What a GPU could do at most, measured on it, and what the kernels ask of it.

Memory: a kernel that copies. A kernel's own traffic is taken as the size of the arrays it was given, each once: what it
cannot do with less than, unless it touches only a part of them.

Arithmetic: a kernel of independent multiply-adds (2 operations each). The rasterizers' own arithmetic is the pairs of
pixel and Gaussian that they must evaluate times the operations of one, counted in the WGSL source; exp counts as 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stipple import ir
from stipple import numerics as nx
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel
from stipple.bench.cases import Case
from stipple.ir.dtype import DType
from stipple.runtime import Session

COPIED = 1 << 26
CHAINS, ROUNDS = 8, 256
PAIR_OPERATIONS = {"composite": 24, "composite_backward": 88}
"""Forward: 18 to evaluate a Gaussian at a pixel, and 6 on average to composite it; backward: the same, 30 for the
gradients of twelve values, and their sum over the pixels."""


def memory_ceiling(gpu: Gpu) -> float:
    """Bytes a second that a copy moves, reads and writes together."""
    count = min(COPIED, gpu.memory.largest // 4)
    source, target = (gpu.memory.allocate((count,), DType.F32) for _ in "ab")
    with gpu.timed() as times:
        for _ in range(6):
            gpu.each(Kernel("ceiling_copy", "  out[i] = source(i);"), {"source": source}, {"out": target}, count)
    return 8 * count / min(t.seconds for t in times)


def arithmetic_ceiling(gpu: Gpu) -> float:
    """Floating-point operations a second."""
    count = 1 << 20 if gpu.info.type == "CPU" else 1 << 24
    names = [f"x{i}" for i in range(CHAINS)]
    start = "".join(f"  var {n} = f32(i) * 1e-9 + {k}.0;\n" for k, n in enumerate(names))
    body = "".join(f"    {n} = fma({n}, 0.999, 0.5);\n" for n in names)
    end = "  out[i] = " + " + ".join(names) + ";"
    code = f"{start}  for (var r = 0u; r < {ROUNDS}u; r++) {{\n{body}  }}\n{end}"
    out = gpu.memory.allocate((count,), DType.F32)
    with gpu.timed() as times:
        for _ in range(4):
            gpu.each(Kernel("ceiling_fma", code), {}, {"out": out}, count)
    return 2.0 * count * CHAINS * ROUNDS / min(t.seconds for t in times)


def pairs(session: Session, case: Case) -> dict[str, float]:
    """Pairs of pixel and Gaussian: forward to where a pixel ends; backward, as workgroups do, from the farthest end of
    a tile's pixels."""
    graph = ir.Graph("pairs")
    operands = {n: graph.constant(np.asarray(a, np.float32)) for n, a in case.operands._asdict().items()}
    attrs = case.attrs
    size = {"width": attrs["width"], "height": attrs["height"]}
    p = ir.splat_prepare(**operands, **size)
    background = graph.constant(np.zeros(3, np.float32))
    images = ir.splat_rasterize(
        p.means2d, p.conics, p.opacities, p.colors, background, p.tile_ranges, p.sorted_ids, **size
    )
    graph.output("ranges", p.tile_ranges)
    graph.output("last", images.last_ids)
    graph.output("light", images.transmittance)
    lists = session.compile(graph).run({})
    side = nx.TILE_SIZE
    across = -(-attrs["width"] // side)
    rows, columns = np.indices(lists["last"].shape) // side
    tiles = rows * across + columns
    start, end = lists["ranges"][tiles, 0].astype(np.int64), lists["ranges"][tiles, 1].astype(np.int64)
    ended = lists["light"] < 2e-4  # the next Gaussian would have gone below the threshold
    forward = np.where(ended, lists["last"] + 2 - start, end - start).clip(0)
    farthest = np.full(len(lists["ranges"]), -1)
    np.maximum.at(farthest, tiles.ravel(), lists["last"].ravel())
    backward = (farthest + 1 - lists["ranges"][:, 0]).clip(0) * side * side
    return {"composite": float(forward.sum()), "composite_backward": float(backward.sum())}


def shares(
    kernels: Sequence[dict[str, Any]], counted: dict[str, float], memory: float, arithmetic: float, maximum: int = 14
) -> list[dict[str, Any]]:
    """The slowest kernels, each with the ceiling that binds it and its share of that."""
    rows = []
    for row in kernels[:maximum]:
        name, seconds = row["kernel"], 1e-3 * row["ms"]
        bound = {"memory": row["bytes"] / memory}
        if name in counted:
            bound["arithmetic"] = counted[name] * PAIR_OPERATIONS[name] / arithmetic
        ceiling = max(bound, key=lambda k: bound[k])
        share = round(bound[ceiling] / seconds, 3) if seconds else 0.0
        rows.append({**row, "ms": round(row["ms"], 4), "ceiling": ceiling, "share": share})
    return rows
