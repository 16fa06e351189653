"""The GPU backend: WGSL compute kernels through wgpu, on Metal, Vulkan or DX12; float32.

Arrays stay on the device; results are the same for every run on one device. Of an adapter's optional features only
subgroups are used, and there is a path without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from stipple.backends.gpu import (
    binning,
    composite,
    composite_backward,
    elementwise,
    image,
    lists,
    optim,
    project,
    reduction,
    sh,
    structure,
    validation,
)
from stipple.backends.gpu.adapters import AdapterInfo, adapters
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu, describe
from stipple.backends.gpu.memory import SMALL
from stipple.backends.host import camera, tensor
from stipple.backends.host.kernel import Compute
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.ops.splat import BinOperands, BinResults, RasterizeBackwardListedOperands, RasterizeBackwardOperands
from stipple.ir.passes import Pass
from stipple.runtime.backend import Kernel

Array = np.ndarray
Buffers = Sequence[GpuBuffer]
Computes = Callable[[Gpu, Any, Node, Any], Buffers]
"""Computes the results of a node from its operands, as the op's record, and which results are used."""

Writes = Callable[[Gpu, Node, Any, Buffers, Mapping[str, int]], None]
"""Writes the results of a node into buffers, from its operands as the op's record."""


def _bin(gpu: Gpu, x: BinOperands, node: Node, used: Any) -> BinResults:
    results = binning.bin_tiles(gpu, x, node.attrs, exact=_lists_are_read(node))
    return BinResults(results.tile_ranges, results.sorted_ids)


def _lists_are_read(node: Node) -> bool:
    """Whether anything but a rasterizer reads the list of entries, which then must have its exact length."""
    ids = node.results.sorted_ids
    readers = {n.op for n in node.graph.nodes if ids in n.inputs}
    return ids in node.graph.roots or not readers <= _RASTERIZERS


_RASTERIZERS = {"splat_rasterize", "splat_rasterize_backward", "splat_rasterize_backward_listed"}


def _rasterize_backward(gpu: Gpu, x: RasterizeBackwardOperands, node: Node, used: Any) -> Buffers:
    found = lists.find_lists(gpu, x.sorted_ids, x.opacities.size)
    return composite_backward.rasterize_backward(gpu, x, node.attrs, used, found)


def _rasterize_backward_listed(gpu: Gpu, x: RasterizeBackwardListedOperands, node: Node, used: Any) -> Buffers:
    passed = lists.Lists(x.order, x.offsets, x.emission, min(x.emission.size, x.tile_ranges.shape[0]))
    return composite_backward.rasterize_backward(gpu, x.plain, node.attrs, used, passed)


_COMPUTES: Mapping[str, Computes] = {
    "image_l1": lambda g, x, n, used: image.l1(g, x),
    "image_l1_backward": lambda g, x, n, used: image.l1_backward(g, x),
    "image_ssim": lambda g, x, n, used: image.ssim(g, x, n.attrs["padding"]),
    "image_ssim_backward": lambda g, x, n, used: image.ssim_backward(g, x, n.attrs["padding"], used),
    "image_l1_ssim": lambda g, x, n, used: image.l1_ssim(g, x, n.attrs["padding"]),
    "image_l1_ssim_backward": lambda g, x, n, used: image.l1_ssim_backward(g, x, n.attrs["padding"], used),
    "splat_project": lambda g, x, n, used: project.project(g, x, n.attrs),
    "splat_project_backward": lambda g, x, n, used: project.project_backward(g, x, n.attrs, used),
    "splat_sh": lambda g, x, n, used: sh.sh(g, x, n.attrs),
    "splat_sh_backward": lambda g, x, n, used: sh.sh_backward(g, x, n.attrs, used),
    "splat_bin": _bin,
    "splat_bin_listed": lambda g, x, n, used: binning.bin_tiles(g, x, n.attrs, exact=_lists_are_read(n)),
    "splat_rasterize": lambda g, x, n, used: composite.rasterize(g, x, n.attrs, used),
    "splat_rasterize_backward": _rasterize_backward,
    "splat_rasterize_backward_listed": _rasterize_backward_listed,
}
_WRITES: Mapping[str, Writes] = {
    "full": structure.full,
    "transpose": structure.transpose,
    "broadcast": structure.broadcast,
    "narrow": structure.narrow,
    "pad": structure.pad,
    "concat": structure.concat,
    "gather": structure.gather,
    "scatter_add": structure.scatter_add,
    "sum": reduction.sum_,
    "mean": reduction.mean,
    "reduce_max": reduction.extreme,
    "reduce_min": reduction.extreme,
    "matmul": reduction.matmul,
    "adam": optim.adam,
    "adam_visible": optim.adam,
    "splat_noise": optim.noise,
}
_MOVES = ("full", "transpose", "broadcast", "narrow", "pad", "concat")
"""Ops that only move numbers: if the host knows the values of small operands, it also knows the result's."""

