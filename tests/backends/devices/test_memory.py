"""GPU memory that is used again."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backends.devices.stepping import stepper_on
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.pace import Pace
from stipple.backends.gpu.pool import Pool, rounded
from stipple.errors import DeviceError
from stipple.ir.dtype import DType
from stipple.runtime import Session


@dataclass(eq=False)
class Raw:
    """As wgpu's buffers are: gone for good when Python lets go of them."""

    size: int
    released: bool = False

    def __del__(self) -> None:
        self.released = True


def test_sizes_are_rounded_by_at_most_an_eighth() -> None:
    sizes = [*range(1, 3000), *(2**k + d for k in range(8, 33) for d in (-1, 0, 1))]
    for size in sizes:
        made = rounded(size)
        assert made >= size
        assert made <= max(256, 1.125 * size + 16)
        assert made % 16 == 0
        assert rounded(made) == made


def test_freed_memory_goes_out_again() -> None:
    pool = Pool(Raw, 10_000)
    first = pool.take(1000)
    raw = first.raw
    second = pool.take(1000)
    assert second.raw is not raw
    del first
    assert pool.free_bytes == raw.size
    assert pool.take(1010).raw is raw, "nearly the same size"
    assert pool.created == 2


def test_memory_comes_back_whole_from_a_cycle_of_garbage() -> None:
    """As the frames of an exception are: Python finalises all of the cycle, in any order."""
    pool = Pool(Raw, 10_000)
    for _ in range(20):
        cycle: list[object] = [pool.take(1000)]
        cycle.append(cycle)
        del cycle
        gc.collect(0)
    assert pool.free_bytes == rounded(1000)
    assert not pool.take(1000).raw.released
    assert pool.created == 1


def test_uploads_wait_for_the_submission() -> None:
    """An upload overtakes dispatches that were not submitted: it must not write into what they still read."""
    pool = Pool(Raw, 10_000)
    block = pool.take(64, upload=True)
    raw = block.raw
    del block
    assert pool.take(64, upload=True).raw is not raw
    pool.tick()
    again = pool.take(64, upload=True)
    assert again.raw is raw
    assert pool.take(64).raw is not raw, "and has memory of its own"


def test_idle_memory_is_dropped_and_used_memory_is_not() -> None:
    pool = Pool(Raw, 10_000)
    del_me, held = pool.take(5000), pool.take(1000)
    del del_me
    dropped: list[Raw] = []
    for _ in range(2000):
        block = pool.take(300)
        del block
        dropped += pool.tick()
    assert [raw.size for raw in dropped] == [rounded(5000)], "once, so that its bindings can be forgotten"
    assert pool.free_bytes == rounded(300)
    del held
    assert pool.free_bytes == rounded(300) + rounded(1000)
    assert pool.drop()
    assert pool.free_bytes == 0


def test_no_block_is_larger_than_the_device_allows() -> None:
    pool = Pool(Raw, 10_000)
    block = pool.take(9_999)
    assert block.raw.size == 10_000
    del block
    pool.take(9_990)
    assert pool.created == 1


def test_long_work_is_submitted_in_pieces_and_quick_work_at_once() -> None:
    pace, now, submissions = Pace(), 0.0, []
    for second_per_dispatch in [1e-4] * 8 + [0.02] * 8 + [1.0] * 8 + [1e-4] * 12:
        left, count = 86, 0
        while left:
            dispatches = min(left, pace.current)
            pace.submitted(dispatches, now)
            now += dispatches * second_per_dispatch
            left, count = left - dispatches, count + 1
        pace.done(now)
        submissions.append(count)
    assert submissions[0] == 6, "carefully at first"
    assert submissions[7] == 1
    assert 7 <= submissions[15] <= 17, "1.7 s in pieces of a quarter or less"
    assert submissions[23] == 86
    assert submissions[-1] == 1
    assert pace.current == pace.maximum


def test_steady_training_makes_nothing_new(gpu_session: Session, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither buffers nor bindings nor constants, but where the capacity for tile entries changes, once the pools have
    let go of what they have not lent for a while."""
    gc.collect()
    gpu.memory.release()  # what other tests left would be taken first
    stepper, frames = stepper_on(gpu_session, "default", 1000)
    made: list[str] = []
    for name in ("create_buffer", "create_bind_group", "create_buffer_with_data"):
        original = getattr(gpu.driver.device, name)
        monkeypatch.setattr(gpu.driver.device, name, lambda *a, n=name, o=original, **k: made.append(n) or o(*a, **k))
    capacities, steady = [], 0
    for step in range(1, 60):
        made.clear()
        capacities.append(dict(gpu.runs.capacity.estimates))
        stepper.run(step, 0, frames[0])
        if step > 30 and capacities[-16:] == 16 * capacities[-1:]:
            steady += 1
            assert not made, step
    assert steady > 10


def test_memory_is_made_free_when_the_device_has_none(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, device = gpu.memory, gpu.driver.device
    memory.allocate((777_777,), DType.F32)  # goes back to the pool at once
    assert memory.pool.free_bytes >= 4 * 777_777
    create, failures = device.create_buffer, [1]

    def sometimes(**options: Any) -> object:
        if failures:
            failures.pop()
            raise RuntimeError("Not enough memory left")
        return create(**options)

    monkeypatch.setattr(device, "create_buffer", sometimes)
    made = memory.upload(np.arange(999_999, dtype=np.float32), DType.F32)
    assert memory.pool.free_bytes < 4 * 777_777
    np.testing.assert_array_equal(memory.download(made), np.arange(999_999, dtype=np.float32))
    failures += [1, 1]
    with pytest.raises(DeviceError, match=r"5 MB could not be allocated: Not enough memory left; use fewer Gaussians"):
        memory.allocate((1_234_567,), DType.F32)
