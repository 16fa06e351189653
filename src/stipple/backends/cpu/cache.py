"""Compiled kernels on disk: one file for each kernel and signature.

A file begins with its key and a checksum, and appears under its name only when it is complete: damage is detected
before LLVM reads it, and processes that compile at the same time cannot mix up each other's files, which can happen
with the index of Numba's own cache. The key covers the sources of all kernels, because functions of one file are
compiled into kernels of another.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config, sigutils
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from stipple.errors import CacheWarning
from stipple.files import atomic_write

_MAGIC = b"stipple kernel 1"
_DIGEST = hashlib.sha256().digest_size
_HEADER = len(_MAGIC) + 2 * _DIGEST
_NOT_COMPILED = ("__init__.py", "cache.py", "elementwise.py", "rasterize.py", "threads.py", "first_run.py")
"""Files of this folder that contain no compiled code."""


class KernelCache(NullCache):
    """Numba's interface to the cache of one kernel. ``missed`` is called with the name of a kernel that must be
    compiled."""

    def __init__(self, function: Any, missed: Callable[[str], None] = lambda name: None) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._missed = missed

    def holds(self, arguments: tuple[Any, ...], target: Any) -> bool:
        """Whether there is a file for these types, judging by its header."""
        return STORE.holds(*self._place(arguments, target))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel for these types, or None if there is no intact file."""
        target_context.refresh()
        data = STORE.read(*self._place(sig, target_context.codegen()))
        if data is None:
            self._missed(self.name.removeprefix("stipple.backends.cpu."))  # it is compiled next
            return None
        return CompileResult._rebuild(target_context, *pickle.loads(data))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel, if any folder can be written."""
        STORE.write(*self._place(sig, data.codegen), dumps(data._reduce()))

    def _place(self, sig: Any, target: Any) -> tuple[str, bytes]:
        """A file's name and its key: changed sources overwrite it, another machine has its own file."""
        arguments, _ = sigutils.normalize_signature(sig)
        machine = (str(arguments), target.magic_tuple(), os.environ.get("STIPPLE_SIMD_WIDTH"), sys.version)
        digest = hashlib.sha256(repr(machine).encode()).hexdigest()[:16]
        name = f"{self.name.removeprefix('stipple.backends.cpu.')}-{digest}.kernel"
        return name, hashlib.sha256(repr((name, machine, _sources())).encode()).digest()


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of the compilers' versions and of all files that may be compiled into a kernel."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    here = resources.files(__package__)
    files = [*here.iterdir(), *here.joinpath("simd").iterdir(), resources.files("stipple").joinpath("numerics.py")]
    for file in sorted(files, key=lambda f: f.name):
        if file.name.endswith(".py") and file.name not in _NOT_COMPILED:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


class Store:
    """The folders that kernels are read from; they are written to the first of them that is writable.

    Only ``NUMBA_CACHE_DIR`` if it is set and writable; else ``__pycache__`` beside the kernels, and the user's cache
    folder. Both are read, so that kernels compiled while a container image was built can be used where nothing can be
    written.
    """

    def __init__(self) -> None:
        self._closed: dict[Path, OSError] = {}
        self._told = False

    @staticmethod
    def folders() -> list[Path]:
        here = Path(__file__).parent
        mine = f"stipple_{hashlib.sha256(os.fsencode(here)).hexdigest()[:16]}"
        configured = getattr(config, "CACHE_DIR", "")  # NUMBA_CACHE_DIR, when Numba was imported
        given = [Path(configured) / mine] if configured else []
        if given and _refusal(given[0]) is None:
            return given
        return [*given, here / "__pycache__", Path(AppDirs("stipple", False).user_cache_dir) / mine]

    def holds(self, name: str, key: bytes) -> bool:
        """Whether a folder has a file with this header."""
        return any(self._head(folder / name) == _MAGIC + key for folder in self.folders())

    @staticmethod
    def _head(path: Path) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read(len(_MAGIC) + _DIGEST)
        except OSError:
            return b""

    def read(self, name: str, key: bytes) -> bytes | None:
        """The contents of the first intact file."""
        for folder in self.folders():
            try:
                data = (folder / name).read_bytes()
            except OSError:
                continue
            if data[:_HEADER] == _MAGIC + key + hashlib.sha256(data[_HEADER:]).digest():
                return data[_HEADER:]
        return None

    def write(self, name: str, key: bytes, data: bytes) -> None:
        """Write a file into the first writable folder."""
        for folder in self.folders():
            if folder not in self._closed:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    with atomic_write(folder / name) as file:
                        file.write(_MAGIC + key + hashlib.sha256(data).digest() + data)
                    return
                except OSError as error:
                    if self._head(folder / name) == _MAGIC + key:
                        return  # another process was faster, and has the file open (Windows)
                    self._closed[folder] = error
        self._tell()

    def open(self) -> bool:
        """Whether a folder can be written; warns if there is none, before time is spent on kernels that cannot be
        cached."""
        for folder in self.folders():
            refusal = _refusal(folder)
            if refusal is None:
                return True
            self._closed[folder] = refusal
        self._tell()
        return False

    def _tell(self) -> None:
        """Warn once that nothing is cached."""
        if self._told:
            return
        self._told = True
        reasons = "; ".join(f"{folder}: {error.strerror or error}" for folder, error in self._closed.items())
        warnings.warn(
            "compiled CPU kernels cannot be kept, so every process compiles them again (about half a minute): no "
            f"folder for them can be written ({reasons}); set NUMBA_CACHE_DIR to one that can",
            CacheWarning,
            stacklevel=2,
        )


@lru_cache(maxsize=16)
def _refusal(folder: Path) -> OSError | None:
    """The error if a folder cannot be written, else None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None


STORE = Store()
