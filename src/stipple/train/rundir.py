"""The folder of a run: its files, and writing them so that nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.files import atomic_write, remove_leftovers
from stipple.formats.reading import read_text
from stipple.scene.camera import Camera
from stipple.scene.normalization import Normalization
from stipple.train.config import Config, make_config
from stipple.train.config_toml import read_toml, to_toml
from stipple.train.lock import FileLock

Array = np.ndarray
_NUMBERS = ("width", "height", "fx", "fy", "cx", "cy", "near", "far")
_LONGEST_SIDE, _FARTHEST, _LARGEST_EXPOSURE = 1_000_000, 1e15, 1e30


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files, and how they are read and written."""

    root: Path
    _lock: FileLock = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lock", FileLock(self.root / "run.lock"))

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def run(self) -> Path:
        return self.root / "run.json"

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint.safetensors"

    @property
    def older_checkpoint(self) -> Path:
        return self.root / "checkpoint.older.safetensors"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def scene(self) -> Path:
        return self.root / "scene.ply"

    @property
    def cameras(self) -> Path:
        return self.root / "cameras.json"

    @property
    def evaluation(self) -> Path:
        return self.root / "eval.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a run writes. The first one marks the folder as a run."""
        return (
            self.run,
            self.config,
            self.checkpoint,
            self.older_checkpoint,
            self.metrics,
            self.scene,
            self.cameras,
            self.evaluation,
            self.report,
        )

    # --- before anything is written -----------------------------------------------------------------------
    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Create the folder and lock it for this process; everything that writes into it does so inside. May be nested.

        Yields a note for the user, if there is something to know. Raises InputError if the folder cannot be written,
        or, naming the process, if another one is working in it.
        """
        created = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            note = self._lock.acquire()
        except OSError as error:
            raise InputError(f"{self.root}: cannot be written: {error.strerror or error}") from None
        try:
            for path in self.files:
                remove_leftovers(path)
            yield note
        finally:
            self._lock.release()
            if created:
                with suppress(OSError):  # it is not empty any more, as it should be
                    self.root.rmdir()

    def need(self, size: int) -> None:
        """Check that ``size`` bytes are free on the disk. Raises InputError if they are not."""
        free = self.free_bytes
        if free < size:
            raise InputError(
                f"{self.root}: {free / 1e6:.0f} MB are free; checkpoints and scene need {size / 1e6:.0f} MB"
            )

    @property
    def free_bytes(self) -> int:
        """Free bytes on the folder's disk."""
        return shutil.disk_usage(self.root).free

    @property
    def held_bytes(self) -> int:
        """What :meth:`clear` would free."""
        return sum(path.stat().st_size for path in self.files if path.is_file())

    def clear(self) -> None:
        """Remove the files of an earlier run; the one that marks the folder as a run goes first."""
        for path in self.files:
            path.unlink(missing_ok=True)

    # --- description of the run ---------------------------------------------------------------------------
    def write_description(
        self, capture: str, config: Config, normalization: Normalization, more: Mapping[str, Any]
    ) -> None:
        """Write config.toml and run.json."""
        write_text(self.config, to_toml(config))
        described = {
            "capture": os.path.abspath(capture),
            "normalization": {"center": list(normalization.center), "scale": normalization.scale},
            **more,
        }
        write_json(self.run, described)

    def read_description(self) -> tuple[Config, dict[str, Any]]:
        """The configuration and run.json. Raises InputError where the folder holds no run."""
        if not (self.run.is_file() and self.config.is_file()):
            raise InputError(
                f"{self.root}: holds no run: expected run.json and config.toml, as `stipple train` writes them"
            )
        values = read_json(self.run)
        if not isinstance(values, dict) or not isinstance(values.get("capture"), str):
            raise FileFormatError(f"{self.run}: expected an object with the path of the capture")
        return make_config(None, read_toml(self.config)), values

    # --- cameras ------------------------------------------------------------------------------------------
    def write_cameras(self, rows: Sequence[tuple[str, str, Camera, Array | None]]) -> None:
        """Write name, split, camera and exposure of each view."""
        listed = []
        for name, split, camera, exposure in rows:
            row: dict[str, Any] = {"name": name, "split": split}
            row |= {k: getattr(camera, k) for k in _NUMBERS}
            row["viewmat"] = camera.viewmat.tolist()
            if camera.model != "pinhole" or camera.distortion:
                row |= {"model": camera.model, "distortion": list(camera.distortion)}
            if exposure is not None:
                row["exposure"] = exposure.tolist()
            listed.append(row)
        write_json(self.cameras, listed)

    def read_cameras(self) -> dict[str, tuple[Camera, Array | None]]:
        """Cameras, and exposures where they were fitted, by the view's name: at least one."""
        rows = read_json(self.cameras)
        if not isinstance(rows, list) or not rows:
            raise FileFormatError(f"{self.cameras}: expected a list of at least one camera")
        cameras = {}
        for i, row in enumerate(rows):
            try:
                cameras[str(row["name"])] = _camera_row(row)
            except (KeyError, TypeError, ValueError, ArithmeticError) as error:
                raise FileFormatError(f"{self.cameras}: camera {i} is broken: {error}") from None
        return cameras


def _camera_row(row: Mapping[str, Any]) -> tuple[Camera, Array | None]:
    width, height, *numbers = (float(row[k]) for k in _NUMBERS)
    if not (width.is_integer() and height.is_integer() and max(width, height) <= _LONGEST_SIDE):
        raise InputError(f"expected whole numbers of pixels, at most {_LONGEST_SIDE}, got {width} x {height}")
    viewmat = np.array(row["viewmat"], float)
    if viewmat.shape == (4, 4) and not (np.abs(viewmat) <= _FARTHEST).all():
        raise InputError(f"expected a viewmat of numbers up to {_FARTHEST:g}")
    fx, fy, cx, cy, near, far = numbers
    lens = {"model": str(row.get("model", "pinhole")), "distortion": row.get("distortion", ())}
    camera = Camera(int(width), int(height), fx, fy, cx, cy, viewmat, near, far, **lens)
    if "exposure" not in row:
        return camera, None
    exposure = np.array(row["exposure"], float).reshape(3, 4)
    if not (np.abs(exposure) <= _LARGEST_EXPOSURE).all():
        raise InputError("expected an exposure of finite numbers")
    return camera, exposure.astype(np.float32)


# --- files ------------------------------------------------------------------------------------------------
def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # file names may hold bytes that are not UTF-8


def write_json(path: Path, values: Any) -> None:
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the file is missing") from None
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not valid JSON: {error}") from None
