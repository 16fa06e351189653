"""The exceptions and warnings of Stipple.

Every error that a user can cause is a :class:`StippleError`; its message says what was wrong, where,
and what was expected.
"""

from __future__ import annotations


class StippleError(Exception):
    """Base class of every error that Stipple raises on purpose."""


class GraphError(StippleError, ValueError):
    """A graph was built or stored incorrectly: names the op, the argument, and what was expected."""


class FileFormatError(StippleError, ValueError):
    """A file is not what it should be: names the file and what is wrong with it."""


class UnsupportedOpError(StippleError, NotImplementedError):
    """A backend has no kernel for an op of the graph; raised when the graph is compiled."""


class FeedError(StippleError, ValueError):
    """A feed or a parameter of an executable has the wrong name, shape, dtype or values."""


class InputError(StippleError, ValueError):
    """A value passed to an op or function is outside what it accepts."""


class LimitWarning(UserWarning):
    """A limit that the caller set cut something from the result."""


class FormatWarning(UserWarning):
    """A file format cannot hold all of a scene: says what was left out."""


class CacheWarning(UserWarning):
    """Something could not be cached for the next process, which has to compute it again: says why and what to do."""


class DeviceError(StippleError, RuntimeError):
    """A device does not exist, is not available, or failed: names it and says what to do."""


class OutOfMemoryError(StippleError, MemoryError):
    """There is not enough memory: names what it was needed for."""
