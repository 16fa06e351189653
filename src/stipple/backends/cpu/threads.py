"""A small thread pool for kernels that release the GIL.

Work is cut into blocks whose borders do not depend on the number of threads, and every block writes its own part of the
result, so results are bit-identical for any number of threads.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from stipple.errors import DeviceError
from stipple.forking import in_forked_children


def default_threads() -> int:
    """``STIPPLE_NUM_THREADS``, or the number of cores that this process may use."""
    requested = os.environ.get("STIPPLE_NUM_THREADS")
    if requested is not None:
        if not requested.isdigit() or int(requested) < 1:
            raise DeviceError(f"STIPPLE_NUM_THREADS: expected a number of threads >= 1, got {requested!r}")
        return int(requested)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Threads:
    """``count`` threads, the calling one included. A forked process gets threads and scratch memory of its own."""

    def __init__(self, count: int | None = None) -> None:
        self.count = default_threads() if count is None else count
        if self.count < 1:
            raise DeviceError(f"threads: expected a number >= 1, got {count}")
        self._start()
        in_forked_children(self, Threads._start)

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(self.count - 1, "stipple") if self.count > 1 else None
        self._local = threading.local()

    def scratch(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialised float32 array that the next call with this name, on this thread, may reuse.

        Large temporary buffers stay mapped this way: mapping new pages costs more than filling them.
        """
        size = math.prod(shape)
        held: np.ndarray | None = getattr(self._local, name, None)
        if held is None or held.size < size:
            held = np.empty(size + size // 8, np.float32)
            setattr(self._local, name, held)
        return held[:size].reshape(shape)

    def blocks(self, total: int, block: int, run: Callable[[int, int], object]) -> None:
        """Call ``run(start, end)`` for each block of ``total`` items, in any order, on all threads."""
        count = -(-total // block)
        if self._pool is None or count <= 1:
            for i in range(count):
                run(i * block, min((i + 1) * block, total))
            return
        ticket = itertools.count()

        def work() -> None:
            while (i := next(ticket)) < count:
                run(i * block, min((i + 1) * block, total))

        others = self._started(work, min(self.count, count) - 1)
        try:
            work()
        finally:
            # Tasks that have not started would find nothing to do, and might never start if threads cannot be created.
            running = [other for other in others if not other.cancel()]
            wait(running)
        for other in running:
            other.result()

    def _started(self, work: Callable[[], None], count: int) -> list[Future[None]]:
        """Submit the work to ``count`` threads, or as many as can be started: their number changes no result."""
        assert self._pool is not None
        futures: list[Future[None]] = []
        try:
            for _ in range(count):
                futures.append(self._pool.submit(work))
        except RuntimeError as error:
            if "can't start new thread" not in str(error):  # no memory for one more
                raise
        return futures

    def spread(self, total: int, run: Callable[[int, int], object], per_thread: int = 1) -> None:
        """Like ``blocks`` with ``per_thread`` blocks a thread: for items whose results never depend on which
        block they are in."""
        parts = max(1, self.count * per_thread if self.count > 1 else 1)
        self.blocks(total, max(1, -(-total // parts)), run)
