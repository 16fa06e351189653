"""Running out of memory, as far as Python notices it: errors that say what the memory was needed for."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2

from stipple.errors import OutOfMemoryError

_CV2_CODE = -4  # Error::StsNoMem


def shortage(error: BaseException) -> str | None:
    """The message of an error about missing memory, perhaps empty; None for any other error."""
    if isinstance(error, MemoryError):
        return str(error)
    if isinstance(error, cv2.error) and getattr(error, "code", None) == _CV2_CODE:
        return str(getattr(error, "err", ""))
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return error.strerror or ""
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return str(error)
    return None


@contextmanager
def memory_for(what: str | Callable[[], str]) -> Iterator[None]:
    """Convert errors about missing memory into OutOfMemoryError; ``what`` says what it was needed for and what
    helps."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, OSError, RuntimeError, cv2.error) as error:
        reason = shortage(error)
        if reason is None:
            raise
        needed = what if isinstance(what, str) else what()
        raise OutOfMemoryError(
            f"not enough memory for {needed}" + (f" ({reason.rstrip('.')})" if reason else "")
        ) from None
