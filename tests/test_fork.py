"""Forked processes: the CPU works in them, a GPU of the parent refuses in one sentence, and all of them end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import session_on

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

_PREPARE = """
import gc, multiprocessing, os, signal, sys, threading, time
import numpy as np
import stipple
from stipple.backends.cpu import CpuBackend
from stipple.runtime import Session
from stipple import ir

rng = np.random.default_rng(0)
scene = stipple.Gaussians.from_linear(rng.normal(size=(20_000, 3)), 0.02, 0.8, rng.uniform(size=(20_000, 3)))
camera = stipple.Camera.from_fov(160, 120, 50).look_at([0, 0, -6], [0, 0, 0])

def picture(device="cpu"):
    return stipple.render_view(scene, camera, device=device).color.tobytes()

def status_of(child, run):
    "Exit status of a forked process that calls run; killed, and told, when it hangs."
    pid = child()
    if pid == 0:
        run()
        sys.stdout.flush()
        sys.exit(7)  # the whole way out of Python
    for _ in range(1200):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "it hangs"
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _PREPARE + code],
        env={**os.environ, "STIPPLE_NUM_THREADS": "3"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Exception ignored" not in done.stderr, done.stderr[-3000:]
    return done.stdout


def test_a_forked_process_renders_and_ends() -> None:
    """The threads of the parent's pool are not there, nor the scratch memory they hold."""
    out = run("""
before = picture()
def render():
    print(picture() == before)
print(status_of(os.fork, render), picture() == before)
""")
    assert out.split() == ["True", "7", "True"]


def test_workers_of_a_pool_render() -> None:
    out = run("""
before = picture()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print([p == before for p in pool.map_async(picture, ["cpu"] * 4).get(120)])
""")
    assert out.strip() == "[True, True, True, True]"


def test_a_fork_while_other_threads_work() -> None:
    """Whatever the other threads hold at that moment, children render the same bits."""
    out = run("""
def work(stop):
    "Runs without end, with an executable of its own."
    session = Session(CpuBackend(threads=3))
    graph = ir.Graph("busy")
    x = graph.input("x", ["N", 3])
    graph.output("y", ir.mean(ir.exp(ir.sin(x))))
    busy = session.compile(graph)
    feed = rng.normal(size=(300_000, 3)).astype(np.float32)
    while not stop.is_set():
        busy.run({"x": feed})

before = picture()
stop = threading.Event()
threads = [threading.Thread(target=work, args=[stop]) for _ in range(2)]
[t.start() for t in threads]
def render():
    assert picture() == before
print([status_of(os.fork, render) for _ in range(4)])
stop.set()
[t.join() for t in threads]
""")
    assert out.strip() == "[7, 7, 7, 7]"


def test_a_fork_while_another_thread_compiles() -> None:
    """A child that found Numba's lock held would wait for it for ever when it compiles or loads its first kernel."""
    out = run("""
from numba.core.compiler_lock import global_compiler_lock
held, forking = threading.Event(), threading.Event()
def compile():
    with global_compiler_lock:
        held.set()
        forking.wait(60)
        time.sleep(0.2)
thread = threading.Thread(target=compile)
thread.start()
held.wait(60)
forking.set()
print(status_of(os.fork, picture))
thread.join()
""")
    assert out.strip() == "7"


_GPU = """
before = picture("gpu")
def attempt(what):
    def run():
        try:
            what()
        except stipple.errors.DeviceError as error:
            print(error)
    return run
"""


def test_a_gpu_of_the_parent_refuses_in_the_child() -> None:
    """Everything the child does with it, and with any GPU, is one sentence; nothing hangs, not even the end."""
    session_on("gpu")
    out = run(
        _GPU
        + """
from stipple.backends.gpu import GpuBackend
graph = ir.Graph("held")
p = graph.param("p", [2000], "f32", np.ones(2000, np.float32))
graph.update(p, p * 2.0)
graph.output("sum", ir.sum(p))
held = Session("gpu").compile(graph)
held.run()
for what in (
    lambda: picture("gpu"), lambda: held.run(), lambda: held.get_param("p"),
    lambda: held.set_param("p", np.zeros(2000, np.float32)), lambda: Session("gpu").compile(graph).run(),
    lambda: GpuBackend("vulkan"),
):
    print(status_of(os.fork, attempt(what)), flush=True)
print(picture("gpu") == before)
"""
    )
    lines = out.strip().splitlines()
    assert lines[1::2] == ["7"] * 6, out
    for line in lines[:-1:2]:
        assert "cannot be used here" in line, out
        assert "spawn" in line
    assert lines[-1] == "True"


def test_a_child_of_a_process_with_a_gpu_renders_on_the_cpu_and_ends() -> None:
    session_on("gpu")
    out = run(
        _GPU
        + """
def render():
    gc.collect()
    assert len(picture("cpu")) == len(before)
print(status_of(os.fork, render), status_of(os.fork, gc.collect))
"""
    )
    assert out.split() == ["7", "7"]


def test_a_worker_that_opens_the_gpu_first_may_use_it() -> None:
    session_on("gpu")
    out = run("""
def render():
    print(len(picture("gpu")))
print(status_of(os.fork, render))
""")
    assert out.split() == [str(160 * 120 * 3 * 4), "7"]
