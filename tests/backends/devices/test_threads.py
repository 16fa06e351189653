"""One device, many Python threads: each gets what it would get alone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backends.devices.stepping import stepper_on
from scenes import forward_graph, random_scene
from stipple import ir
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.pool import Pool
from stipple.errors import InputError
from stipple.runtime import Session
from training import training_step

Result = dict[str, np.ndarray]
Work = Callable[[Session], Result]


def rendering(seed: int) -> Work:
    def work(session: Session) -> Result:
        scene = random_scene(seed, count=40 + 10 * seed, width=30, height=20)
        executable = session.compile(forward_graph(scene, "f32"))
        made: Result = {}
        for factor in (0.5, 4.0, 1.0):  # the second overflows the estimated capacity
            feeds = {**scene.feeds(np.float32), "scales": (factor * scene.arrays["scales"]).astype(np.float32)}
            made |= {f"{n} {factor}": a for n, a in executable.run(feeds).items()}
        return made

    return work


def training(session: Session) -> Result:
    graph, feeds = training_step()
    executable = session.compile(graph)
    losses = [executable.run({**feeds, "step": float(k)})["loss"] for k in range(1, 9)]
    return {"losses": np.array(losses), **{n: executable.get_param(n) for n in graph.params}}


def stepping(session: Session) -> Result:
    stepper, frames = stepper_on(session, "mcmc", 8)
    for step in range(1, 5):
        stepper.run(step, step % 3, frames[step % 3])
    return stepper.arrays()


def failing(session: Session) -> Result:
    """Ids that only the device knows, every second time out of range."""
    graph = ir.Graph("t")
    table = graph.param("table", [50], "f32", np.zeros(50, np.float32))
    ids = ir.cast(graph.input("ids", [400]), "i32")
    graph.update(table, ir.scatter_add(table, ids, graph.input("rows", [400])))
    executable = session.compile(graph)
    feeds = {"ids": (np.arange(400) % 50).astype(np.float32), "rows": np.ones(400, np.float32)}
    for _ in range(8):
        executable.run(feeds)
        with pytest.raises(InputError, match="ids must be between 0 and 49, got 50 to 50"):
            executable.run({**feeds, "ids": feeds["ids"] + 1})
        cycle: list[Any] = [session.backend.upload(np.ones(3, np.float32), ir.DType.F32)]
        cycle.append(cycle)  # memory that whichever thread collects garbage gives back
    return {"table": executable.get_param("table")}


WORKS: Sequence[Work] = (rendering(1), training, failing, rendering(2), stepping, failing)


def at_once(works: Sequence[Work], session: Session) -> list[Result]:
    """All of it in threads that start together."""
    together = threading.Barrier(len(works))

    def begin(work: Work) -> Result:
        together.wait(timeout=60)
        return work(session)

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(begin, work) for work in works]]


def test_threads_get_what_they_would_get_alone(gpu_session: Session) -> None:
    alone = [work(gpu_session) for work in WORKS]
    threshold = gc.get_threshold()
    gc.set_threshold(50)  # finalizers run often, and in any thread
    try:
        together = at_once(WORKS, gpu_session)
    finally:
        gc.set_threshold(*threshold)
    for number, (given, wanted) in enumerate(zip(together, alone, strict=True)):
        assert given.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(given[name], array, err_msg=f"work {number}: {name}")


def test_sessions_of_their_own(gpu_session: Session) -> None:
    """Several sessions on one device are no different."""
    graph, feeds = training_step()
    wanted = gpu_session.compile(graph).run({**feeds, "step": 1.0})["loss"]

    def work(_: Session) -> Result:
        return {"loss": Session(gpu_session.backend).compile(graph).run({**feeds, "step": 1.0})["loss"]}

    assert all(made["loss"] == wanted for made in at_once([work] * 4, gpu_session))


def test_a_run_is_not_interrupted(gpu: Gpu) -> None:
    """Another thread waits until it has ended, also if it raises."""
    order: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(timeout=60)
        gpu.memory.wait()
        order.append("other")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def run() -> None:
        with gpu.runs.running():
            inside.set()
            assert not done.wait(timeout=0.2)
            gpu.memory.wait()
            order.append("run")
            raise InputError("ends")

    with pytest.raises(InputError, match="ends"):
        run()
    thread.join(timeout=60)
    assert order == ["run", "other"]


def test_memory_may_come_back_in_the_middle_of_anything() -> None:
    """Python finalises where it likes: while memory is made, too, and in threads that hold no lock."""
    blocks: list[Any] = []

    def create(size: int) -> bytearray:
        blocks.clear()
        return bytearray(size)

    pool = Pool(create, 1 << 20)
    lock = threading.Lock()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held = []
        for size in rng.integers(1, 5000, 400):
            with lock:
                block = pool.take(int(size), upload=bool(size % 2))
                if size % 7 == 0:
                    pool.tick()
                if size % 31 == 0:
                    pool.drop(pool.clock - 2)
            assert len(block.raw) >= size
            held.append(block)
            blocks.append(block)
            del block
            if len(held) > 20:
                del held[: int(rng.integers(1, 20))]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    blocks.clear()
    gc.collect()
    pool.tick()  # uploads rest until then
    pool.drop()
    assert pool.lent_bytes == 0
    assert pool.free_bytes == 0
