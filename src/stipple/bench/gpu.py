"""Measurements of a GPU: frames, training steps, and each kernel's time by the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from stipple.backends.gpu import GpuBackend, describe
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.timing import KernelTime
from stipple.bench.cases import Case, frame, training
from stipple.bench.timing import best_of_waiting
from stipple.runtime import Session
from stipple.train.state import TrainingState


def host_time(gpu: Gpu, run: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of several runs, without the time that the host waited: the GPU may idle
    meanwhile."""
    times = []
    for _ in range(repeats):
        started, waited = time.perf_counter(), gpu.stream.waited
        run()
        times.append(time.perf_counter() - started - (gpu.stream.waited - waited))
    return round(1e3 * min(times), 3)


def measure_case(session: Session, case: Case, repeats: int) -> tuple[dict[str, Any], list[KernelTime]]:
    """Milliseconds of a frame, of a frame with gradients, of a training step, of the host's part of it, and of
    rearranging the state when Gaussians are added or removed; and the step's kernels, timed by the device's clock if it
    has one."""
    backend = session.backend
    assert isinstance(backend, GpuBackend)
    wait = backend.synchronize
    row: dict[str, Any] = {"scene": case.name, "count": len(case.operands.means)}
    for name, backward in (("forward_ms", False), ("forward_backward_ms", True)):
        row[name] = best_of_waiting(frame(session, case, backward).run, wait, repeats)
    stepper, step = training(session, case)
    row["step_ms"] = best_of_waiting(step, wait, repeats)
    row["host_ms"] = host_time(backend.gpu, step, repeats)
    row["edit_ms"] = best_of_waiting(lambda: stepper.edit(_rearrange), wait, repeats)
    if not backend.gpu.info.timestamps:
        return row, []
    with backend.gpu.timed() as times:
        step()
    return row, times


def _rearrange(state: TrainingState) -> None:
    """A change that leaves everything as it is."""
    state.rearrange(np.arange(state.count), np.zeros(state.count, bool))


def by_kernel(times: Sequence[KernelTime]) -> list[dict[str, Any]]:
    """Kernels, the slowest first: dispatches, milliseconds, and bytes of the arrays bound to them."""
    totals: dict[str, dict[str, Any]] = {}
    for t in times:
        row = totals.setdefault(t.name, {"kernel": t.name, "dispatches": 0, "ms": 0.0, "bytes": 0})
        row["dispatches"] += 1
        row["ms"] += 1e3 * t.seconds
        row["bytes"] += t.bytes
    return sorted(totals.values(), key=lambda row: -float(row["ms"]))


def run(session: Session, cases: list[Case], console: Console) -> dict[str, Any]:
    """Measure all cases."""
    backend = session.backend
    assert isinstance(backend, GpuBackend)
    rows = []
    for case in cases:
        console.print(f"measuring {case.name} ...", highlight=False)
        row, times = measure_case(session, case, repeats=5)
        rows.append({**row, "kernels": by_kernel(times)})
    return {"machine": {"gpu": describe(backend.gpu.info)}, "rows": rows}
