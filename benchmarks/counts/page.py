"""The counts as a page of tables; with an earlier version, before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Format = Callable[[float], str]
Sides = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]

_EXPLAINED = """\
- Counts of one run in steady state, as a GPU would be given it. *waits*: dispatches before which wgpu puts a barrier,
  because they use an array that earlier work wrote (as if all of a run were submitted together).
- *read*, *written*: the sizes of the arrays that a kernel's code loads from and stores to, each counted once per
  dispatch. An array counts whole, at its capacity, even if the kernel touches a part of it, and once, even if several
  workgroups read it.
- *static* counts are of the code, as if all calls were inlined: a branch counts whether taken or not, and a loop's
  contents once, however often it runs; the number in loops is given too. The code is the SPIR-V that naga makes from
  WGSL without bounds checks or loop counters; the barrier after zeroing workgroup memory is included. Where one name
  stands for several programs, the figure is the mean over the workgroups dispatched.
- *arithmetic* includes comparisons and conversions; *arrays* and *workgroup*: loads, stores and atomics;
  *own variables* are mostly in registers; *moves*: addresses, and vectors put together and taken apart; *branches*:
  conditional ones.
"""


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _mega(value: float) -> str:
    return f"{value / 1e6:,.2f}"


_RUN_COLUMNS: dict[str, tuple[str, Format]] = {
    "dispatches": ("dispatches", _whole),
    "waits": ("waits", _whole),
    "workgroups": ("workgroups", _whole),
    "read_bytes": ("read, MB", _mega),
    "written_bytes": ("written, MB", _mega),
}
_TOTAL_COLUMNS: dict[str, tuple[str, Format]] = {
    **_RUN_COLUMNS,
    "copies": ("copies", _whole),
    "copied_bytes": ("copied, MB", _mega),
    "uploaded_bytes": ("uploaded, MB", _mega),
    "host_waits": ("waits of the host", _whole),
    "instructions_of_workgroups": ("static instructions x workgroups, millions", _mega),
    "barriers_of_workgroups": ("static barriers x workgroups, millions", _mega),
}
_CODE_COLUMNS: dict[str, tuple[str, Format]] = {
    "programs": ("programs", _whole),
    "workgroup_bytes": ("workgroup memory, bytes", _whole),
    "barriers": ("barriers", _whole),
    "barriers_in_loops": ("in loops", _whole),
    "instructions": ("instructions", _whole),
    "in_loops": ("in loops", _whole),
    "arithmetic": ("arithmetic", _whole),
    "buffers": ("arrays", _whole),
    "constants": ("constants", _whole),
    "workgroup": ("workgroup", _whole),
    "variables": ("own variables", _whole),
    "moves": ("moves", _whole),
    "branches": ("branches", _whole),
    "subgroups": ("subgroups", _whole),
}


def page(results: Mapping[str, Any]) -> str:
    """Everything."""
    before, after = results["before"], results["after"]
    lines = [
        "# What the GPU backend asks of a device",
        "",
        f"{results['device']}; {results['machine']}; `{results['command']}`",
        "",
        *_summary(results),
        "",
        _EXPLAINED,
        "## Totals",
        "",
    ]
    runs = [(None if before is None else before["runs"][i], run) for i, run in enumerate(after["runs"])]
    titles = {f"{run['scene']}: {run['workload']}": (old and old["total"], run["total"]) for old, run in runs}
    lines += _table("run", titles, _TOTAL_COLUMNS)
    for old, run in runs:
        kernels = _both(old and old["kernels"], run["kernels"])
        lines += ["", f"## {run['scene']}: {run['workload']}", "", *_table("kernel", kernels, _RUN_COLUMNS)]
    code = _both(before and before["code"], after["code"])
    lines += ["", "## Kernels' code (static counts, per thread)", "", *_table("kernel", code, _CODE_COLUMNS)]
    return "\n".join(lines) + "\n"


def _summary(results: Mapping[str, Any]) -> list[str]:
    lines = ["These are counts, not times."]
    if results["software"]:
        lines[0] += (
            " The device was software Vulkan, Mesa's on the processor; no time is given, because a time on it says "
            "nothing about a GPU."
        )
    if not results["nvidia"]:
        lines[0] += (
            " There was no NVIDIA GPU, so nothing was measured on one or compared with gsplat; "
            "`python benchmarks/gpu.py --device gpu` does that where there is one."
        )
    if results["commit"]:
        lines += [
            "",
            f"Before: commit {results['commit']}. After: this one. Where they differ, a cell shows both and their "
            "ratio, after over before.",
        ]
    return lines


def _both(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Sides]:
    """The kernels of either version, with the most bytes first."""
    if before is None:
        paired: dict[str, Sides] = {name: (None, row) for name, row in after.items()}
    else:
        paired = {}
        for name in {**after, **before}:
            only = " (only before)" if name not in after else " (only after)" if name not in before else ""
            paired[name + only] = (before.get(name), after.get(name))

    def size(sides: Sides) -> float:
        row = sides[1] or sides[0]
        assert row is not None
        return -float(row["read_bytes"] + row["written_bytes"])

    return dict(sorted(paired.items(), key=lambda item: (size(item[1]), item[0])))


def _table(first: str, rows: Mapping[str, Sides], columns: Mapping[str, tuple[str, Format]]) -> list[str]:
    """A row for each name."""
    lines = [f"| {first} | " + " | ".join(title for title, _ in columns.values()) + " |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    for name, sides in rows.items():
        cells = [_cell(sides, key, shown) for key, (_, shown) in columns.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(sides: Sides, key: str, shown: Format) -> str:
    """A figure; where it has changed, both and their ratio."""
    texts = [shown(row[key]) for row in sides if row is not None]
    before, after = sides
    if before is None or after is None or texts[0] == texts[1]:
        return texts[-1]
    ratio = f" ({after[key] / before[key]:.2f})" if before[key] else ""
    return f"{texts[0]} → {texts[1]}{ratio}"
