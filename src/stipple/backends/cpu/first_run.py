"""A machine's first run: common kernels are compiled by several processes, with one progress bar.

Numba compiles under a lock, so threads would wait for each other. Each process leaves its kernels on disk, where this
one finds them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stipple.backends.cpu.cache import STORE
from stipple.backends.cpu.compile import Compilation, compilations, without_announcements

_MAX_PROCESSES = 4
"""Each takes a few hundred megabytes."""
_MIN_SHARE = 3
"""Kernels for each process at least: starting one takes as long as compiling a few."""


def warm_up(threads: int) -> int:
    """Compile every kernel that is not on disk, on up to this many cores; returns how many there were."""
    missing = [c for c in compilations() if c.missing]
    count = len(missing)
    if not count:
        return 0
    processes = min(threads, _MAX_PROCESSES, count // _MIN_SHARE)
    can_share = STORE.open()
    with without_announcements(), _bar(count) as advance:
        if can_share and processes > 1 and _can_start_processes():
            _compile_in_processes([c.name for c in _longest_first(missing)], processes, advance)
            missing = [c for c in missing if c.missing]  # what a process could not do
        for compilation in missing:
            compilation.run()
            advance()
    return count


def _longest_first(missing: Sequence[Compilation]) -> list[Compilation]:
    """Kernels with many arguments take longest to compile, and would otherwise keep one process busy at the end."""
    return sorted(missing, key=lambda c: -len(str(c.arguments)))


def _can_start_processes() -> bool:
    """Whether ``sys.executable`` is a Python: not in frozen applications and programs that embed one."""
    return not getattr(sys, "frozen", False) and re.match(r"(python|pypy)", Path(sys.executable or "").name) is not None


def _compile_in_processes(names: list[str], processes: int, advance: Callable[[], None]) -> None:
    """Let processes compile kernels. A process that fails ends, and leaves the rest to others."""
    started: list[subprocess.Popen[str]] = []

    def employ() -> None:
        try:
            worker = _start()
        except OSError:
            return
        started.append(worker)
        with worker:
            while (name := _next(names)) is not None and _compiled_by(worker, name):
                advance()

    threads = [threading.Thread(target=employ, daemon=True) for _ in range(processes)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:  # an interrupt must not leave processes behind
        names.clear()
        for worker in started:
            worker.kill()


def _next(names: list[str]) -> str | None:
    """Take the first name, if another thread has not taken the last."""
    try:
        return names.pop(0)
    except IndexError:
        return None


def _start() -> subprocess.Popen[str]:
    """A process that compiles with the modules that this one would import."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from stipple.backends.cpu.first_run import serve; serve()"
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=nowhere, text=True)


def _compiled_by(worker: subprocess.Popen[str], name: str) -> bool:
    """Ask a process to compile a kernel; whether it has."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(f"{name}\n")
        worker.stdin.flush()
    except OSError:
        return False
    return worker.stdout.readline().strip() == name


def serve() -> None:
    """Compile the kernels whose names arrive, and answer with their names."""
    known = {c.name: c for c in compilations()}
    for line in sys.stdin:
        known[line.strip()].run()
        print(line.strip(), flush=True)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar, and what advances it."""
    from rich.console import Console  # here: nothing else in the backend needs it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("Compiling CPU kernels, once per machine"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("compile", total=total)
        yield lambda: progress.advance(task)
