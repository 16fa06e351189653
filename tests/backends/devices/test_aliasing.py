"""Results in the memory of operands: only where each element is written by the one who alone has read it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stipple import ir
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel
from stipple.ir.dtype import DType
from stipple.runtime import Session

Param = Callable[..., ir.Value]


def ids(graph: ir.Graph) -> ir.Value:
    return graph.constant(np.array([3, 1, 0, 2], np.int32))


def adam(p: ir.Value, grad: ir.Value, m: ir.Value, v: ir.Value, lr: ir.Value | float = 0.1) -> ir.Value:
    made = ir.adam(p, grad, m, v, lr, p.graph.constant(2.0, "f32"))
    p.graph.update(m, made.m)
    p.graph.update(v, made.v)
    return made.param


UPDATES: dict[str, Callable[[ir.Value, Param], ir.Value]] = {
    "scatter_add of itself": lambda p, new: ir.scatter_add(p, ids(p.graph), p),
    "scatter_add of its view": lambda p, new: ir.scatter_add(p, ids(p.graph), ir.stop_gradient(p)),
    "scatter_add of its halves": lambda p, new: ir.scatter_add(
        ir.reshape(ir.scatter_add(p, ids(p.graph), ir.reshape(ir.reshape(p, [2, 6]), [4, 3])), [4, 3]), ids(p.graph), p
    ),
    "scatter_add by its own values": lambda p, new: ir.scatter_add(
        p, ir.cast(ir.reshape(ir.narrow(ir.clamp(p, 0.0, 3.0), 1, 0, 1), [4]), "i32"), new("rows", 4, 3)
    ),
    "gather of itself": lambda p, new: ir.gather(p, ids(p.graph)),
    "its square": lambda p, new: p * p,
    "a row of itself": lambda p, new: p + ir.narrow(p, 0, 2, 1),
    "a column of itself": lambda p, new: p * ir.narrow(p, 1, 0, 1),
    "its transpose": lambda p, new: p + ir.reshape(ir.transpose(p), [4, 3]),
    "its view": lambda p, new: p + ir.reshape(ir.reshape(p, [12]), [4, 3]),
    "its largest": lambda p, new: p - ir.reduce_max(p, 0, keepdims=True),
    "adam by itself": lambda p, new: adam(p, p, new("m", 4, 3), new("v", 4, 3)),
    "adam by its view": lambda p, new: adam(p, ir.stop_gradient(p), new("m", 4, 3), new("v", 4, 3)),
    "adam by its columns": lambda p, new: adam(
        p, new("grad", 4, 3), new("m", 4, 3), new("v", 4, 3), ir.reshape(ir.narrow(p, 0, 1, 1), [3])
    ),
    "noise of itself": lambda p, new: ir.splat_noise(
        p, new("quats", 4, 4), p, new("opacities", 4), 1.0, p.graph.constant(np.array([1, 2], np.int32))
    ),
}


@pytest.mark.parametrize("passes", ["none", "standard"])
@pytest.mark.parametrize("name", UPDATES)
def test_parameters_made_from_themselves(name: str, passes: str, session: Session) -> None:
    graph, rng = ir.Graph("t"), np.random.default_rng(5)

    def new(name: str, *shape: int) -> ir.Value:
        return graph.param(name, shape, "f32", rng.uniform(0.2, 2, shape).astype(np.float32))

    p = new("p", 4, 3)
    graph.update(p, UPDATES[name](p, new))
    ends = []
    for device in (Session(session.backend, debug=True), Session("reference")):
        executable = device.compile(graph, passes=[] if passes == "none" else None)
        for _ in range(2):
            executable.run()
        ends.append({n: executable.get_param(n) for n in graph.params})
    for key, wanted in ends[1].items():
        np.testing.assert_allclose(ends[0][key], wanted, rtol=1e-5, atol=1e-6, err_msg=key)


def test_memory_is_shared_only_where_the_kernel_says_that_it_may_be(gpu: Gpu) -> None:
    values = gpu.memory.upload(np.arange(600, dtype=np.float32), DType.F32)
    one_more = Kernel("one_more", "  out[i] = source(i) + 1.0;", overwrites=(("out", "source"),))
    gpu.each(one_more, {"source": values}, {"out": values}, 600)
    np.testing.assert_array_equal(gpu.memory.download(values), np.arange(1, 601))
    reverse = Kernel("reverse", "  out[i] = source(P.count - 1u - i);")
    with pytest.raises(AssertionError, match="kernel reverse: out may not overwrite source"):
        gpu.each(reverse, {"source": values}, {"out": values}, 600)
    with pytest.raises(AssertionError, match="kernel any: out may not overwrite source"):
        gpu.run(Kernel("any", ""), {"source": values}, {"out": values}, 1, {})
    with pytest.raises(AssertionError, match="writes twice to the same memory"):
        gpu.each(Kernel("twice", "  a[i] = 0.0; b[i] = 0.0;"), {}, {"a": values, "b": values}, 600)
    with gpu.runs.overwriting(), pytest.raises(AssertionError, match="cannot be skipped"):
        gpu.run(Kernel("any", ""), {}, {"out": values}, 1, {})
