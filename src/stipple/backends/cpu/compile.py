"""How kernels are compiled: options, explicit signatures, and one progress bar on a machine's first run.

Kernels release the GIL and are driven by a thread pool; they are compiled once and kept on disk (``cache.py``).
Every kernel has explicit signatures, so all of them can be compiled ahead of their first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import sigutils
from numba.core.compiler_lock import global_compiler_lock

from stipple.backends.cpu.cache import STORE, KernelCache
from stipple.forking import hold_across_forks

Function = Callable[..., Any]

# No nnan and no ninf: masked-off lanes and bad input may hold either. No reassoc in scalar code: results must
# not depend on where the vectoriser's remainder loop begins.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": {"contract", "nsz"},
}

_KERNELS: list[tuple[Any, KernelCache, tuple[str, ...]]] = []

hold_across_forks(global_compiler_lock)


def inline(function: Function) -> Function:
    """Decorator for a function that is compiled into the kernels that call it."""
    made: Function = njit(**OPTIONS)(function)
    return made


def kernel(*signatures: str) -> Callable[[Function], Function]:
    """Decorator for a kernel with explicit signatures, each compiled when it is first needed."""

    def decorate(function: Function) -> Function:
        dispatcher = njit(**OPTIONS)(function)
        dispatcher._cache = cache = KernelCache(function)
        _KERNELS.append((dispatcher, cache, signatures))

        made: Function = dispatcher
        return made

    return decorate


def _missing() -> list[tuple[Any, tuple[Any, ...]]]:
    """Kernels, with their types, that are neither loaded nor on disk.

    Types, not their text: the cache, like Numba's table of what is loaded, looks them up under what a call has.
    """
    found = []
    for dispatcher, cache, signatures in _KERNELS:
        for signature in signatures:
            arguments, _ = sigutils.normalize_signature(signature)
            if arguments not in dispatcher.overloads and not cache.holds(arguments, dispatcher.targetctx.codegen()):
                found.append((dispatcher, arguments))
    return found


def warm_up(quiet: bool = False) -> int:
    """Compile every kernel that is not cached on disk, with a progress bar; returns how many there were."""
    missing = _missing()
    if not missing:
        return 0
    STORE.open()
    if quiet:
        for dispatcher, arguments in missing:
            dispatcher.compile(arguments)
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
        for dispatcher, arguments in missing:
            dispatcher.compile(arguments)
            progress.advance(task)
    return len(missing)
