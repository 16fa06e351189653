"""Opening untrusted files: only regular files, and never reading more bytes than a file has."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stipple.errors import FileFormatError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A file opened for reading. Raises FileFormatError, at once, for a pipe, a socket or a device; else OSError."""
    return open(_usable(path), "rb", opener=_open_regular)


def read_bytes(path: str | os.PathLike[str], maximum: int | None = None) -> bytes:
    """All of a file. Raises FileFormatError where it holds more than ``maximum`` bytes."""
    with open_file(path) as file:
        data = file.read() if maximum is None else file.read(maximum + 1)
    if maximum is not None and len(data) > maximum:
        raise FileFormatError(f"{os.fspath(path)}: expected at most {maximum:,} bytes")
    return data


def read_text(path: str | os.PathLike[str], maximum: int | None = None) -> str:
    """All of a text file; bytes that are not UTF-8 are decoded as in file names (:func:`os.fsdecode`)."""
    return read_bytes(path, maximum).decode("utf-8", "surrogateescape")


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a text file, one at a time, decoded as :func:`read_text` does."""
    with open_file(path) as file, io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape") as text:
        for line in text:
            yield line.rstrip("\n")


def _usable(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    if "\0" in name:
        raise FileFormatError(f"{name!r}: no file can have this name")
    return name


def _open_regular(path: str, flags: int) -> int:
    # without O_NONBLOCK, opening a pipe without a writer would block for ever; it has no effect on files
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            os.close(descriptor)
            raise FileFormatError(f"{path}: expected a file, found {kind}")
    return descriptor


class BoundedFile(io.BufferedIOBase):
    """A file for decoders: reading a length declared by a broken file never costs more than the file's own length.

    It has no descriptor, so that decoders cannot map the file into memory: if a mapped file is truncated while it is
    read, the process crashes.
    """

    def __init__(self, path: Path) -> None:
        self._file: Any = open_file(path)
        self._size = os.fstat(self._file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._file.tell())
        data: bytes = self._file.read(left if size is None or size < 0 else min(size, left))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
