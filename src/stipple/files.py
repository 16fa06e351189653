"""Writing files so that nothing is lost: under a temporary name, then renamed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NAME_KEPT = 40
"""Characters of a file's name that its temporary name keeps; file systems allow 255 bytes."""


@contextmanager
def atomic_write(path: str | os.PathLike[str], older: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that appears under its name only when it is complete; the previous file is then kept as ``older``.

    No other writer, in this process or another, uses the same temporary file; of two concurrent writers, the one that
    finishes last wins. A killed writer leaves its temporary file: see :func:`remove_leftovers`.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:_NAME_KEPT]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if older is not None and target.exists():
            _keep(target, older)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _settle_names(target.parent)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove temporary files of killed writers of a file. Only call this while nobody is writing it."""
    target = Path(path)
    left = re.compile(rf"\.{re.escape(target.name[:_NAME_KEPT])}\.\d+-[0-9a-f]+\.tmp")
    for found in list(target.parent.iterdir()):
        if left.fullmatch(found.name):
            found.unlink(missing_ok=True)


def _keep(target: Path, older: Path) -> None:
    """Give a file a second name by a hard link, so that it always has a name; without hard links, rename it."""
    older.unlink(missing_ok=True)
    try:
        os.link(target, older)
    except OSError:
        os.replace(target, older)


def _settle_names(folder: Path) -> None:
    """Make a rename survive a power cut, on systems where a folder can be synchronised."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network file systems refuse; the file itself is safe by then
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
