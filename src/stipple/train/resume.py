"""Resuming a run: choosing its checkpoint, and checking that the capture has not changed."""

from __future__ import annotations

import os

from stipple.errors import FileFormatError, InputError
from stipple.train.checkpoint import Checkpoint, latest_checkpoint
from stipple.train.problem import Problem
from stipple.train.progress import Meter
from stipple.train.rundir import RunFolder, write_json


def find_begun(folder: RunFolder, problem: Problem, capture: str, meter: Meter) -> Checkpoint | None:
    """The checkpoint to resume from; None if the run ended before its first. Checks that the problem has not changed.

    Raises InputError or FileFormatError that names what has changed or is broken. A capture that was moved is
    remembered where it is now.
    """
    checkpoint, note = latest_checkpoint(folder.checkpoint, folder.older_checkpoint)
    if note is not None:
        meter.note(note)
    if checkpoint is None:
        if folder.scene.exists():
            raise FileFormatError(
                f"{folder.checkpoint}: there is no checkpoint to resume from, though the run has ended; start again "
                "with --overwrite"
            )
        meter.note(f"{folder.root}: the run ended before its first checkpoint; it starts again")
        return None
    described = folder.read_description()[1]
    problem.expect(described.get("contents", {}))
    if checkpoint.run != problem.identity:
        raise InputError(
            f"{folder.root}: the checkpoint belongs to another configuration; config.toml was changed: restore it, "
            "or start again with --overwrite"
        )
    if described["capture"] != os.path.abspath(capture):
        write_json(folder.run, {**described, "capture": os.path.abspath(capture)})
    return checkpoint
