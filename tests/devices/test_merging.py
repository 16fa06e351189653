"""Arrays that share a binding where a device binds few: which do, and how a kernel finds them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from stipple.backends.gpu import GpuBackend
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.merging import Bound, redirected, to_merge
from stipple.ir.dtype import DType
from stipple.runtime import Session


def bound(name: str, size: int, writes: bool = False, dtype: DType = DType.F32) -> Bound:
    return Bound(name, GpuBuffer(cast(Any, None), (size,), dtype), writes)


def names(groups: list[list[Bound]]) -> list[set[str]]:
    return [{b.name for b in group} for group in groups]


def test_the_smallest_of_a_kind_share() -> None:
    arrays = [bound("a", 100), bound("b", 3), bound("c", 9), bound("i", 4, dtype=DType.I32), bound("o", 100, True)]
    assert to_merge(arrays, 5) == []
    assert names(to_merge(arrays, 4)) == [{"b", "c"}]
    assert names(to_merge(arrays, 3)) == [{"a", "b", "c"}]
    written = [bound("o", 10, True), bound("p", 10, True), bound("a", 15), bound("b", 15)]
    assert names(to_merge(written, 3)) == [{"a", "b"}], "what is written is copied twice"


def test_accesses_are_redirected() -> None:
    code = "out[i] = a[b[2u * i] + 1] + data[i]; // a, data"
    code = redirected(code, "a", "f32_read", "P.start_a")
    assert code == "out[i] = f32_read[P.start_a + u32(b[2u * i] + 1)] + data[i]; // a, data"
    assert "u32(i32_read[P.start_b + u32(2u * i)] + 1)" in redirected(code, "b", "i32_read", "P.start_b")


def test_a_kernel_of_many_arrays(gpu_session: Session) -> None:
    """Twelve read, one of them written too, and four more written: each keeps what the kernel did not touch."""
    backend = gpu_session.backend
    assert isinstance(backend, GpuBackend)
    gpu, rng = backend.gpu, np.random.default_rng(0)
    values = {f"x{k}": rng.normal(size=5 + k).astype(np.float32) for k in range(12)}
    buffers = {n: gpu.upload(a, DType.F32) for n, a in values.items()}
    made = {f"y{k}": gpu.upload(np.full(7, k), DType.I32) for k in range(4)}
    body = "  z[i] += " + " + ".join(f"x{k}[i]" for k in range(1, 12)) + ";\n"
    body += "  " + " ".join(f"y{k}[i + 1u] = i32(i) * {k + 2};" for k in range(4))
    gpu.each("many", body, {**buffers, "x0": buffers["x0"]}, {"z": buffers["x0"], **made}, 4)
    wanted = values["x0"].copy()
    wanted[:4] = np.sum([values[f"x{k}"][:4].astype(np.float64) for k in range(12)], axis=0)
    np.testing.assert_allclose(gpu.download(buffers["x0"]), wanted, rtol=1e-5, atol=1e-6)
    for k in range(4):
        held = np.full(7, k)
        held[1:5] = np.arange(4) * (k + 2)
        np.testing.assert_array_equal(gpu.download(made[f"y{k}"]), held)
    for name in list(values)[1:]:
        np.testing.assert_array_equal(gpu.download(buffers[name]), values[name])


@pytest.mark.parametrize("code", ["a[a[0]]", "b[i] + a[1u + u32(a[i])]"])
def test_an_array_in_its_own_index_is_a_mistake(code: str) -> None:
    with pytest.raises(AssertionError, match="a stands in its own index"):
        redirected(code, "a", "f32_read", "0u")
