"""What is the CPU backend's own: threads, vector widths."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backends.devices.held_to_reference import run_all
from scenes import random_scene
from stipple.backends.cpu import CpuBackend
from stipple.backends.cpu.threads import Threads
from stipple.errors import DeviceError
from stipple.runtime import Session

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("projection", ["ewa", "ray"])
def test_the_same_bits_for_any_number_of_threads(projection: str) -> None:
    scene = random_scene(112, count=20_000, width=150, height=111, sh_degree=2, projection=projection)
    scene.arrays["scales"] *= 0.2
    results = [run_all(scene, Session(CpuBackend(threads=n))) for n in (1, 2, 3, 8)]
    assert len(results[0]["sorted_ids"]) > 10_000
    for other in results[1:]:
        for name, array in results[0].items():
            assert array.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("born_dead", [False, True])
def test_work_is_done_where_no_thread_can_start(born_dead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, starting a thread fails, or the thread ends before it has done anything."""

    def start(thread: threading.Thread) -> None:
        if not born_dead:
            raise RuntimeError("can't start new thread")

    threads = Threads(4)
    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        threads.blocks(10, 1, lambda start, end: done.append(start))
    assert sorted(done) == list(range(10))
    assert threads._pool is not None
    monkeypatch.setattr(threads._pool, "submit", _refuse)
    with pytest.raises(RuntimeError, match="something else"):
        threads.blocks(10, 1, done.append)


def _refuse(work: object) -> None:
    raise RuntimeError("something else")


def test_threads_by_environment_and_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIPPLE_NUM_THREADS", "3")
    assert CpuBackend().threads.count == 3
    assert CpuBackend(threads=2).threads.count == 2
    monkeypatch.setenv("STIPPLE_NUM_THREADS", "many")
    with pytest.raises(DeviceError, match="STIPPLE_NUM_THREADS: expected a number"):
        CpuBackend()
    with pytest.raises(DeviceError, match="threads: expected"):
        CpuBackend(threads=0)


def test_a_wrong_vector_width_is_refused() -> None:
    environment = {**os.environ, "STIPPLE_SIMD_WIDTH": "5"}
    done = subprocess.run(
        [sys.executable, "-c", "import stipple.backends.cpu"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "STIPPLE_SIMD_WIDTH: expected 4, 8 or 16, got '5'" in done.stderr


def test_generated_sh_are_up_to_date() -> None:
    module = runpy.run_path(str(ROOT / "tools" / "generate_sh.py"))
    assert module["TARGET"].read_text() == module["generate"]()
