"""The CPU backend: SIMD kernels written in Python, compiled by Numba, on all cores; float32.

Results are the same bits for any number of threads. Kernels are compiled once per machine and cached on disk;
``STIPPLE_NUM_THREADS`` sets the number of threads, ``STIPPLE_SIMD_WIDTH`` the width of vectors (for tests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from stipple.backends.cpu import binning, copies, image, noise, project, rasterize, sh, ssim, sums
from stipple.backends.cpu.adam import AdamKernel
from stipple.backends.cpu.elementwise import ElementwiseKernel
from stipple.backends.cpu.first_run import warm_up
from stipple.backends.cpu.threads import Threads
from stipple.backends.host import camera as look_at
from stipple.backends.host import checks, tensor
from stipple.backends.host.kernel import Compute, HostKernel, empty
from stipple.backends.host.scatter import ScatterKernel
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.passes import Pass
from stipple.runtime.backend import Kernel

Array = np.ndarray
Compiled = Callable[..., Sequence[Array | None] | None]

_COMPILED: Mapping[str, Compiled] = {
    "image_l1": image.l1,
    "image_l1_backward": image.l1_backward,
    "image_ssim": ssim.ssim,
    "image_ssim_backward": ssim.ssim_backward,
    "image_l1_ssim": ssim.l1_ssim,
    "image_l1_ssim_backward": ssim.l1_ssim_backward,
    "splat_project": project.project,
    "splat_project_backward": project.project_backward,
    "splat_sh": sh.sh,
    "splat_sh_backward": sh.sh_backward,
    "splat_bin": binning.bin_tiles,
    "splat_rasterize": rasterize.rasterize,
    "splat_rasterize_backward": rasterize.rasterize_backward,
}
_OPTIONAL: Mapping[str, Set[str]] = {
    "image_ssim_backward": {"v_image", "v_target"},
    "image_l1_ssim_backward": {"v_image", "v_target"},
    "splat_project_backward": {"v_viewmat", "v_intrinsics", "v_distortion"},
    "splat_rasterize": {"transmittance", "last_ids", "median_ids", "counts"},
    "splat_rasterize_backward": {"v_background", "v_means2d_abs"},
}
"""Results that kernels leave out if nothing uses them: their arrays are None."""
_HOST: Mapping[str, Compute] = {**tensor.KERNELS, **look_at.KERNELS}


@dataclass(frozen=True)
class CpuKernel:
    """Runs a node by ``compute(operands, results)``, which fills the results, or returns them if it alone knows their
    sizes."""

    node: Node
    compute: Callable[[Any, Any], Sequence[Array | None] | None]
    owns_outputs: bool = False

    @property
    def name(self) -> str:
        return f"numba.{self.node.op}"

    def check(self, inputs: Sequence[Array], dims: Mapping[str, int]) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(
        self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Mapping[str, int]
    ) -> Sequence[Array | None]:
        with np.errstate(all="ignore"):  # infinities and NaN are values here
            definition = self.node.definition
            results = definition.result_record(*map(partial(self._array, dims), definition.results, outputs))
            returned = self.compute(definition.named_operands(inputs), results)
            return results if returned is None else returned

    def _array(self, dims: Mapping[str, int], name: str, planned: Array | None) -> Array | None:
        """The array for a result: a new one if none is planned, unless the kernel can do without or makes it."""
        value = self.node.result(name)
        if planned is not None or name in _OPTIONAL.get(self.node.op, ()) or not value.shape.symbols <= dims.keys():
            return planned
        return empty(value.shape.resolve(dims), value.dtype.numpy)


class CpuBackend:
    """The machine's processor. ``threads`` defaults to ``STIPPLE_NUM_THREADS`` or all cores."""

    name = "cpu"
    dtypes = frozenset(DType)

    def __init__(self, threads: int | None = None) -> None:
        self.threads = Threads(threads)
        warm_up(self.threads.count)

    def kernel(self, node: Node) -> Kernel | None:
        if any(v.dtype is DType.F64 for v in (*node.inputs, *node.outputs)):
            return None
        if node.definition.elementwise or node.op == "fused":
            return ElementwiseKernel(node, self.threads)
        if node.op in ("adam", "adam_visible"):
            return AdamKernel(node, self.threads)
        if node.op in _COMPILED:
            run = _COMPILED[node.op]
            return CpuKernel(node, lambda x, out: run(x, node.attrs, self.threads, out))
        if node.op == "splat_noise":
            return noise.NoiseKernel(node, self.threads)
        if node.op in copies.OPS:
            return copies.CopyKernel(node, self.threads)
        if node.op == "scatter_add":
            return ScatterKernel(node)
        if node.op in ("sum", "mean"):
            return HostKernel(node, f"numpy.{node.op}", partial(sums.reduced, threads=self.threads), _held)
        compute = _HOST.get(node.op, node.definition.host)
        return None if compute is None else HostKernel(node, f"numpy.{node.op}", compute, _held)

    def passes(self) -> Sequence[Pass]:
        return ()

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> Array:
        return empty(shape, dtype.numpy)

    def upload(self, array: Array, dtype: DType) -> Array:
        return np.array(array, dtype=dtype.numpy, order="C")

    def borrow(self, array: Array, dtype: DType) -> Array:
        return np.require(array, dtype.numpy, ["C", "A", "W", "E"])

    def download(self, buffer: Array, dtype: DType) -> Array:
        return np.array(buffer, dtype=dtype.numpy, order="C")

    def copy(self, buffer: Array, dtype: DType, into: Array | None = None) -> Array:
        copied = empty(buffer.shape, buffer.dtype) if into is None else into
        copies.copy(buffer, copied, self.threads)
        return copied

    def shape(self, buffer: Array) -> tuple[int, ...]:
        return buffer.shape

    def holds(self, buffer: Array, dtype: DType) -> bool:
        return buffer.dtype == dtype.numpy and buffer.flags.c_contiguous

    def overlap(self, first: Array, second: Array) -> bool:
        return np.may_share_memory(first, second)

    def running(self) -> AbstractContextManager[None]:
        """Nothing to do: runs keep no state and do not interfere with each other."""
        return nullcontext()

    def overwriting(self) -> AbstractContextManager[None]:
        """Nothing to do: sizes are known before kernels run."""
        return nullcontext()

    def stage(self, requested: Sequence[tuple[Array, DType, bool]]) -> list[Array]:
        return [
            buffer
            if given and buffer.dtype == dtype.numpy and buffer.flags.c_contiguous
            else self.download(buffer, dtype)
            for buffer, dtype, given in requested
        ]

    def collect(self, staged: list[Array]) -> list[Array]:
        return staged

    def synchronize(self) -> None:
        """Kernels have finished when they return."""


def _held(dtype: DType) -> np.dtype[np.generic]:
    return dtype.numpy


__all__ = ["CpuBackend", "CpuKernel"]
