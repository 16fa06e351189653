"""Checkpoints: every array of a run in one safetensors file that appears only when it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as tensors

from stipple.errors import FileFormatError
from stipple.files import atomic_write

Array = np.ndarray
_FORMAT = "stipple checkpoint 1"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state after ``step`` steps; everything random follows from the seed and the step. ``run`` names the
    configuration and the views that it belongs to."""

    step: int
    arrays: Mapping[str, Array]
    run: str
    seconds: float


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; the one that was there stays until this one is complete. Raises OSError."""
    meta = {"step": checkpoint.step, "run": checkpoint.run, "seconds": checkpoint.seconds}
    data = tensors.save(dict(checkpoint.arrays), {"format": _FORMAT, "meta": json.dumps(meta)})
    with atomic_write(path) as file:
        file.write(data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises FileFormatError, naming the file and what is wrong with it."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if header.get("format") != _FORMAT:
            raise FileFormatError(f"{path}: not a checkpoint of this version of Stipple")
        meta = json.loads(header["meta"])
        return Checkpoint(int(meta["step"]), arrays, str(meta["run"]), float(meta["seconds"]))
    except FileNotFoundError:
        raise FileFormatError(f"{path}: there is no checkpoint to resume from") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path}: broken checkpoint: {error}") from None
