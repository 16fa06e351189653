"""Compiled kernels on disk: damage, folders that cannot be written, a full disk, several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from numba import njit
from numba.core import config, types

from stipple.backends.cpu import cache
from stipple.backends.cpu import compile as compiling
from stipple.errors import CacheWarning

ARGUMENTS = (types.int64,)


def _square(x: int) -> int:
    return x * x


def fresh() -> Any:
    """A kernel as a new process finds it: nothing is loaded."""
    dispatcher = njit(**compiling.OPTIONS)(_square)
    dispatcher._cache = cache.KernelCache(_square)
    return dispatcher


def loaded(dispatcher: Any) -> bool:
    """Whether the kernel came from disk; compiles it otherwise."""
    dispatcher.compile(ARGUMENTS)
    assert dispatcher(12) == 144
    return sum(dispatcher.stats.cache_hits.values()) == 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder that kernels are kept in; not there yet."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    (only,) = cache.Store.folders()
    only.rmdir()
    monkeypatch.setattr(cache, "STORE", cache.Store())
    monkeypatch.setattr(cache.Store, "folders", staticmethod(lambda: [only]))
    return only


def test_a_kernel_is_compiled_once(folder: Path) -> None:
    assert not loaded(fresh())
    assert loaded(fresh())
    assert [p.suffix for p in folder.iterdir()] == [".kernel"]


def test_a_variant_that_is_compiled_late_is_named_once(folder: Path) -> None:
    names: list[str] = []
    for _ in range(2):
        dispatcher = njit(**compiling.OPTIONS)(_square)
        dispatcher._cache = cache.KernelCache(_square, names.append)
        assert dispatcher(12) == 144
    assert len(names) == 1
    assert names[0].endswith("_square")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "in its beginning": lambda data: data[:20],
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "garbage": lambda data: bytes(i * i * 37 % 251 for i in range(len(data))),
    "one bit": lambda data: data[:-500] + bytes([data[-500] ^ 4]) + data[-499:],
    "zeros after the beginning": lambda data: data[:100] + bytes(len(data) - 100),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_file_is_made_again(folder: Path, damage: str) -> None:
    assert not loaded(fresh())
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](whole))
    assert not loaded(fresh())
    assert loaded(fresh())


def test_a_file_that_is_a_folder_does_no_harm(folder: Path) -> None:
    assert not loaded(fresh())
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.warns(CacheWarning):
        assert not loaded(fresh())


def test_changed_sources_compile_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another file too: functions are compiled into the kernels that call them."""
    assert not loaded(fresh())
    monkeypatch.setattr(cache, "_sources", lambda: "changed")
    assert not loaded(fresh())
    assert len(list(folder.iterdir())) == 1
    assert loaded(fresh())


def test_another_vector_width_has_its_own_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loaded(fresh())
    monkeypatch.setenv("STIPPLE_SIMD_WIDTH", "2")
    assert not loaded(fresh())
    assert len(list(folder.iterdir())) == 2


def test_where_nothing_can_be_written_one_sentence_says_so(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_bytes(b"")  # a file where the folder would be, for tests may run as root, who may write everywhere
    with pytest.warns(CacheWarning, match=f"cannot be kept.*{folder.name}.*NUMBA_CACHE_DIR") as told:
        assert [loaded(fresh()), loaded(fresh())] == [False, False]
    assert len(told) == 1


def test_a_full_disk_costs_the_cache_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.warns(CacheWarning, match="No space left on device"):
        assert not loaded(fresh())
    assert list(folder.iterdir()) == []


def test_the_next_folder_is_taken_and_all_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(cache, "STORE", cache.Store())
    monkeypatch.setattr(cache.Store, "folders", staticmethod(lambda: [first, second]))
    first.write_bytes(b"")
    assert not loaded(fresh())
    assert len(list(second.iterdir())) == 1
    assert loaded(fresh())


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (given,) = cache.Store.folders()
    assert given.parent == tmp_path
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file"))
    refused, beside, _ = cache.Store.folders()
    assert refused.parent == tmp_path / "file"
    assert beside == Path(cache.__file__).parent / "__pycache__"
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert cache.Store.folders()[0] == beside


def _compile_into(folder: str, number: int) -> bool:
    cache.Store.folders = staticmethod(lambda: [Path(folder)])  # type: ignore[method-assign]
    return loaded(fresh())


def test_processes_that_compile_at_the_same_time(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_compile_into, [(str(tmp_path), i) for i in range(6)])
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".kernel"
    assert _in_new_process(tmp_path)


def _in_new_process(folder: Path) -> bool:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_compile_into, [str(folder), 0])


def test_a_home_that_does_not_exist(tmp_path: Path) -> None:
    """A kernel is compiled and runs with an unwritable home and a cache folder that cannot be created."""
    (tmp_path / "file").write_bytes(b"")
    code = (
        "import numpy as np\n"
        "from stipple.backends.cpu import image, threads\n"
        "from stipple.ir.ops.image import LossOperands, LossResults\n"
        "a = np.ones((4, 4, 3), np.float32)\n"
        "x, out = LossOperands(a, 3 * a), LossResults(np.empty((), np.float32))\n"
        "image.l1(x, {}, threads.Threads(1), out)\n"
        "print(float(out.loss))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XDG_CACHE_HOME"}
    environment |= {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": str(tmp_path / "file" / "below")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip() == "2.0", done.stderr[-3000:]
