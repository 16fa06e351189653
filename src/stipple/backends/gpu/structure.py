"""Structure ops: strided copies, gathers, indexed sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel
from stipple.backends.gpu.memory import SMALL
from stipple.ir.dtype import DType
from stipple.ir.graph import Node

Dims = Mapping[str, int]
_ENTRIES = 16_384
"""Indices that an indexed sum processes at a time: watchdogs end kernels that run for seconds, and some devices end
long loops (loops.py)."""


def strides_of(shape: Sequence[int]) -> list[int]:
    """Strides of a dense array, in elements."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


_UNPACK = Kernel("unpack", "  out[i] = (packed_bytes(i / 4u) >> (8u * (i % 4u))) & 255u;", always=True)


def upload(gpu: Gpu, array: np.ndarray, dtype: DType) -> GpuBuffer:
    """A new buffer with an array's values. Large byte arrays, such as photos, are transferred four to a word, and
    expanded to a word each on the device."""
    if array.size <= SMALL or dtype.numpy.itemsize > 1:
        return gpu.memory.upload(array, dtype)
    data = np.ascontiguousarray(array, dtype.numpy).reshape(-1).view(np.uint8)
    words = np.append(data, np.zeros(-data.size % 4, np.uint8)).view(np.int32)
    packed = gpu.memory.upload_changing(words, DType.I32)
    packed.wgsl = "u32"
    out = gpu.memory.allocate(array.shape, dtype)
    gpu.each(_UNPACK, {"packed_bytes": packed}, {"out": out}, out.size)
    return out


def fill(gpu: Gpu, out: GpuBuffer, value: float) -> None:
    """Set every element."""
    number = {"f32": "bitcast<f32>(P.bits)", "i32": "bitcast<i32>(P.bits)", "u32": "P.bits"}[out.wgsl]
    bits = np.array(value, np.float32 if out.dtype is DType.F32 else np.int64)
    word = int(bits.view(np.uint32)) if out.dtype is DType.F32 else int(bits) & 0xFFFFFFFF
    gpu.each(Kernel("fill", f"  out[i] = {number};"), {}, {"out": out}, out.size, {"bits": word})


def copy(
    gpu: Gpu,
    source: GpuBuffer,
    target: GpuBuffer,
    shape: Sequence[int],
    source_strides: Sequence[int],
    target_strides: Sequence[int],
    source_start: int = 0,
    target_start: int = 0,
) -> None:
    """Copy a block of a shape from one buffer to another, each with its own strides."""
    params: dict[str, int | float] = {"from_": source_start, "to_": target_start}
    lines = ["  var rest = i; var s = P.from_; var t = P.to_;"]
    for axis in range(len(shape) - 1, -1, -1):
        params |= {f"d{axis}": shape[axis], f"s{axis}": source_strides[axis], f"t{axis}": target_strides[axis]}
        lines.append(
            f"  {{ let c = rest % P.d{axis}; rest = rest / P.d{axis}; s += c * P.s{axis}; t += c * P.t{axis}; }}"
        )
    lines.append("  target_[t] = source(s);")
    gpu.each(Kernel("copy", "\n".join(lines)), {"source": source}, {"target_": target}, math.prod(shape), params)


def full(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    fill(gpu, out[0], node.attrs["value"])


def transpose(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    strides = strides_of(x[0].shape)
    copy(gpu, x[0], out[0], out[0].shape, [strides[a] for a in node.attrs["axes"]], strides_of(out[0].shape))


def broadcast(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    shape = out[0].shape
    own = [1] * (len(shape) - len(x[0].shape)) + list(x[0].shape)
    strides = [0 if n == 1 else s for n, s in zip(own, strides_of(own), strict=True)]
    copy(gpu, x[0], out[0], shape, strides, strides_of(shape))


def narrow(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    axis = node.attrs["axis"]
    start = node.attrs["start"].resolve(dims)
    strides = strides_of(x[0].shape)
    copy(gpu, x[0], out[0], out[0].shape, strides, strides_of(out[0].shape), start * strides[axis])


def pad(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    before = node.attrs["before"].resolve(dims)
    fill(gpu, out[0], 0)
    strides = strides_of(out[0].shape)
    copy(gpu, x[0], out[0], x[0].shape, strides_of(x[0].shape), strides, 0, before * strides[node.attrs["axis"]])


def concat(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    axis, start = node.attrs["axis"], 0
    strides = strides_of(out[0].shape)
    for part in x:
        copy(gpu, part, out[0], part.shape, strides_of(part.shape), strides, 0, start * strides[axis])
        start += part.shape[axis]


_GATHER = Kernel(
    "gather",
    "  let row = u32(clamp(ids(i / P.width), 0, i32(P.rows) - 1));\n  out[i] = table(row * P.width + i % P.width);",
)


def gather(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    table, ids = x
    width = math.prod(table.shape[1:])
    params = {"width": width, "rows": table.shape[0]}
    gpu.each(_GATHER, {"table": table, "ids": ids}, {"out": out[0]}, out[0].size, params)


_SCATTER_ADD = """  let row = i32(i / P.width);
  var sum = base(i);
  for (var k = P.first; k < P.end; k++) {
    if (ids(k) == row) { sum += updates(k * P.width + i % P.width); }
  }
  out[i] = sum;"""


def scatter_add(gpu: Gpu, node: Node, x: Sequence[GpuBuffer], out: Sequence[GpuBuffer], dims: Dims) -> None:
    """Each element scans all indices: no atomics, a fixed order of additions, meant for few indices."""
    base, ids, updates = x
    width = math.prod(base.shape[1:])
    kernel = Kernel("scatter_add", _SCATTER_ADD, overwrites=(("out", "base"),))
    for first in range(0, max(ids.size, 1), _ENTRIES):
        reads = {"base": out[0] if first else base, "ids": ids, "updates": updates}
        params = {"width": width, "first": first, "end": min(first + _ENTRIES, ids.size)}
        gpu.each(kernel, reads, {"out": out[0]}, base.size, params)
