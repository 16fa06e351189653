"""Damaged files of every kind: a result or one of our errors, never another exception, a hang, or much memory.

STIPPLE_FUZZ_MUTATIONS says how many times each file is damaged, STIPPLE_FUZZ_SEED draws other damage; what failed is
kept beside the test's other files and named with its number.
"""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType

import pytest
from mutations import mutated
from reading_cases import Case, cases

from stipple.errors import StippleError

MUTATIONS = int(os.environ.get("STIPPLE_FUZZ_MUTATIONS", "12"))
SEED = int(os.environ.get("STIPPLE_FUZZ_SEED", "0"))
LIMIT = 64 << 20
PATIENCE = 60
CASES = {c.name: c for c in cases()}


class Hang(BaseException):
    """Reading does not come to an end; no handler of errors may take it for one."""


@contextmanager
def _watched() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"not done after {PATIENCE} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak(case: Case, root: Path) -> int:
    """Bytes that reading took at most."""
    tracemalloc.start()
    try:
        with _watched(), suppress(StippleError, OSError):
            case.read(root)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CASES)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path)
    file = tmp_path / case.file
    whole = file.read_bytes()
    case.read(tmp_path)
    for number in range(MUTATIONS):
        file.write_bytes(mutated(case.file, whole, Random(f"{SEED} {name} {number}")))
        what = f"mutation {number} of {name} with STIPPLE_FUZZ_SEED={SEED}, kept as {file}"
        try:
            peak = _peak(case, tmp_path)
        except (Exception, Hang) as error:
            raise AssertionError(what) from error
        assert peak < LIMIT, what
