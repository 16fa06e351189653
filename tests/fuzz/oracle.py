"""The oracle: an interpreter of graphs that shares no kernel, and no NumPy op, with any device.

It computes with spans (see ``spans.py``), element by element, from what the ops' documentation says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuzz import elementwise, images, splat_ops, tensors
from fuzz.optimiser import adam
from fuzz.spans import CPU, DOUBLE, GPU, HELD_IN_DOUBLE, INT_LIMITS, Precision, Span, as_float32, exactly, hull
from fuzz.tensors import RefusedError, Tensor, UndecidedError
from stipple import ir

Dims = Mapping[str, int]


class Failed:
    """What stands for the results of a node that refuses its operands, and of all nodes after it."""

    def __init__(self, why: RefusedError | UndecidedError) -> None:
        self.why = why


@dataclass(frozen=True)
class Machine:
    """A kind of device: how exactly it computes float32 and float64, and whether constants may be computed ahead, and
    then rounded to float32."""

    name: str
    single: Precision
    double: Precision = DOUBLE
    folds: bool = False

    def precision(self, dtype: str) -> Precision:
        return self.single if dtype == "f32" else self.double


REFERENCE = Machine("reference", HELD_IN_DOUBLE)
REFERENCE_FOLDING = Machine("reference, folding constants", HELD_IN_DOUBLE, folds=True)
ON_CPU = Machine("cpu", CPU)
ON_GPU = Machine("gpu", GPU)


def from_array(array: np.ndarray, dtype: str, machine: Machine) -> Tensor:
    """A tensor as a device reads it."""
    how = machine.precision(dtype)
    flat = array.reshape(-1).tolist()
    if dtype in INT_LIMITS:
        return Tensor(array.shape, dtype, [(int(v), int(v), False) for v in flat])
    return Tensor(array.shape, dtype, [how.settled(exactly(v)) for v in flat])


@dataclass
class Run:
    """What one run must give: outputs and the parameters' next values; or that it must, or may, be refused."""

    outputs: dict[str, Tensor] = field(default_factory=dict)
    params: dict[str, Tensor] = field(default_factory=dict)
    must_fail: str = ""
    may_fail: str = ""
    watched: Tensor | None = None


def evaluate(
    graph: ir.Graph,
    feeds: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    machine: Machine,
    watch: ir.Value | None = None,
) -> Run:
    """Run a graph once; with ``watch`` only as far as that value."""
    try:
        dims = bound(graph, feeds, params)
    except RefusedError as why:  # a run that was refused left parameters at another size than what is fed next
        return Run(must_fail=str(why))
    live = graph.live_nodes()
    values: dict[ir.Value, Tensor | Failed] = {}
    known: set[ir.Value] = set()
    run = Run()
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        failed = [o for o in operands if isinstance(o, Failed)]
        results: Sequence[Tensor | Failed]
        if failed:
            results = [failed[0]] * len(node.outputs)
        else:
            try:
                _check_sizes(node, dims)
                results = _node(node, [o for o in operands if isinstance(o, Tensor)], feeds, params, dims, machine)
            except (RefusedError, UndecidedError) as why:
                results = [Failed(why)] * len(node.outputs)
                if node.id in live and isinstance(why, RefusedError):
                    run.must_fail = run.must_fail or f"node {node.id}: {why}"
                else:
                    run.may_fail = run.may_fail or f"node {node.id}: {why}"
        if machine.folds and _is_constant(node, known):
            known.update(node.outputs)
            results = [_perhaps_rounded(r) for r in results]
        values.update(zip(node.outputs, results, strict=True))
        _check_types(node, results, dims)
        if watch is not None and watch in node.outputs:
            watched = values[watch]
            return Run(watched=watched if isinstance(watched, Tensor) else None)
    if run.must_fail:
        return run
    if any(isinstance(values[v], Failed) for v in graph.roots):
        return run
    run.outputs = {name: _tensor(values[v]) for name, v in graph.outputs.items()}
    run.params = {**params, **{name: _tensor(values[v]) for name, v in graph.updates.items()}}
    return run


def _check_types(node: ir.Node, results: Sequence[Tensor | Failed], dims: dict[str, int]) -> None:
    """Bind sizes that the node generates."""
    for value, made in zip(node.outputs, results, strict=True):
        if isinstance(made, Tensor):
            assert made.dtype == value.dtype.value
            for dim, size in zip(value.shape, made.shape, strict=True):
                if dim.symbol is not None:
                    dims.setdefault(dim.symbol, size)
            assert made.shape == value.shape.resolve(dims), (node, made.shape, value.shape)


def _check_sizes(node: ir.Node, dims: Dims) -> None:
    """A symbolic size such as N - 1 may come out negative."""
    for value in node.outputs:
        if value.shape.symbols <= dims.keys() and any(n < 0 for n in value.shape.resolve(dims)):
            raise RefusedError(f"{node.op}: negative size in {value.shape}")


