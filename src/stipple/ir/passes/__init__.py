"""Passes over graphs and the manager that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stipple.ir.graph import Graph
from stipple.ir.passes.cleanup import (
    Evaluate,
    FoldConstants,
    MergeCommonSubexpressions,
    RemoveDeadNodes,
    Simplify,
)
from stipple.ir.passes.expansion import ExpandComposites
from stipple.ir.passes.fusion import FuseElementwise
from stipple.ir.passes.rewrite import Pass, PassResult
from stipple.ir.passes.split import split
from stipple.ir.verify import verify


@dataclass(frozen=True)
class PassRecord:
    """What one pass did to one graph."""

    name: str
    changes: int
    before: int
    after: int
    detail: str

    def __str__(self) -> str:
        if not self.changes:
            return f"{self.name}: nothing to do"
        return f"{self.name}: {self.before} -> {self.after} nodes ({self.detail})"


class PassManager:
    """Runs passes in order, verifies the graph after each that changed it, and keeps a record.

    ``print(manager)`` shows what each pass of the last run changed.
    """

    def __init__(self, passes: Sequence[Pass]) -> None:
        self.passes = list(passes)
        self.records: list[PassRecord] = []

    def run(self, graph: Graph) -> Graph:
        self.records = []
        for step in self.passes:
            result = step.run(graph)
            if result.changes:
                verify(result.graph)
            self.records.append(PassRecord(step.name, result.changes, len(graph), len(result.graph), result.detail))
            graph = result.graph
        return graph

    def __str__(self) -> str:
        return "\n".join(str(r) for r in self.records)


def standard_passes(evaluate: Evaluate) -> list[Pass]:
    """The passes that a Session runs once composites are expanded: clean up, fuse. ``evaluate`` computes constant
    nodes."""
    return [
        RemoveDeadNodes(),
        Simplify(),
        FoldConstants(evaluate),
        MergeCommonSubexpressions(),
        RemoveDeadNodes(),
        FuseElementwise(),
    ]


__all__ = [
    "Evaluate",
    "ExpandComposites",
    "FoldConstants",
    "FuseElementwise",
    "MergeCommonSubexpressions",
    "Pass",
    "PassManager",
    "PassRecord",
    "PassResult",
    "RemoveDeadNodes",
    "Simplify",
    "split",
    "standard_passes",
]
