"""Text for a terminal or a pipe that may go away while there is work to be finished."""

from __future__ import annotations

from typing import IO, Any, cast


class _Lasting:
    """A stream whose writes are lost, and no error, once nobody reads them any more."""

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
    """The stream, but a terminal that is closed and a pipe that is left stop nothing."""
    return cast("IO[str]", _Lasting(stream))
