"""Sums, means, extremes and matrix products: in a fixed order, without atomics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import Template
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.driver import WORKGROUP
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.structure import strides_of
from stipple.ir.graph import Node

Dims = Mapping[str, int]
_SHORT = 64
_CHUNK = 4096
LONGEST = 256 * 16_384
"""Terms of an element of a product that are summed at a time; see loops.py."""

_OPERATIONS = {
    "sum": ("0.0", "a + b"),
    "reduce_max": ("from_bits(SIGN | INFINITY)", "larger(a, b)"),
    "reduce_min": ("from_bits(INFINITY)", "smaller(a, b)"),
}
"""The identity of each operation, and how it combines two values."""

_THREAD = """
  var rest = i; var start = 0u;
$outer
  var total = $identity;
  for (var k = 0u; k < P.inner; k++) {
    var left = k; var at = start;
$inner
    let a = total; let b = source(at);
    total = $join;
  }
  out[i] = total * P.factor;"""
_WORKGROUP = """
fn join(a: f32, b: f32) -> f32 { return $join; }
var<workgroup> partial: array<f32, 256>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  if (group >= P.outputs * P.chunks) { return; }
  let o = group / P.chunks;
  let chunk = group % P.chunks;
  var rest = o; var start = 0u;
$outer
  var total = $identity;
  let last = min((chunk + 1u) * P.chunk, P.inner);
  for (var k = chunk * P.chunk + lid; k < last; k += 256u) {
    var left = k; var at = start;
$inner
    total = join(total, source(at));
  }
  partial[lid] = total;
  workgroupBarrier();
  for (var width = 128u; width > 0u; width = width / 2u) {
    if (lid < width) { partial[lid] = join(partial[lid], partial[lid + width]); }
    workgroupBarrier();
  }
  if (lid == 0u) { out[group] = partial[0] * P.factor; }
}
"""


class _Reduction(NamedTuple):
    """One dispatch: lengths and strides of the axes that are kept and of those that are reduced, ``terms`` elements for
    each result, in ``chunks`` separate results. Results are multiplied by ``factor``."""

    op: str
    outer: Sequence[tuple[int, int]]
    inner: Sequence[tuple[int, int]]
    terms: int
    chunks: int
    factor: float


def reduce(gpu: Gpu, op: str, source: GpuBuffer, axes: Sequence[int], out: GpuBuffer, factor: float = 1.0) -> None:
    """Reduce axes of an array of float32 into ``out``; the result is multiplied by ``factor``."""
    strides = strides_of(source.shape)
    outer = [(source.shape[a], strides[a]) for a in range(len(source.shape)) if a not in axes]
    inner = [(source.shape[a], strides[a]) for a in range(len(source.shape)) if a in axes]
    count = math.prod(n for n, _ in inner)
    if not out.size:
        return
    chunks = max(1, -(-count // _CHUNK))
    while chunks > 1 and chunks * out.size > 4 * WORKGROUP * WORKGROUP:
        chunks = -(-chunks // 2)
    if chunks == 1:
        _dispatch(gpu, _Reduction(op, outer, inner, count, 1, factor), source, out)
        return
    parts = gpu.memory.allocate((out.size, chunks), source.dtype)
    _dispatch(gpu, _Reduction(op, outer, inner, count, chunks, 1.0), source, parts)
    _dispatch(gpu, _Reduction(op, [(out.size, chunks)], [(chunks, 1)], chunks, 1, factor), parts, out)


def _dispatch(gpu: Gpu, work: _Reduction, source: GpuBuffer, out: GpuBuffer) -> None:
    params: dict[str, int | float] = {}

    def walk(axes: Sequence[tuple[int, int]], tag: str, rest: str, at: str) -> str:
        lines = []
        for k, (n, s) in reversed(list(enumerate(axes))):
            params[f"{tag}n{k}"], params[f"{tag}s{k}"] = n, s
            lines.append(f"  {at} += ({rest} % P.{tag}n{k}) * P.{tag}s{k}; {rest} = {rest} / P.{tag}n{k};")
        return "\n".join(lines)

    identity, join = _OPERATIONS[work.op]
    parts = {
        "identity": identity, "join": join,
        "outer": walk(work.outer, "o", "rest", "start"), "inner": walk(work.inner, "i", "left", "at"),
    }  # fmt: skip
    functions = "" if work.op == "sum" else shader_text("special")
    params |= {"inner": work.terms, "factor": float(work.factor)}
    outputs = out.size // work.chunks
    if work.terms <= _SHORT and work.chunks == 1:
        kernel = Kernel(f"short_{work.op}", Template(_THREAD).substitute(parts), functions)
        gpu.each(kernel, {"source": source}, {"out": out}, outputs, params)
        return
    kernel = Kernel(f"wide_{work.op}", Template(_WORKGROUP).substitute(parts), functions)
    params |= {"outputs": outputs, "chunks": work.chunks, "chunk": -(-work.terms // work.chunks)}
    gpu.run(kernel, {"source": source}, {"out": out}, outputs * work.chunks, params)


def sum_(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    reduce(gpu, "sum", x[0], node.attrs["axes"], out[0])


def mean(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    count = math.prod(x[0].shape[a] for a in node.attrs["axes"])
    reduce(gpu, "sum", x[0], node.attrs["axes"], out[0], 1 / count if count else float("nan"))


def extreme(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    reduce(gpu, node.op, x[0], node.attrs["axes"], out[0])


_PRODUCT = Kernel(
    "matmul",
    """
  let row = i / P.columns; let column = i % P.columns;
  var total = 0.0;
  for (var k = 0u; k < P.inner; k++) { total += a(row * P.inner + k) * b(k * P.columns + column); }
  out[i] = total;""",
)
_LONG_PRODUCT = Kernel(
    "matmul_long",
    """
var<workgroup> partial: array<f32, 256>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let o = group_index(wid, nwg);
  if (o >= P.rows * P.columns) { return; }
  let row = o / P.columns; let column = o % P.columns;
  var total = 0.0;
  for (var k = P.first + lid; k < P.end; k += 256u) { total += a(row * P.inner + k) * b(k * P.columns + column); }
  partial[lid] = total;
  workgroupBarrier();
  for (var width = 128u; width > 0u; width = width / 2u) {
    if (lid < width) { partial[lid] = partial[lid] + partial[lid + width]; }
    workgroupBarrier();
  }
  if (lid == 0u) {
    if (P.first == 0u) { out[o] = partial[0]; } else { out[o] += partial[0]; }
  }
}
""",
)


def matmul(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    """A product of matrices: a thread for each element, or a workgroup where the sums are long."""
    a, b = x
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    params: dict[str, int | float] = {"rows": rows, "inner": inner, "columns": columns}
    if inner > 4 * _SHORT:
        for first in range(0, inner, LONGEST):
            params |= {"first": first, "end": min(first + LONGEST, inner)}
            gpu.run(_LONG_PRODUCT, {"a": a, "b": b}, {"out": out[0]}, rows * columns, params)
        return
    gpu.each(_PRODUCT, {"a": a, "b": b}, {"out": out[0]}, rows * columns, params)
