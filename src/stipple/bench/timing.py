"""How long a call takes: the shortest of several times in one process, which other load disturbs least."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_of(run: Callable[[], object], seconds: float = 1.0, minimum: int = 3) -> float:
    """The shortest time of a call in milliseconds, over at least ``minimum`` calls and about ``seconds``."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < minimum or (time.perf_counter() < end and len(times) < 200):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def best_of_waiting(run: Callable[[], object], wait: Callable[[], None], repeats: int) -> float:
    """Milliseconds of the fastest of several runs, after two warm-up runs."""
    times = []
    for i in range(repeats + 2):
        wait()
        started = time.perf_counter()
        run()
        wait()
        if i >= 2:
            times.append(time.perf_counter() - started)
    return round(1e3 * min(times), 3)
