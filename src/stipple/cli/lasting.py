"""Output to a terminal or a pipe that may be closed while there is work to finish."""

from __future__ import annotations

from typing import IO, Any, cast


class _Lasting:
    """A stream whose writes are discarded without an error once nobody reads them any more."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._gone = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                self._stream.write(text)
            except OSError:  # a closed pipe or terminal; a UnicodeEncodeError is another matter
                self._gone = True
        return len(text)

    def flush(self) -> None:
        if not self._gone:
            try:
                self._stream.flush()
            except OSError:
                self._gone = True


def lasting(stream: IO[str]) -> IO[str]:
    """The stream, but without errors when its terminal or pipe is closed."""
    return cast("IO[str]", _Lasting(stream))
