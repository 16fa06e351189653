"""Measurements as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table

MEASURED = {"forward_ms": "whole frame", "forward_backward_ms": "frame + backward", "step_ms": "training step"}
HOST = {"host_ms": "host's part of it", "edit_ms": "rows rearranged"}
_MAX_KERNELS = 14
_STAGES = {
    "project_ms": "project",
    "sh_ms": "SH",
    "bin_ms": "sort and bin",
    "rasterize_ms": "rasterize",
    "forward_ms": "whole frame",
    "rasterize_backward_ms": "rasterize backward",
    "sh_backward_ms": "SH backward",
    "project_backward_ms": "project backward",
    "forward_backward_ms": "frame + backward",
    "scalar_loop_ms": "scalar loop (for rasterize)",
}


def cpu_table(measured: dict[str, Any]) -> Group:
    """One table per scene, with a row per stage and a column per number of threads."""
    m = measured["machine"]
    parts: list[Any] = [f"{m['processor']}, {m['lanes']} lanes; milliseconds, best of several"]
    by_scene: dict[str, list[dict[str, Any]]] = {}
    for row in measured["rows"]:
        by_scene.setdefault(row["scene"], []).append(row)
    for scene, rows in by_scene.items():
        stages = Table(title=f"{scene}\n{rows[0]['visible']:,} visible, {rows[0]['tile_entries']:,} tile entries")
        stages.add_column("stage")
        for row in rows:
            stages.add_column("1 thread" if row["threads"] == 1 else f"{row['threads']} threads", justify="right")
        for key, title in _STAGES.items():
            if any(key in row for row in rows):
                stages.add_row(title, *(f"{row[key]:.2f}" if key in row else "" for row in rows))
        ratio = rows[0].get("scalar_over_rasterize")
        if ratio is not None:
            stages.caption = f"one thread: {ratio:.0f} times the scalar loop"
        parts.append(stages)
    return Group(*parts)


def gpu_table(measured: dict[str, Any]) -> Group:
    """A table of frames and steps, and one of kernels per scene."""
    times = Table(title="milliseconds, best of several")
    times.add_column("scene")
    for title in (*MEASURED.values(), *HOST.values()):
        times.add_column(title, justify="right")
    parts: list[Any] = [measured["machine"]["gpu"], times]
    for row in measured["rows"]:
        times.add_row(row["scene"], *(f"{row[k]:.2f}" for k in (*MEASURED, *HOST)))
        if row["kernels"]:
            whole = sum(k["ms"] for k in row["kernels"])
            kernels = Table(title=f"{row['scene']}: kernels of a training step, {whole:.2f} ms on the device")
            for title in ("kernel", "dispatches", "ms", "share"):
                kernels.add_column(title, justify="left" if title == "kernel" else "right")
            for k in row["kernels"][:_MAX_KERNELS]:
                share = f"{100 * k['ms'] / max(whole, 1e-9):.0f} %"
                kernels.add_row(k["kernel"], str(k["dispatches"]), f"{k['ms']:.3f}", share)
            parts.append(kernels)
    return Group(*parts)
