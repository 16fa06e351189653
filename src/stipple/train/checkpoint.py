"""Checkpoints: every array of a run in one safetensors file that appears only when it is complete, with a checksum.

The previous checkpoint is kept beside it until the run is complete, so that a damaged file costs steps, not the run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from stipple.errors import FileFormatError
from stipple.files import atomic_write
from stipple.train.config import Config
from stipple.train.state import MOMENTS, PARAMS

Array = np.ndarray
_FORMAT = "stipple checkpoint 4"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state after ``step`` steps; everything random follows from the seed and the step. ``run`` names the
    configuration and the views that it belongs to; ``errors`` are the mean square errors of the last steps, for their
    running mean."""

    step: int
    arrays: Mapping[str, Array]
    run: str
    seconds: float
    errors: Sequence[float] = field(default=())


def save_checkpoint(checkpoint: Checkpoint, path: Path, older: Path) -> None:
    """Write a checkpoint; the existing one is kept until this one is complete, and then becomes the older one.

    If the disk has no space for three, the older one is removed first. Raises OSError.
    """
    try:
        _write(checkpoint, path, older)
    except OSError as error:
        if error.errno not in _DISK_FULL or not (older.exists() and path.exists()):
            raise
        older.unlink()
        _write(checkpoint, path, older)


def _write(checkpoint: Checkpoint, path: Path, older: Path) -> None:
    meta = {
        "step": checkpoint.step,
        "run": checkpoint.run,
        "seconds": checkpoint.seconds,
        "errors": list(checkpoint.errors),
    }
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in sorted(checkpoint.arrays.items())}
    text = json.dumps(meta)
    with atomic_write(path, older) as file:
        _write_tensors(file, arrays, {"format": _FORMAT, "meta": text, "checksum": _checksum(arrays, text)})


def _write_tensors(file: BinaryIO, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write the safetensors format directly from the arrays: the library's writer would copy them twice, and aborts the
    process when memory is short."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(_raw(array))


def _checksum(arrays: Mapping[str, Array], text: str) -> str:
    """A digest of everything in a checkpoint."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(_raw(array))
    return digest.hexdigest()


def _raw(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def checkpoint_bytes(count: int, config: Config) -> int:
    """The size of a final checkpoint in bytes. A run needs twice that while one is replaced, and its scene a third of
    it."""
    row = 11 + 3 * (config.schedule.sh_degree + 1) ** 2
    arrays = 1 + len(MOMENTS) // len(PARAMS)
    statistics = sum(math.prod(shape) for shape in config.density.traits.statistics.values())
    return 4 * count * (row * arrays + statistics)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises FileFormatError, naming the file and what is wrong with it."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise FileFormatError(f"{path}: not a checkpoint of this version of Stipple")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _checksum(arrays, header["meta"]) != header["checksum"]:
            raise FileFormatError(f"{path}: broken checkpoint: its checksum does not match its contents")
        meta = json.loads(header["meta"])
        numbers = int(meta["step"]), float(meta["seconds"])
        return Checkpoint(numbers[0], arrays, str(meta["run"]), numbers[1], [float(e) for e in meta["errors"]])
    except FileNotFoundError:
        raise FileFormatError(f"{path}: there is no checkpoint to resume from") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path}: broken checkpoint: {error}") from None


def latest_checkpoint(path: Path, older: Path) -> tuple[Checkpoint | None, str | None]:
    """The newest intact checkpoint, and a note for the user if there is something to know; None if there never was one.

    Raises FileFormatError if checkpoints exist but none is intact.
    """
    damaged: list[str] = []
    for place in (path, older):
        try:
            found = load_checkpoint(place) if place.exists() else None
        except FileFormatError as error:
            damaged.append(str(error))
            continue
        if found is not None:
            return found, f"{damaged[0]}; continuing from the previous one, of step {found.step}" if damaged else None
    if damaged:
        raise FileFormatError(f"{'; '.join(damaged)}; no checkpoint is intact: start again with --overwrite")
    return None, None  # a kill before the first checkpoint
