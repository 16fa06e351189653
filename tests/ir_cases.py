"""Every op but the splat, image and optimiser ones, on small inputs: shared by tests of gradients and of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stipple import ir

Build = Callable[..., ir.Value]


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.3, 2, shape)


def signed(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape) * 1.5 + 0.01


def ids(graph: ir.Graph) -> ir.Value:
    return graph.constant(np.array([[2, 0], [2, 3]], np.int32))


CASES: dict[str, tuple[Build, Sequence[np.ndarray]]] = {
    "neg": (lambda x: -x, [signed(3, 2)]),
    "abs": (ir.abs, [signed(3, 2)]),
    "sign": (lambda x: ir.sign(x) * x, [signed(3, 2)]),
    "ceil": (lambda x: ir.ceil(x) * x, [signed(3, 2)]),
    "floor": (lambda x: ir.floor(x) * x, [signed(3, 2)]),
    "exp": (ir.exp, [signed(3, 2)]),
    "log": (ir.log, [positive(3, 2)]),
    "sqrt": (ir.sqrt, [positive(3, 2)]),
    "square": (ir.square, [signed(3, 2)]),
    "reciprocal": (ir.reciprocal, [positive(3, 2)]),
    "sin": (ir.sin, [signed(3, 2)]),
    "cos": (ir.cos, [signed(3, 2)]),
    "tanh": (ir.tanh, [signed(3, 2)]),
    "sigmoid": (ir.sigmoid, [signed(3, 2)]),
    "softplus": (ir.softplus, [signed(3, 2)]),
    "relu": (ir.relu, [signed(3, 2)]),
    "add": (lambda a, b: a + b, [signed(3, 1), signed(2, 1, 4)]),
    "sub": (lambda a, b: a - b, [signed(3, 1), signed(4)]),
    "mul": (lambda a, b: a * b, [signed(3, 1), signed(2, 1, 4)]),
    "div": (lambda a, b: a / b, [signed(3, 1), positive(2, 3, 4)]),
    "pow": (lambda a, b: a**b, [positive(3, 1), signed(1, 4)]),
    "pow of a negative": (lambda a: a**3.0, [-positive(3, 2)]),
    "maximum": (ir.maximum, [signed(3, 1), signed(4)[::-1].copy()]),
    "minimum": (ir.minimum, [signed(3, 1), signed(4)[::-1].copy()]),
    "isfinite": (lambda x: ir.where(ir.isfinite(x), x * x, 0.0), [signed(3, 2)]),
    "where": (lambda a, b: ir.where(a > 0.2, a, b), [signed(3, 4), signed(4)]),
    "clamp": (lambda x: ir.clamp(x, -0.5, 0.8), [signed(5, 4)]),
    "cast": (lambda x: ir.cast(ir.cast(x, "i32"), "f64") * x, [signed(5)]),
    "reshape": (lambda x: ir.reshape(x, [2, 6]), [signed(3, 4)]),
    "transpose": (lambda x: ir.transpose(x, [2, 0, 1]), [signed(2, 3, 4)]),
    "broadcast": (lambda x: ir.broadcast_to(x, [5, 3, 4]), [signed(3, 1)]),
    "narrow": (lambda x: ir.narrow(x, 1, 1, 2), [signed(3, 4)]),
    "pad": (lambda x: ir.pad(x, 1, 2, 1), [signed(3, 4)]),
    "concat": (lambda a, b: ir.concat([a, b, a], 1), [signed(3, 4), signed(3, 2)]),
    "split": (lambda x: ir.split(x, 1, 2)[0] * 2.0 + ir.split(x, 1, 2)[1], [signed(3, 4)]),
    "gather": (lambda x: ir.gather(x, ids(x.graph)), [signed(4, 3)]),
    "scatter_add": (lambda a, b: ir.scatter_add(a, ids(a.graph), b), [signed(4, 3), signed(2, 2, 3)]),
    "stop_gradient": (lambda a: ir.stop_gradient(a) + a * 0.0 + a - a, [signed(3)]),
    "sum": (lambda x: ir.sum(x, [0, 2]), [signed(2, 3, 4)]),
    "sum kept": (lambda x: ir.sum(x, -1, keepdims=True), [signed(2, 3)]),
    "mean": (lambda x: ir.mean(x, 1), [signed(2, 3, 4)]),
    "reduce_max": (lambda x: ir.reduce_max(x, 1), [signed(2, 3, 4)]),
    "reduce_min": (lambda x: ir.reduce_min(x, [0, 1], keepdims=True), [signed(2, 3, 4)]),
    "matmul": (lambda a, b: a @ b, [signed(3, 4), signed(4, 2)]),
    "constant": (lambda x: x * x.graph.constant(signed(3)), [signed(2, 3)]),
    "full": (lambda x: x * ir.full_like(x, 3.0), [signed(2, 3)]),
}
