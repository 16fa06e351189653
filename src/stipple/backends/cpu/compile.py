"""How kernels are compiled: options and explicit signatures.

Kernels release the GIL and are driven by a thread pool; they are compiled once and kept on disk (``cache.py``). Common
variants have explicit signatures, and are compiled before their first use (``first_run.py``). Rarer variants of a
kernel are compiled, and cached, when they are first called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from numba import njit
from numba.core import sigutils, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.extending import overload

from stipple.backends.cpu.cache import KernelCache
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

_KERNELS: list[tuple[Any, KernelCache, tuple[Any, ...]]] = []

hold_across_forks(global_compiler_lock)


def inline(function: Function) -> Function:
    """Decorator for a function that is compiled into the kernels that call it.

    It is always inlined, whatever its size: otherwise records of vectors would go through memory.
    """
    made: Function = njit(**OPTIONS, forceinline=True)(function)
    return made


def record_type(record: type, *fields: Any) -> Any:
    """The type of a NamedTuple argument with fields of these types (or their names)."""
    return types.BaseTuple.from_types([_type_of(field) for field in fields], record)


def _type_of(named: Any) -> Any:
    """A type, or the one that a text such as ``f4[:,::1]`` names."""
    if not isinstance(named, str):
        return named
    (kind,), _ = sigutils.normalize_signature(f"({named},)")
    return kind


def chosen_by_type(functions: Mapping[type, Function]) -> Any:
    """A function for compiled code that calls one of these, chosen by the type of its first argument, a record."""

    def chosen(record: Any, *args: Any) -> Any:
        return functions[type(record)](record, *args)

    options: Any = OPTIONS

    @overload(chosen, jit_options=options)
    def choose(record, *args):  # without annotations: Numba compares it with what it returns
        function = functions[record.instance_class]
        return lambda record, *args: function(record, *args)  # noqa: PLW0108 (Numba wants a function in Python)

    return chosen


def kernel(*signatures: Any) -> Callable[[Function], Function]:
    """Decorator for a kernel with explicit signatures, each compiled when it is first needed.

    A signature is a text, or, where some arguments are records, a tuple of the arguments' types: each a text or a
    ``record_type``. Types of arguments beyond the signatures are compiled, and kept, when a call has them.
    """

    def decorate(function: Function) -> Function:
        dispatcher = njit(**OPTIONS)(function)
        dispatcher._cache = cache = KernelCache(function, _say_that_it_compiles)
        typed = [s if isinstance(s, str) else tuple(map(_type_of, s)) for s in signatures]
        _KERNELS.append((dispatcher, cache, tuple(typed)))

        made: Function = dispatcher
        return made

    return decorate


_announces = True
"""Whether a kernel that is compiled on its first call is announced."""


@contextmanager
def without_announcements() -> Iterator[None]:
    """Around compiling that is reported in another way."""
    global _announces  # noqa: PLW0603 - one process compiles for all
    before, _announces = _announces, False
    try:
        yield
    finally:
        _announces = before


def _say_that_it_compiles(name: str) -> None:
    """Print one line on a terminal for a variant that is compiled on its first call, which takes a few seconds."""
    if _announces and sys.stderr.isatty():
        print(f"Compiling the CPU kernel {name} for this use, once per machine", file=sys.stderr)


class Compilation(NamedTuple):
    """A kernel for given types.

    Types, not their names: the cache, like Numba's table of loaded kernels, is keyed by the types of a call.
    """

    name: str
    dispatcher: Any
    cache: KernelCache
    arguments: tuple[Any, ...]

    def run(self) -> None:
        """Compile it, or load it from disk."""
        self.dispatcher.compile(self.arguments)

    @property
    def missing(self) -> bool:
        """Whether it is neither loaded nor on disk."""
        target = self.dispatcher.targetctx.codegen()
        return self.arguments not in self.dispatcher.overloads and not self.cache.holds(self.arguments, target)


def compilations() -> list[Compilation]:
    """All kernels with their explicit signatures."""
    found = []
    for dispatcher, cache, signatures in _KERNELS:
        for number, signature in enumerate(signatures):
            arguments, _ = sigutils.normalize_signature(signature)
            found.append(Compilation(f"{cache.name}/{number}", dispatcher, cache, arguments))
    return found
