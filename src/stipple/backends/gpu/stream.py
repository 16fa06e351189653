"""A device's command stream: recorded dispatch by dispatch, and submitted when a result is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stipple.backends.gpu.driver import Driver
from stipple.backends.gpu.pace import Pace
from stipple.backends.gpu.timing import KernelClock, KernelTime

_MAX_GROUPS = 65535


class CommandStream:
    """The dispatches that are not submitted yet. ``submitted`` is called after each submission.

    ``submits`` counts the submissions, ``waits`` how often the host waited for results; ``waited`` is how many seconds
    both took.
    """

    def __init__(self, driver: Driver, submitted: Callable[[], None]) -> None:
        self._driver, self._submitted = driver, submitted
        self._encoder: Any = None
        self._pass: Any = None
        self._pending = 0
        self._clock: KernelClock | None = None
        self.pace = Pace()
        self.submits = self.waits = 0
        self.waited = 0.0

    def dispatch(self, name: str, pipeline: Any, group: Any, raws: Sequence[Any], groups: int) -> None:
        """Run workgroups of a program with its bindings."""
        self._open_pass(name, raws)
        self._pass.set_pipeline(pipeline)
        self._pass.set_bind_group(0, group)
        across = min(groups, _MAX_GROUPS)
        self._pass.dispatch_workgroups(across, -(-groups // across), 1)
        self._pending += 1
        if self._pending >= self.pace.current:
            self.flush()

    def _open_pass(self, name: str, raws: Sequence[Any]) -> None:
        """The pass to dispatch in: one for all, or one for each dispatch while kernels are timed."""
        if self._clock is not None:
            writes = self._clock.begin(name, sum(raw.size for raw in raws))
            self._pass = self.encoder().begin_compute_pass(timestamp_writes=writes)
        elif self._pass is None:
            self._pass = self.encoder().begin_compute_pass()

    def encoder(self) -> Any:
        """An encoder outside any pass, positioned after all dispatches."""
        if self._encoder is None:
            self._encoder = self._driver.device.create_command_encoder()
        if self._pass is not None:
            self._pass.end()
            self._pass = None
        return self._encoder

    def flush(self) -> None:
        """Submit all dispatches."""
        if self._encoder is None:
            return
        ended, encoder = self._pass, self._encoder
        self._pass = self._encoder = None
        self.pace.submitted(self._pending, time.perf_counter())
        self._pending = 0
        self.submits += 1
        with self._driver.failures.reported("the device failed"):
            if ended is not None:
                ended.end()
            if self._clock is not None:
                self._clock.resolve(encoder)
            with self._counted():  # software devices return only when all earlier work has ended
                self._driver.device.queue.submit([encoder.finish()])
            if self._clock is not None:
                self._clock.read()
        self._submitted()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around code that waits until all submitted work has ended."""
        with self._counted():
            yield
        self.pace.done(time.perf_counter())
        self.waits += 1

    @contextmanager
    def _counted(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - started

    @contextmanager
    def timed(self) -> Iterator[list[KernelTime]]:
        """Times of the kernels dispatched inside; the list is filled at the end."""
        times: list[KernelTime] = []
        self.flush()
        self._clock = KernelClock(self._driver.wgpu, self._driver.device, 2 * self.pace.maximum)
        try:
            yield times
            self.flush()
        finally:
            times += self._clock.times
            self._clock = None
