"""Errors of the driver as one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from stipple.backends.gpu.adapters import AdapterInfo
from stipple.errors import DeviceError


class Failures:
    """Reports what went wrong on a device. ``errors`` are the driver's exceptions."""

    def __init__(self, info: AdapterInfo, errors: tuple[type[Exception], ...]) -> None:
        self._where = f"{info.name} ({info.api})"
        self.errors = errors

    @contextmanager
    def reported(self, what: str, advice: str = "use fewer Gaussians or a smaller image") -> Iterator[None]:
        """Raises the driver's errors inside as DeviceError: out of memory, a lost device, a refused kernel."""
        try:
            yield
        except self.errors as error:
            cause = _cause(error)
            if "lost" in cause.lower():
                what, advice = "the device was lost", "start again; if it happens again, use a smaller image"
            raise DeviceError(
                f"{self._where}: {what}: {cause}; {advice}, update the driver, or continue with --device cpu"
            ) from error

    def check_size(self, size: int, largest: int) -> None:
        """Raise DeviceError for an array that is too large for the device."""
        if size > largest:
            raise DeviceError(
                f"{self._where}: one array would take {size / 1e6:.0f} MB, the device allows {largest / 1e6:.0f} MB; "
                "use fewer Gaussians, a smaller image, or --device cpu"
            )


def _cause(error: Exception) -> str:
    """The line of an error that gives the reason: wgpu lists the calls first and the cause last, followed by shader
    source."""
    causes = [
        line
        for line in map(str.strip, str(error).splitlines())
        if line and line[-1] != ":" and not re.match(r"In wgpu|Validation Error|.*[│┌═]", line)
    ]
    return causes[-1] if causes else type(error).__name__
