"""The reference backend: every op in plain float64 NumPy. It is the specification, and slow.

Values of a float dtype are kept in float64 throughout and rounded only when an executable returns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from stipple.backends.host import tensor
from stipple.backends.host.elementwise import run_program
from stipple.backends.host.kernel import Compute, HostKernel, empty
from stipple.backends.host.scatter import ScatterKernel
from stipple.backends.reference import image, splat
from stipple.backends.reference.noise import noise
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.ops.fused import program_of
from stipple.ir.passes import Pass
from stipple.runtime.backend import Kernel

_IMAGE: dict[str, Compute] = {
    "image_l1": lambda node, x, dims: [image.l1(*x)],
    "image_l1_backward": lambda node, x, dims: image.l1_backward(*x),
    "image_ssim": lambda node, x, dims: [image.ssim(*(*x, node.attrs["padding"]))],
    "image_ssim_backward": lambda node, x, dims: image.ssim_backward(*(*x, node.attrs["padding"])),
    "image_l1_ssim": lambda node, x, dims: image.l1_ssim(*(*x, node.attrs["padding"])),
    "image_l1_ssim_backward": lambda node, x, dims: image.l1_ssim_backward(*(*x, node.attrs["padding"])),
}
_KERNELS: Mapping[str, Compute] = {**tensor.KERNELS, **_IMAGE, **splat.KERNELS, "splat_noise": noise}


class ReferenceBackend:
    """Every op, every dtype, one thread; slow."""

    name = "reference"
    dtypes = frozenset(DType)

    def kernel(self, node: Node) -> Kernel | None:
        if node.definition.elementwise or node.op == "fused":
            program = program_of(node)
            return HostKernel(node, f"numpy.{node.op}", lambda _, x, dims: [run_program(program, x, held)], held)
        if node.op == "scatter_add":
            return ScatterKernel(node)
        compute = _KERNELS.get(node.op, node.definition.host)
        return None if compute is None else HostKernel(node, f"numpy.{node.op}", compute, held)

    def passes(self) -> Sequence[Pass]:
        return ()

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
        return empty(shape, held(dtype))

    def upload(self, array: np.ndarray, dtype: DType) -> np.ndarray:
        return np.array(array, dtype=held(dtype), order="C")

    def borrow(self, array: np.ndarray, dtype: DType) -> np.ndarray:
        return np.require(array, held(dtype), ["C", "A", "W", "E"])

    def download(self, buffer: np.ndarray, dtype: DType) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.array(buffer, dtype=dtype.numpy, order="C")

    def copy(self, buffer: np.ndarray, dtype: DType, into: np.ndarray | None = None) -> np.ndarray:
        if into is None:
            return np.array(buffer, order="C")
        np.copyto(into, buffer)
        return into

    def shape(self, buffer: np.ndarray) -> tuple[int, ...]:
        return buffer.shape

    def holds(self, buffer: np.ndarray, dtype: DType) -> bool:
        return buffer.dtype == held(dtype) and buffer.flags.c_contiguous

    def overlap(self, first: np.ndarray, second: np.ndarray) -> bool:
        return np.may_share_memory(first, second)

    def running(self) -> AbstractContextManager[None]:
        """Nothing to do: runs keep no state and do not interfere with each other."""
        return nullcontext()

    def overwriting(self) -> AbstractContextManager[None]:
        """Nothing to do: sizes are known before kernels run."""
        return nullcontext()

    def stage(self, requested: Sequence[tuple[np.ndarray, DType, bool]]) -> list[np.ndarray]:
        return [
            buffer
            if given and buffer.dtype == dtype.numpy and buffer.flags.c_contiguous
            else self.download(buffer, dtype)
            for buffer, dtype, given in requested
        ]

    def collect(self, staged: list[np.ndarray]) -> list[np.ndarray]:
        return staged

    def synchronize(self) -> None:
        """Kernels have finished when they return."""


def held(dtype: DType) -> np.dtype[np.generic]:
    """The NumPy dtype that holds values of a dtype here."""
    return np.dtype(np.float64) if dtype.is_float else dtype.numpy


__all__ = ["ReferenceBackend"]
