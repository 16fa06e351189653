"""What was observed, added up by kernel and in total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from counts.code import Code, count
from counts.opcodes import CLASSES
from counts.translation import to_spirv

Row = dict[str, float]
DISPATCHED = ("dispatches", "waits", "workgroups", "read_bytes", "written_bytes")
"""Counted of dispatches."""
HELD = ("instructions", "in_loops", *CLASSES, "barriers_in_loops")
"""Counted of code."""
RUN = ("copies", "copied_bytes", "uploaded_bytes", "host_waits")
"""Counted of a whole run."""


def counted(observed: Mapping[str, Any]) -> dict[str, Any]:
    """A version's counts: of each run by kernel and in total, and of each kernel's code over all runs."""
    codes = [count(words) for words in to_spirv(observed["programs"])]
    runs = []
    for run in observed["runs"]:
        kernels = _by_kernel(run["dispatches"], codes)
        total = {name: sum(row[name] for row in kernels.values()) for name in DISPATCHED}
        total |= {name: run[name] for name in RUN}
        for name in ("instructions", "barriers"):
            total[f"{name}_of_workgroups"] = sum(row["workgroups"] * row[name] for row in kernels.values())
        runs.append({"scene": run["scene"], "workload": run["workload"], "total": total, "kernels": kernels})
    everything = [dispatch for run in observed["runs"] for dispatch in run["dispatches"]]
    return {"runs": runs, "code": _by_kernel(everything, codes)}


def _by_kernel(dispatches: Iterable[Mapping[str, Any]], codes: list[Code]) -> dict[str, Row]:
    """Sums over the dispatches of each kernel; of its code, means over their workgroups, because one name may stand for
    several programs."""
    rows: dict[str, Row] = {}
    programs: dict[str, set[int]] = {}
    for d in dispatches:
        code = codes[d["program"]]
        row = rows.setdefault(d["kernel"], dict.fromkeys((*DISPATCHED, *HELD, "workgroup_bytes"), 0))
        arrays = {int(binding): size for binding, size in d["arrays"].items()}
        row["dispatches"] += 1
        row["waits"] += d["waits"]
        row["workgroups"] += d["workgroups"]
        row["read_bytes"] += sum(arrays[binding] for binding in code.reads)
        row["written_bytes"] += sum(arrays[binding] for binding in code.writes)
        row["workgroup_bytes"] = max(row["workgroup_bytes"], code.workgroup_bytes)
        for name, number in _held(code).items():
            row[name] += d["workgroups"] * number
        programs.setdefault(d["kernel"], set()).add(d["program"])
    for kernel, row in rows.items():
        for name in HELD:
            row[name] /= row["workgroups"]
        row["programs"] = len(programs[kernel])
    return rows


def _held(code: Code) -> Row:
    """What a program's code holds, by the names in HELD."""
    by_class = {name: code.instructions[name] for name in CLASSES}
    return {
        **by_class,
        "instructions": code.instructions.total(),
        "in_loops": code.in_loops.total(),
        "barriers_in_loops": code.in_loops["barriers"],
    }
