"""A file lock of the operating system: it is released when its process ends, however that happens. The file says who
holds it."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from stipple.errors import InputError
from stipple.forking import in_forked_children

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

if sys.platform == "win32":
    import msvcrt

    _BEYOND_THE_TEXT = 1 << 30  # other processes cannot read bytes that are locked

    def lock_file(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND_THE_TEXT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def lock_file(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Holder(NamedTuple):
    """Who holds a lock."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @classmethod
    def me(cls) -> Holder:
        return cls(os.getpid(), socket.gethostname(), datetime.now().astimezone().isoformat(" ", "seconds"))

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """The holder that a file names; None if it names nobody, or cannot be read while it is locked."""
        try:
            values = json.loads(path.read_bytes())
            return cls(int(values["pid"]), str(values["host"]), str(values["since"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    @property
    def may_live(self) -> bool:
        """Whether the process may still be alive; nothing is known about processes of other hosts."""
        if self.host != socket.gethostname() or sys.platform == "win32":
            return True
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True  # another user's
        return True


class FileLock:
    """Held from :meth:`acquire` to :meth:`release`; the thread that holds it may acquire it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._depth = 0
        self._thread = 0
        self._guard = threading.Lock()
        in_forked_children(self, FileLock._forget)

    def acquire(self) -> str | None:
        """Take the lock, or raise InputError that says who holds it.

        Returns a note for the user, if there is something to know. Raises OSError if the file cannot be created.
        """
        with self._guard:
            if self._depth and self._thread != threading.get_ident():
                raise self._held()
            note = None if self._depth else self._take()
            self._depth, self._thread = self._depth + 1, threading.get_ident()
            return note

    def release(self) -> None:
        """Release the lock, and remove the file."""
        with self._guard:
            if self._file is None:
                return  # a forked child: its parent holds the lock
            self._depth -= 1
            if self._depth:
                return
            file, self._file = self._file, None
            if sys.platform == "win32":
                file.truncate(0)
                file.close()
                _remove(self.path)  # fails, as it should, if another process has opened it by now
            else:
                _remove(self.path)  # while it is locked: others notice that it is gone, and open it again
                file.close()

    def _take(self) -> str | None:
        while True:
            file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - kept while the lock is held
            try:
                note = self._own(file)
                if _is_named(file, self.path):
                    file.truncate(0)
                    file.write(json.dumps(Holder.me()._asdict()).encode())
                    self._file = file
                    return note
            finally:
                if self._file is not file:
                    file.close()

    def _own(self, file: FileIO) -> str | None:
        """Lock an open file. Returns a note for the user if there is something to know, or if locks are not
        supported."""
        before = Holder.read(self.path)
        try:
            lock_file(file.fileno())
        except OSError as error:
            if error.errno in _BUSY:
                raise self._held() from None
            if error.errno not in _UNSUPPORTED:
                raise
            if before is not None and before.may_live:
                raise self._held(f"; if that process is gone, remove {self.path}") from None
            return f"{self.path.parent}: this file system does not support locks: make sure no other process works here"
        if before is not None and before.host != socket.gethostname():
            return (
                f"{self.path.parent}: {before}, worked here and did not end properly; stop it if it is still running: "
                "locks may not work between hosts on this file system"
            )
        return None

    def _held(self, more: str = "") -> InputError:
        holder = Holder.read(self.path)
        return InputError(
            f"{self.path.parent}: {holder or 'another process'} is working here; wait until it ends, or choose another "
            f"folder{more}"
        )

    def _forget(self) -> None:
        """In a forked child: the parent keeps the lock, which ends with the parent even if the child lives on."""
        self._guard = threading.Lock()
        if self._file is not None:
            self._file.close()
            self._file, self._depth = None, 0


def _is_named(file: FileIO, path: Path) -> bool:
    """Whether an open file is still the one with that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # Windows: another process has it open; an empty file has no effect
        return
