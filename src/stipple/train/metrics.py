"""metrics.jsonl: measurements during a run, one line of JSON for each logged step or evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stipple.train.rundir import write_text

Row = dict[str, Any]
_MAX_STEPS = 2**53


class MetricsLog:
    """The rows so far, in memory and in the file. A resumed run begins with those up to its step."""

    def __init__(self, path: Path, rows: Iterable[Row] = ()) -> None:
        self.path, self.rows = path, list(rows)

    def rewrite(self) -> None:
        """Rewrite the file so that it holds exactly these rows. Raises OSError."""
        write_text(self.path, "".join(json.dumps(r) + "\n" for r in self.rows))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line. Raises OSError; even then the row is kept in memory."""
        self.rows.append(dict(row))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def rows_until(path: Path, step: int) -> list[Row]:
    """The rows up to a step, without final ones. Raises OSError, but not if the file is missing."""
    return [r for r in read_metrics(path) if r["step"] <= step and "final" not in r] if path.exists() else []


def read_metrics(path: Path) -> list[Row]:
    """The readable lines: each with its step and those of its values that are numbers; raises OSError only."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            continue  # truncated when the run was killed, or damaged: the curve has one point less
        if isinstance(row, dict) and _is_step(row.get("step")):
            rows.append({k: v for k, v in row.items() if _is_number(v) or k == "final"})
    return rows


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_STEPS


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _MAX_STEPS if isinstance(value, int) else math.isfinite(value)
