"""Reports of an executable: its kernels, and after a timed run their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stipple.ir.passes import PassRecord
from stipple.runtime.backend import Kernel
from stipple.runtime.plan import Step


@dataclass(frozen=True)
class Dispatch:
    """Which kernel runs one node."""

    node: int
    op: str
    kernel: str
    results: str
    inplace: bool

    def __str__(self) -> str:
        note = "  (in place)" if self.inplace else ""
        return f"%{self.node:<5} {self.op:<28} {self.kernel:<36} {self.results}{note}"


@dataclass(frozen=True)
class Timing:
    """How long one node took in the last timed run."""

    node: int
    op: str
    kernel: str
    seconds: float


def dispatches(steps: Sequence[Step], kernels: Mapping[int, Kernel], device: str) -> list[Dispatch]:
    """The kernel of each step."""
    return [
        Dispatch(
            step.node.id,
            step.node.op,
            f"{device}:{kernels[step.node.id].name}",
            ", ".join(str(v.type) for v in step.node.outputs),
            bool(step.inplace),
        )
        for step in steps
    ]


def report_text(
    passes: Sequence[PassRecord], dispatched: Sequence[Dispatch], timings: Sequence[Timing], device: str
) -> str:
    """Passes, kernels and times, a line each."""
    lines = ["passes", *(f"  {r}" for r in passes)]
    lines += [f"kernels on {device}", *(f"  {d}" for d in dispatched)]
    if timings:
        total = sum(t.seconds for t in timings)
        lines.append(f"times of the last timed run, {total * 1e3:.3f} ms in all")
        for t in sorted(timings, key=lambda t: -t.seconds):
            lines.append(f"  %{t.node:<5} {t.op:<28} {t.seconds * 1e3:10.3f} ms")
    return "\n".join(lines)