_FLOAT_ONLY = ("sum", "mean", "reduce_max", "reduce_min", "matmul", "scatter_add")
_ON_HOST: Mapping[str, Compute] = camera.KERNELS
"""The seed interface's camera and packed buffers: computed by NumPy between a download and an upload, as the dispatch
report says (``host.``). Rendering and training do not use them."""


@dataclass(frozen=True)
class GpuKernel:
    """Runs a node; with ``owns_outputs`` it allocates its results, else it writes those that the runtime planned."""

    gpu: Gpu
    node: Node
    name: str
    compute: Callable[[Any, Sequence[GpuBuffer | None], Mapping[str, int]], Buffers]
    owns_outputs: bool

    def check(self, inputs: Buffers, dims: Mapping[str, int]) -> None:
        """Values known to the host are checked here, others by the device; then :meth:`GpuBackend.collect` raises."""
        validation.check(self.gpu, self.node, inputs, dims)

    def __call__(self, inputs: Buffers, outputs: Sequence[GpuBuffer | None], dims: Mapping[str, int]) -> Buffers:
        return self.compute(self.node.definition.named_operands(inputs), outputs, dims)


class GpuBackend:
    """A GPU. ``kind`` is gpu (the best one), metal, vulkan or dx12; ``minimal`` is for tests."""

    dtypes = frozenset(DType) - {DType.F64}

    def __init__(self, kind: str = "gpu", minimal: bool = False) -> None:
        self.name = kind
        self.gpu = Gpu(kind, minimal)

    def kernel(self, node: Node) -> Kernel | None:
        if any(v.dtype is DType.F64 for v in (*node.inputs, *node.outputs)):
            return None
        if node.definition.elementwise or node.op == "fused":
            return self._elementwise(node)
        if node.op in ("reshape", "stop_gradient"):
            return GpuKernel(self.gpu, node, "view", partial(_view, node), owns_outputs=True)
        if node.op in _COMPUTES:
            compute = partial(self._compute, _COMPUTES[node.op], node, node.used())
            return GpuKernel(self.gpu, node, f"wgsl.{node.op}", compute, owns_outputs=True)
        if node.op in _WRITES:
            if node.op in _FLOAT_ONLY and any(v.dtype is not DType.F32 for v in node.inputs[:1]):
                return None
            return GpuKernel(
                self.gpu, node, f"wgsl.{node.op}", partial(self._write, _WRITES[node.op], node), owns_outputs=False
            )
        on_host = _ON_HOST.get(node.op, node.definition.host)
        if on_host is None:
            return None
        return GpuKernel(self.gpu, node, f"host.{node.op}", partial(self._on_host, on_host, node), owns_outputs=True)

    def passes(self) -> Sequence[Pass]:
        return [lists.PassLists()]

    def _compute(
        self,
        compute: Computes,
        node: Node,
        used: Any,
        x: Any,
        planned: Sequence[GpuBuffer | None],
        dims: Mapping[str, int],
    ) -> Buffers:
        return compute(self.gpu, x, node, used)

    def _elementwise(self, node: Node) -> Kernel | None:
        if not elementwise.supported(node):
            return None

        def compute(gpu: Gpu, node: Node, x: Any, out: Buffers, dims: Mapping[str, int]) -> None:
            elementwise.run(gpu, node, x, out[0])

        return GpuKernel(self.gpu, node, f"wgsl.{node.op}", partial(self._write, compute, node), owns_outputs=False)

    def _write(
        self, write: Writes, node: Node, x: Any, planned: Sequence[GpuBuffer | None], dims: Mapping[str, int]
    ) -> Buffers:
        out = []
        for buffer, value in zip(planned, node.outputs, strict=True):
            if buffer is None:
                out.append(self.gpu.memory.allocate(value.shape.resolve(_known(node, x, dims)), value.dtype))
            else:
                buffer.overwritten()
                out.append(buffer)
        write(self.gpu, node, x, out, dims)
        if node.op in _MOVES and out[0].size <= SMALL and all(b.host is not None for b in x):
            known = node.definition.named_operands([b.host for b in x])
            out[0].host = np.array(tensor.KERNELS[node.op](node, known, dims)[0], out[0].dtype.numpy)
        return out

    def _on_host(
        self, compute: Compute, node: Node, x: Any, planned: Sequence[GpuBuffer | None], dims: Mapping[str, int]
    ) -> Buffers:
        arrays = [self.download(b, b.dtype).astype(np.float64 if b.dtype is DType.F32 else b.dtype.numpy) for b in x]
        results = compute(node, node.definition.named_operands(arrays), dims)
        return [self.upload(np.asarray(a), v.dtype) for a, v in zip(results, node.outputs, strict=True)]

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> GpuBuffer:
        return self.gpu.memory.allocate(shape, dtype)

    def upload(self, array: Array, dtype: DType) -> GpuBuffer:
        return structure.upload(self.gpu, np.asarray(array), dtype)

    def borrow(self, array: Array, dtype: DType) -> GpuBuffer:
        return self.upload(array, dtype)

    def download(self, buffer: GpuBuffer, dtype: DType) -> Array:
        return self.gpu.memory.download(buffer, dtype)

    def copy(self, buffer: GpuBuffer, dtype: DType, into: GpuBuffer | None = None) -> GpuBuffer:
        if into is None:
            return self.gpu.memory.copy(buffer)
        into.overwritten()
        self.gpu.memory.copy_into(buffer, into, 0)
        return into

    def shape(self, buffer: GpuBuffer) -> tuple[int, ...]:
        return buffer.shape

    def holds(self, buffer: GpuBuffer, dtype: DType) -> bool:
        return buffer.dtype is dtype

    def overlap(self, first: GpuBuffer, second: GpuBuffer) -> bool:
        return first.raw is second.raw

    def running(self) -> AbstractContextManager[None]:
        return self.gpu.runs.running()

    def overwriting(self) -> AbstractContextManager[None]:
        return self.gpu.runs.overwriting()

    def stage(self, requested: Sequence[tuple[GpuBuffer, DType, bool]]) -> Sequence[tuple[GpuBuffer, DType]]:
        """Results stay on the device until the host waits for all of them at once."""
        return [(buffer, dtype) for buffer, dtype, _ in requested]

    def collect(self, requested: Sequence[tuple[GpuBuffer, DType]]) -> list[Array] | None:
        """Results, or None if the capacity for tile entries was too small."""
        return self.gpu.runs.collect(requested)

    def synchronize(self) -> None:
        self.gpu.memory.wait()


def _view(node: Node, x: Any, planned: Sequence[GpuBuffer | None], dims: Mapping[str, int]) -> Buffers:
    shape = node.attrs["shape"].resolve(_known(node, x, dims)) if node.op == "reshape" else x.x.shape
    return [x.x.reshaped(shape)]


def _known(node: Node, x: Buffers, dims: Mapping[str, int]) -> dict[str, int]:
    """Dimensions, including those bound by the operands' shapes."""
    found = dict(dims)
    for value, buffer in zip(node.inputs, x, strict=True):
        for dim, number in zip(value.shape, buffer.shape, strict=True):
            if dim.symbol is not None:
                found.setdefault(dim.symbol, number)
    return found


__all__ = ["AdapterInfo", "GpuBackend", "adapters", "describe"]
