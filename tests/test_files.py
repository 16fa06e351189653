"""Writing files: complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from stipple.errors import StippleError
from stipple.files import atomic_write, remove_leftovers

STEPS, EVERY = 60, 20


def test_writers_of_one_file_do_not_share_what_they_write(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250)
    with atomic_write(target) as first, atomic_write(target) as second:
        first.write(b"first")
        second.write(b"second")
    assert target.read_bytes() == b"first", "the one that was done last"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(StippleError), atomic_write(target):
        raise StippleError("stopped")
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]
    (tmp_path / f".{'n' * 40}.1-abcd.tmp").write_bytes(b"left")
    remove_leftovers(target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_older_file_is_kept_without_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("stipple.files.os.link", refuse)
    for text in (b"1", b"2", b"3"):
        with atomic_write(tmp_path / "a", tmp_path / "b") as file:
            file.write(text)
    assert (tmp_path / "a").read_bytes() == b"3"
    assert (tmp_path / "b").read_bytes() == b"2"
