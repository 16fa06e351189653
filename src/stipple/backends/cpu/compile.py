"""How kernels are compiled: options, explicit signatures, and one progress bar on a machine's first run.

Kernels release the GIL and are driven by a thread pool; they are compiled once and cached on disk by Numba.
Every kernel has explicit signatures, so all of them can be compiled ahead of their first use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import sigutils

Function = Callable[..., Any]

# No nnan and no ninf: masked-off lanes and bad input may hold either. No reassoc in scalar code: results must
# not depend on where the vectoriser's remainder loop begins.
_CACHE = "STIPPLE_SIMD_WIDTH" not in os.environ  # another width must not meet this machine's cached kernels
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": _CACHE,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": {"contract", "nsz"},
}

_KERNELS: dict[str, tuple[Any, tuple[str, ...]]] = {}


def inline(function: Function) -> Function:
    """Decorator for a function that is compiled into the kernels that call it."""
    made: Function = njit(**{**OPTIONS, "cache": False})(function)
    return made


def kernel(*signatures: str) -> Callable[[Function], Function]:
    """Decorator for a kernel with explicit signatures, each compiled when it is first needed."""

    def decorate(function: Function) -> Function:
        dispatcher = njit(**OPTIONS)(function)
        name = f"{function.__module__}.{function.__qualname__}"
        _KERNELS[name] = (dispatcher, signatures)

        made: Function = dispatcher
        return made

    return decorate


def _cached_count(dispatcher: Any) -> int:
    """How many signatures of a kernel Numba's cache on disk holds."""
    path = Path(dispatcher.stats.cache_path or "")
    function = dispatcher.py_func
    if not _CACHE or not path.is_dir():
        return 0
    return len(list(path.glob(f"*{function.__name__}-{function.__code__.co_firstlineno}.*.nbc")))


def _compile(dispatcher: Any, signature: str) -> None:
    """Compile under the key that a call with these types looks up: Numba's cache knows types, not their text."""
    arguments, _ = sigutils.normalize_signature(signature)
    dispatcher.compile(arguments)


def warm_up(quiet: bool = False) -> int:
    """Compile every kernel that is not cached on disk, with a progress bar; returns how many there were."""
    missing = [
        (dispatcher, signature)
        for dispatcher, signatures in _KERNELS.values()
        if not dispatcher.signatures and _cached_count(dispatcher) < len(signatures)
        for signature in signatures
    ]
    if not missing:
        return 0
    if quiet:
        for dispatcher, signature in missing:
            _compile(dispatcher, signature)
        return len(missing)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("Compiling CPU kernels, once per machine"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("compile", total=len(missing))
        for dispatcher, signature in missing:
            _compile(dispatcher, signature)
            progress.advance(task)
    return len(missing)
