"""Observes one version: runs frames and training steps in a process of its own, and prints their dispatches as JSON.

Runs under any commit's sources (they are first in PYTHONPATH), so it uses what all have. Each workload runs once so
that lists find their capacity, and then once observed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from counts.watch import Watch, watching
from scenes import garden_case
from stipple.backends.gpu import GpuBackend, describe
from stipple.bench.cases import Case, frame, slam_case, training
from stipple.errors import DeviceError
from stipple.runtime import Session

Run = Callable[[], object]


def cases(quick: bool) -> list[Case]:
    """The scenes."""
    return [slam_case(10_000, 640, 480, 500.0)] if quick else [garden_case(), slam_case(100_000, 1920, 1080, 500.0)]


def workloads(session: Session, case: Case) -> list[tuple[str, Callable[[], Run]]]:
    """Names, and what makes each ready to run."""
    return [
        ("frame", lambda: frame(session, case, False).run),
        ("frame with gradients", lambda: frame(session, case, True).run),
        ("training step", lambda: training(session, case)[1]),
    ]


def observed(watch: Watch, backend: GpuBackend, run: Run) -> dict[str, Any]:
    """What a run asks of the device."""
    run()
    watch.clear()
    waited = backend.gpu.stream.waits
    run()
    return {
        "dispatches": [d._asdict() for d in watch.dispatches],
        "copies": len(watch.copies),
        "copied_bytes": sum(watch.copies),
        "uploaded_bytes": sum(watch.uploads),
        "host_waits": backend.gpu.stream.waits - waited,
    }


def count(device: str, quick: bool) -> dict[str, Any]:
    """All scenes and workloads."""
    with watching() as watch:
        session = Session(device)
        backend = session.backend
        assert isinstance(backend, GpuBackend)
        backend.gpu.loop_limit = 0  # dispatch as on a GPU: not in parts, as devices need that end long loops early
        runs = []
        for case in cases(quick):
            for name, ready in workloads(session, case):
                print(f"{case.name}: {name} ...", file=sys.stderr, flush=True)
                runs.append({"scene": case.name, "workload": name, **observed(watch, backend, ready())})
        info = backend.gpu.info
        return {"device": describe(info), "type": info.type, "programs": watch.programs, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    try:
        counted = count(arguments.device, arguments.quick)
    except DeviceError as error:
        sys.exit(str(error))
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
