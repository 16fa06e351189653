"""Checkpoints: checksums, and the older one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stipple.errors import FileFormatError
from stipple.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = {"means": rng.normal(size=(3, 2)).astype(np.float32), "b": np.arange(4, dtype=np.float32)}
    file = tmp_path / "c.safetensors"
    save_checkpoint(Checkpoint(7, arrays, "name", 1.5, [0.25, 1 / 3]), file, tmp_path / "older")
    read = load_checkpoint(file)
    assert (read.step, read.run, read.seconds, read.errors) == (7, "name", 1.5, [0.25, 1 / 3])
    for name, array in arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
    data = file.read_bytes()
    noticed = 0
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << place % 8
        file.write_bytes(spoilt)
        try:
            load_checkpoint(file)
        except FileFormatError:
            noticed += 1
    assert noticed >= len(data) - 8, "all but the blanks that fill the header up"


def test_a_checkpoint_gives_up_the_older_one_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, older = tmp_path / "c", tmp_path / "older"
    made = [Checkpoint(step, {"means": np.full(9, step, np.float32)}, "name", 0.0) for step in range(3)]
    for checkpoint in made[:2]:
        save_checkpoint(checkpoint, file, older)
    assert (load_checkpoint(file).step, load_checkpoint(older).step) == (1, 0)
    flush = os.fsync

    def full(descriptor: int) -> None:
        if older.exists():
            raise OSError(28, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr("stipple.files.os.fsync", full)
    save_checkpoint(made[2], file, older)
    assert (load_checkpoint(file).step, load_checkpoint(older).step) == (2, 1)
    monkeypatch.setattr("stipple.files.os.fsync", lambda descriptor: full(descriptor) or 1 / 0)
    older.unlink()
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(made[0], file, older)
    assert load_checkpoint(file).step == 2, "what could not be written has changed nothing"
