"""A capture's folder, and the files that the capture may refer to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stipple.errors import FileFormatError
from stipple.text import shown


@dataclass(frozen=True)
class CaptureFolder:
    """Files that a capture names must be in its folder, unless ``allow_outside``: a downloaded capture must not read
    the rest of the disk. Links are judged by their own location, not by their target: the user created them.
    """

    root: Path
    allow_outside: bool = False

    def file(self, name: object, where: str, base: Path | None = None) -> Path:
        """The path for a name relative to ``base`` (the folder itself by default).

        Raises FileFormatError, beginning with ``where``, if it is not a file name or leads outside both.
        """
        if not isinstance(name, str) or not _can_be_a_name(name):
            raise FileFormatError(f"{where}: expected the name of a file, got {shown(name)}")
        start = self.root if base is None else base
        if self.allow_outside:
            return start / name
        path = Path(os.path.normpath(start / name))  # so that the path that is checked is the one that is opened
        if not any(_within(path, folder) for folder in (self.root, start)):
            raise FileFormatError(
                f"{where}: {shown(name)} is outside the capture's folder; if you trust the capture, read it with "
                "--allow-outside (in Python: CaptureOptions(allow_outside=True))"
            )
        return path

    def name(self, path: Path) -> str:
        """The name of the view with this photo: its path inside the folder, else its full path."""
        absolute, root = Path(os.path.abspath(path)), os.path.abspath(self.root)
        return str(absolute.relative_to(root)) if absolute.is_relative_to(root) else str(path)


def _can_be_a_name(name: str) -> bool:
    try:
        return bool(name.strip()) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can contain
        return False


def _within(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
