"""Names and values from files and users, in a form that is safe to print in messages."""

from __future__ import annotations

import re
import reprlib

# control characters, line separators, marks that change the direction of text, bytes that are not UTF-8
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with control characters and characters that cannot be shown as escapes such as \n, \x1b and \xff."""
    return _UNSEEN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8 (os.fsdecode)
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii")


class _Short(reprlib.Repr):
    """Reprs that are short enough for a message, whatever the value's depth and size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong, self.maxother = 3, 80, 40, 80

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 1000:  # Python refuses to write out the longest
            return f"a whole number of {x.bit_length()} bits"
        return super().repr_int(x, level)


_SHORT = _Short()


def shown(value: object) -> str:
    """A value from a file for use in a message: short, on one line, without control characters."""
    return visible(_SHORT.repr(value))