def _tensor(value: Tensor | Failed) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def bound(graph: ir.Graph, feeds: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> dict[str, int]:
    """Values of the symbols."""
    dims: dict[str, int] = {}
    for table, given in ((graph.params, params), (graph.inputs, feeds)):
        for name, value in table.items():
            for dim, size in zip(value.shape, given[name].shape, strict=True):
                if dim.symbol is not None and dims.setdefault(dim.symbol, size) != size:
                    raise RefusedError(f"{name}: {dim} is {dims[dim.symbol]} and {size}")
    return dims


def _is_constant(node: ir.Node, known: set[ir.Value]) -> bool:
    if node.op in ("constant", "full"):
        return True
    return not node.definition.source and all(v in known for v in node.inputs)


def _perhaps_rounded(tensor: Tensor | Failed) -> Tensor | Failed:
    """float32 values that may have been rounded before."""
    if isinstance(tensor, Failed) or tensor.dtype != "f32":
        return tensor
    return Tensor(tensor.shape, tensor.dtype, [hull(s, rounded_to_float32(s)) for s in tensor.spans])


def rounded_to_float32(a: Span) -> Span:
    return (as_float32(a[0]), as_float32(a[1]), a[2]) if a[0] <= a[1] else a


# --- nodes ------------------------------------------------------------------------------------------------
def _node(
    node: ir.Node,
    x: Sequence[Tensor],
    feeds: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    dims: Dims,
    machine: Machine,
) -> list[Tensor]:
    op, attrs = node.op, node.attrs
    dtype = node.outputs[0].dtype.value
    how = machine.precision(dtype)
    if op == "input":
        return [feeds[attrs["name"]]]
    if op == "param":
        return [params[attrs["name"]]]
    if op == "constant":
        return [from_array(attrs["value"], dtype, machine)]
    if op == "fused":
        return [_fused(node, x, dims, machine)]
    if op in elementwise.OPS:
        return [_elementwise(op, attrs, x, dtype, how)]
    if op in _STRUCTURE:
        made = _STRUCTURE[op](node, x, dims)
        return made if isinstance(made, list) else [made]
    if op in ("adam", "adam_visible"):
        return adam(x, attrs, how)
    if op in splat_ops.OPS:
        return splat_ops.compute(node, x, dims, how)
    if op in images.OPS:
        return images.compute(op, x, attrs, how)
    if op == "scatter_add":
        return [tensors.scatter_add(x[0], x[1], x[2], how)]
    if op == "matmul":
        return [tensors.matmul(x[0], x[1], how, machine.double)]
    if op in ("sum", "mean", "reduce_max", "reduce_min"):
        return [tensors.reduce(op, x[0], attrs["axes"], attrs["keepdims"], how)]
    raise NotImplementedError(f"the oracle does not know {op}")


def _elementwise(op: str, attrs: Mapping[str, Any], x: Sequence[Tensor], dtype: str, how: Precision) -> Tensor:
    shape = tensors.joint_shape([t.shape for t in x])
    function = elementwise.function_of(op, attrs, [t.dtype for t in x], how)
    spans = map(function, *(tensors.broadcast(t, shape).spans for t in x))
    return Tensor(shape, dtype, list(spans))


def _fused(node: ir.Node, x: Sequence[Tensor], dims: Dims, machine: Machine) -> Tensor:
    """A group, as the ops that it stands for."""
    values = list(x)
    for op, refs, pairs in node.attrs["program"]:
        attrs = ir.REGISTRY[op].normalise_attrs(dict(pairs))
        operands = [values[r] for r in refs]
        dtype = _step_dtype(op, attrs, operands)
        values.append(_elementwise(op, attrs, operands, dtype, machine.precision(dtype)))
    return tensors.broadcast(values[-1], node.outputs[0].shape.resolve(dims))


def _step_dtype(op: str, attrs: Mapping[str, Any], x: Sequence[Tensor]) -> str:
    if op == "cast":
        return str(attrs["dtype"].value)
    if op in ("less", "less_equal", "equal", "isfinite", "logical_and", "logical_or", "logical_not"):
        return "bool"
    return x[-1].dtype


def _full(node: ir.Node, x: Sequence[Tensor], dims: Dims) -> Tensor:
    shape = node.attrs["shape"].resolve(dims)
    dtype = node.attrs["dtype"].value
    value = node.attrs["value"]
    count = 1
    for n in shape:
        count *= n
    if dtype in INT_LIMITS:
        return Tensor(shape, dtype, [(int(value), int(value), False)] * count)
    number = as_float32(value) if dtype == "f32" else value
    span = hull(exactly(number), exactly(value)) if dtype == "f32" else exactly(number)
    return Tensor(shape, dtype, [span] * count)


_STRUCTURE: dict[str, Callable[[ir.Node, Sequence[Tensor], Dims], Tensor | list[Tensor]]] = {
    "full": _full,
    "reshape": lambda node, x, dims: Tensor(node.attrs["shape"].resolve(dims), x[0].dtype, x[0].spans),
    "stop_gradient": lambda node, x, dims: x[0],
    "transpose": lambda node, x, dims: tensors.transpose(x[0], node.attrs["axes"]),
    "broadcast": lambda node, x, dims: tensors.broadcast(x[0], node.attrs["shape"].resolve(dims)),
    "narrow": lambda node, x, dims: tensors.narrow(
        x[0], node.attrs["axis"], node.attrs["start"].resolve(dims), node.attrs["length"].resolve(dims)
    ),
    "split": lambda node, x, dims: [
        tensors.narrow(x[0], node.attrs["axis"], 0, node.attrs["at"].resolve(dims)),
        tensors.narrow(
            x[0],
            node.attrs["axis"],
            node.attrs["at"].resolve(dims),
            x[0].shape[node.attrs["axis"]] - node.attrs["at"].resolve(dims),
        ),
    ],
    "pad": lambda node, x, dims: tensors.pad(
        x[0], node.attrs["axis"], (node.attrs["before"].resolve(dims), node.attrs["after"].resolve(dims))
    ),
    "concat": lambda node, x, dims: tensors.concat(x, node.attrs["axis"]),
    "gather": lambda node, x, dims: tensors.gather(x[0], x[1]),
}
KNOWN_OPS = frozenset(
    {
        *elementwise.OPS,
        *_STRUCTURE,
        *images.OPS,
        *splat_ops.OPS,
        "input",
        "param",
        "constant",
        "fused",
        "adam",
        "adam_visible",
        "scatter_add",
        "matmul",
        "sum",
        "mean",
        "reduce_max",
        "reduce_min",
    }
)
