"""Measure the GPU backend, beside gsplat where PyTorch with CUDA and gsplat are installed. See README.md here.

python benchmarks/gpu.py --device gpu
python benchmarks/gpu.py --device vulkan --quick      # a small scene: a software device takes minutes for the others
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from ceilings import arithmetic_ceiling, memory_ceiling, pairs, shares
from compare import gsplat_peer
from scenes import garden_case
from stipple.backends.gpu import GpuBackend, adapters
from stipple.bench.cases import Case, slam_case
from stipple.bench.gpu import by_kernel, measure_case
from stipple.bench.tables import HOST, MEASURED
from stipple.bench.timing import best_of_waiting
from stipple.cli.devices import describe_device
from stipple.errors import DeviceError
from stipple.runtime import Session

RESULTS = Path(__file__).parent / "results"
CONSOLE = Console(stderr=True)
NAMES = ("means", "quats", "scales", "opacities", "colors")


def measure(session: Session, case: Case, repeats: int) -> dict[str, Any]:
    """Ours: a frame, with gradients, a training step, and the step's kernels against the device's ceilings."""
    row, times = measure_case(session, case, repeats)
    backend = session.backend
    assert isinstance(backend, GpuBackend)
    if times:
        memory, arithmetic = memory_ceiling(backend.gpu), arithmetic_ceiling(backend.gpu)
        row["kernels"] = shares(by_kernel(times), pairs(session, case), memory, arithmetic)
        row["kernels_ms"] = round(1e3 * sum(t.seconds for t in times), 3)
        row["ceilings"] = {"memory_gb_s": round(memory / 1e9, 1), "gflop_s": round(arithmetic / 1e9, 1)}
    return row


def measure_all(device: str, cases: list[Case], repeats: int) -> tuple[str, list[dict[str, Any]]]:
    """The device in words, and a row for each case."""
    session = Session(device)
    rows: list[dict[str, Any]] = []
    for case in cases:
        CONSOLE.print(f"measuring {case.name} ...", highlight=False)
        try:
            rows.append(measure(session, case, repeats))
        except DeviceError as error:  # too large for the device: said in the table, the others go on
            rows.append({"scene": case.name, "failed": str(error)})
            CONSOLE.print(str(error), style="red", highlight=False)
    return describe_device(session.device), rows


def measure_peer(cases: list[Case], repeats: int) -> dict[str, dict[str, Any]]:
    """gsplat's times of the same work, by scene."""
    peer = gsplat_peer.Gsplat()
    rows: dict[str, dict[str, Any]] = {}
    for case in cases:
        try:
            forward, both = peer.frames(case)
            runs = {"forward_ms": forward, "forward_backward_ms": both, "step_ms": peer.step(case)}
            rows[case.name] = {name: best_of_waiting(run, peer.wait, repeats) for name, run in runs.items()}
        except RuntimeError as error:  # PyTorch's errors, out of memory among them
            rows[case.name] = {"failed": str(error).splitlines()[0]}
            CONSOLE.print(f"gsplat: {error}", style="red", highlight=False, markup=False)
    return rows


def without_gsplat() -> str | None:
    """Why gsplat is not measured here, or None."""
    try:
        nvidia = any("nvidia" in info.name.lower() for info in adapters())
    except DeviceError:  # no wgpu
        nvidia = False
    why = gsplat_peer.available()
    return f"there was no NVIDIA GPU ({why})" if why and not nvidia else why


