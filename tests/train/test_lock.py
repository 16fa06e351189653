"""A run's folder belongs to one process at a time, which is named, and is free when that process ends, however."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from captures import truth, write_colmap
from stipple.cli import main
from stipple.errors import InputError
from stipple.train import lock
from stipple.train.rundir import RunFolder

_HOLD = """
import sys, time
from pathlib import Path
from stipple.train.rundir import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""
_HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from stipple.train.rundir import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(600)
"""
_CHILD_LEAVES = """
import os, sys, time
from pathlib import Path
from stipple.train.rundir import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    child = os.fork()
    if child == 0:
        raise SystemExit
    os.waitpid(child, 0)
    print("left", flush=True)
    time.sleep(600)
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")


@contextmanager
def other_process(program: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the folder, and the line it said."""
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_reports_who_trains_and_takes_over_when_that_one_is_killed(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path / "capture")
    out = tmp_path / "out"
    train = ["train", str(tmp_path / "capture"), "-o", str(out), "--steps", "10"]
    with other_process(_HOLD, out) as (holder, _):
        for arguments in (train, [*train, "--overwrite"]):
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 1
            message = f"{out}: process {holder.pid} on {socket.gethostname()}, since 2"
            assert message in result.output
            assert "is working here; wait until it ends, or choose another folder" in result.output
        assert [p.name for p in out.iterdir()] == ["run.lock"], "the second one changed nothing"
    assert (out / "run.lock").exists(), "what the killed process left"
    result = CliRunner().invoke(main, train)
    assert result.exit_code == 0, result.output
    assert "did not end in order" not in result.output
    assert not (out / "run.lock").exists()
    with other_process(_HOLD, out):
        for command in (["train", "-o", str(out), "--resume"], ["eval", str(out)]):
            result = CliRunner().invoke(main, command)
            assert result.exit_code == 1
            assert "is working here" in result.output


@posix
def test_a_killed_process_whose_child_lives_on_holds_nothing(tmp_path: Path) -> None:
    with other_process(_HOLD_AND_FORK, tmp_path) as (holder, child):
        try:
            with pytest.raises(InputError, match=f"process {holder.pid} "), RunFolder(tmp_path).held():
                pass
            holder.kill()
            holder.wait()
            with RunFolder(tmp_path).held():
                os.kill(int(child), 0)
        finally:
            os.kill(int(child), signal.SIGKILL)


@posix
def test_a_child_that_ends_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    with (
        other_process(_CHILD_LEAVES, tmp_path) as (holder, said),
        pytest.raises(InputError, match=f"process {holder.pid} "),
        RunFolder(tmp_path).held(),
    ):
        assert said == "left"


def test_one_process_holds_a_folder_once_and_the_holder_may_nest(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with (
        folder.held(),
        folder.held(),
        pytest.raises(InputError, match=f"process {os.getpid()} "),
        RunFolder(tmp_path).held(),
    ):
        pass
    with RunFolder(tmp_path).held():
        refused: list[bool] = []

        def elsewhere() -> None:
            try:
                with folder.held():
                    refused.append(False)
            except InputError:
                refused.append(True)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert refused == [True]
    assert list(tmp_path.iterdir()) == []


def test_another_thread_with_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder, refused = RunFolder(tmp_path), threading.Event()

    def elsewhere() -> None:
        try:
            with folder.held():
                pass
        except InputError:
            refused.set()

    with folder.held():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert refused.is_set()


def test_no_two_hold_it_though_the_file_comes_and_goes(tmp_path: Path) -> None:
    inside, seen, took = [0], [], [0]

    def work() -> None:
        while took[0] < 200:
            try:
                with RunFolder(tmp_path).held():
                    inside[0] += 1
                    seen.append(inside[0])
                    took[0] += 1
                    inside[0] -= 1
            except InputError:
                continue

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) >= 200
    assert set(seen) == {1}


def test_a_lock_on_a_file_that_was_just_removed_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, locked = lock.lock_file, []

    def raced(descriptor: int) -> None:
        real(descriptor)
        locked.append(descriptor)
        if len(locked) == 1:
            (tmp_path / "run.lock").unlink()  # by the one before, which lets go

    monkeypatch.setattr(lock, "lock_file", raced)
    with RunFolder(tmp_path).held():
        assert len(locked) == 2
        with pytest.raises(InputError, match="is working here"), RunFolder(tmp_path).held():
            pass


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a").held():
        assert (tmp_path / "a").is_dir()
    assert not (tmp_path / "a").exists()
    result = CliRunner().invoke(main, ["train", str(tmp_path), "-o", str(tmp_path / "b")])
    assert result.exit_code == 1
    assert not (tmp_path / "b").exists(), "the capture was none"
    for command in (["train", "-o", str(tmp_path / "c"), "--resume"], ["eval", str(tmp_path / "c")]):
        assert "holds no run" in CliRunner().invoke(main, command).output
    assert not (tmp_path / "c").exists()


def test_what_a_process_of_another_host_left_is_reported(tmp_path: Path) -> None:
    left = {"pid": 12, "host": "elsewhere", "since": "2026-01-02 03:04:05+00:00"}
    (tmp_path / "run.lock").write_text(json.dumps(left))
    with RunFolder(tmp_path).held() as note:
        assert note is not None
        assert "process 12 on elsewhere, since 2026-01-02 03:04:05+00:00, worked here and did not end properly" in note


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b"[" * 100_000, b'{"pid": "x"}', b"[1]"])
def test_a_damaged_lock_file_is_no_obstacle(left: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_bytes(left)
    with RunFolder(tmp_path).held() as note:
        assert note is None


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the file alone says who is at work."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_file", refuse)
    with RunFolder(tmp_path).held() as note:
        assert note is not None
        assert "this file system does not support locks" in note
        with (
            pytest.raises(InputError, match=r"if that process is gone, remove .*run\.lock"),
            RunFolder(tmp_path).held(),
        ):
            pass
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = {"pid": ended.pid, "host": socket.gethostname(), "since": "then"}
    (tmp_path / "run.lock").write_text(json.dumps(dead))
    with RunFolder(tmp_path).held() as note:
        assert note is not None, "taken over"
    (tmp_path / "run.lock").write_text(json.dumps({**dead, "host": "elsewhere"}))
    with pytest.raises(InputError, match="elsewhere"), RunFolder(tmp_path).held():
        pass


def test_leftovers_of_killed_writes_are_removed(tmp_path: Path) -> None:
    for name in (".checkpoint.safetensors.123-0a1b2c3d.tmp", ".scene.ply.99-ffffffff.tmp"):
        (tmp_path / name).write_bytes(b"half")
    kept = [".own.tmp", "scene.ply.tmp", ".picture.png.12-0a1b2c3d.tmp"]
    for name in kept:
        (tmp_path / name).write_bytes(b"a user's")
    with RunFolder(tmp_path).held():
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "run.lock"])
