"""Arrays that share a binding where a device binds few: which do, and how a kernel reads them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel, to_join
from stipple.ir.dtype import DType


def array(size: int, dtype: DType = DType.F32) -> GpuBuffer:
    return GpuBuffer(cast(Any, None), (size,), dtype)


def test_the_smallest_of_a_type_share() -> None:
    arrays = {"a": array(100), "b": array(3), "c": array(9), "i": array(4, DType.I32)}
    assert to_join(arrays, 4) == []
    assert to_join(arrays, 3) == [["b", "c"]]
    assert to_join(arrays, 2) == [["b", "c", "a"]]
    assert to_join({**arrays, "j": array(2, DType.I32)}, 3) == [["j", "i"], ["b", "c"]]


def test_a_kernel_of_many_arrays(gpu: Gpu) -> None:
    """Twelve read, one of them written too, and four more written: each keeps what the kernel did not touch."""
    rng = np.random.default_rng(0)
    values = {f"x{k}": rng.normal(size=5 + k).astype(np.float32) for k in range(12)}
    buffers = {n: gpu.memory.upload(a, DType.F32) for n, a in values.items()}
    results = {f"y{k}": gpu.memory.upload(np.full(7, k), DType.I32) for k in range(4)}
    body = "  z[i] = x0(i) + " + " + ".join(f"x{k}(i)" for k in range(1, 12)) + ";\n"
    body += "  " + " ".join(f"y{k}[i + 1u] = i32(i) * {k + 2};" for k in range(4))
    kernel = Kernel("many", body, overwrites=(("z", "x0"),))
    gpu.each(kernel, buffers, {"z": buffers["x0"], **results}, 4)
    wanted = values["x0"].copy()
    wanted[:4] = np.sum([values[f"x{k}"][:4].astype(np.float64) for k in range(12)], axis=0)
    np.testing.assert_allclose(gpu.memory.download(buffers["x0"]), wanted, rtol=1e-5, atol=1e-6)
    for k in range(4):
        held = np.full(7, k)
        held[1:5] = np.arange(4) * (k + 2)
        np.testing.assert_array_equal(gpu.memory.download(results[f"y{k}"]), held)
    for name in list(values)[1:]:
        np.testing.assert_array_equal(gpu.memory.download(buffers[name]), values[name])


def test_a_kernel_that_writes_too_many_arrays_is_a_mistake(gpu: Gpu) -> None:
    count = gpu.driver.max_arrays + 1
    results = {f"y{k}": gpu.memory.allocate((4,), DType.F32) for k in range(count)}
    with pytest.raises(AssertionError, match=f"kernel many has {count} arrays, {count - 1} can be bound"):
        gpu.each(Kernel("many", "".join(f"  {name}[i] = 0.0;" for name in results)), {}, results, 4)