def markdown(results: dict[str, Any]) -> str:
    lines = ["# The GPU backend", "", f"{results['device']}; {results['machine']}; `{results['command']}`", ""]
    if not results["rows"]:
        lines += [
            f"Nothing was measured: {results['failed']}.",
            "",
            f"gsplat was not measured: {results['no_gsplat']}.",
        ]
        return "\n".join(lines) + "\n"
    if results["software"]:
        lines += [
            "**No GPU could be had for this run.** This is Mesa's software Vulkan on the processor: it shows that the "
            "kernels run, not how fast a GPU is. On a machine with one, run the command with `--device gpu` and "
            "without `--quick`; where CUDA and gsplat are installed, gsplat is measured in the same run.",
            "",
        ]
    peers = results["gsplat"]
    lines += [
        "| scene | " + " | ".join((*MEASURED.values(), *HOST.values())) + (" | gsplat, the same |" if peers else " |")
    ]
    lines += ["| --- |" + " ---: |" * (len(MEASURED) + len(HOST)) + (" --- |" if peers else "")]
    for row in results["rows"]:
        if "failed" in row:
            lines.append(f"| {row['scene']} | {row['failed']} |" + " |" * (len(MEASURED) + len(HOST) - 1 + bool(peers)))
            continue
        shown = " | ".join(f"{row[k]:.2f} ms" for k in (*MEASURED, *HOST))
        if peers:
            shown += f" | {peer_cell(row, peers[row['scene']])}"
        lines.append(f"| {row['scene']} | {shown} |")
    why = results["no_gsplat"]
    lines += ["", f"gsplat was not measured: {why}." if why else "gsplat ran in the same process."]
    for row in results["rows"]:
        if "kernels" in row:
            lines += ["", *kernel_table(row)]
    return "\n".join(lines) + "\n"


def peer_cell(row: dict[str, Any], peer: dict[str, Any]) -> str:
    if "failed" in peer:
        return str(peer["failed"])
    return ", ".join(f"{peer[k]:.2f} ms ({peer[k] / row[k]:.2f} x ours)" for k in MEASURED)


def kernel_table(row: dict[str, Any]) -> list[str]:
    ceilings = row["ceilings"]
    return [
        f"## Kernels of a training step: {row['scene']}",
        "",
        f"By the device's timestamps, {row['kernels_ms']:.2f} ms in all. Ceilings measured in the same run: "
        f"{ceilings['memory_gb_s']} GB/s copied, {ceilings['gflop_s']} GFLOP/s of multiply-adds. The share is of the "
        "ceiling that binds (what counts as a kernel's work: `ceilings.py`); above 100 % where caches held the arrays.",
        "",
        "| kernel | dispatches | ms | ceiling | share |",
        "| --- | ---: | ---: | --- | ---: |",
        *(
            f"| {k['kernel']} | {k['dispatches']} | {k['ms']:.3f} | {k['ceiling']} | {100 * k['share']:.0f} % |"
            for k in row["kernels"]
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--quick", action="store_true", help="only 10,000 Gaussians at 640x480")
    parser.add_argument("--counts", type=int, nargs="*", default=[100_000, 1_000_000, 3_000_000])
    parser.add_argument("--grids", type=int, nargs="*", default=[1, 3, 5], help="odd repeats of the garden")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where to write")
    arguments = parser.parse_args()
    cases = [slam_case(10_000, 640, 480, 500.0)]
    if not arguments.quick:
        cases += [slam_case(n, 1920, 1080, 500.0) for n in arguments.counts]
        cases += [garden_case(2, grid) for grid in arguments.grids]
    failed = None
    try:
        described, rows = measure_all(arguments.device, cases, arguments.repeats)
    except DeviceError as error:  # no such device on this machine: the page says so
        described, rows, failed = "no GPU", [], str(error)
    why = without_gsplat()
    results = {
        "device": described,
        "machine": platform.platform(),
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "software": "software" in described,
        "failed": failed,
        "rows": rows,
        "gsplat": None if why or failed else measure_peer(cases, arguments.repeats),
        "no_gsplat": why or (failed and "there was nothing to compare with"),
    }
    arguments.results.mkdir(exist_ok=True)
    (arguments.results / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.results / "gpu.md").write_text(markdown(results))
    CONSOLE.print(markdown(results), highlight=False, markup=False)


if __name__ == "__main__":
    main()
