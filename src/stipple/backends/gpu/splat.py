"""splat_render on the GPU: projection and rasterization in one op."""

from __future__ import annotations

from collections.abc import Sequence

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.projection import prepare, prepare_backward
from stipple.backends.gpu.rasterization import rasterize, rasterize_backward


def render(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs) -> list[GpuBuffer]:
    """rgba and depth of splat_render."""
    made = prepare(gpu, x[:8], attrs)
    return rasterize(gpu, [*made[:5], x[8], *made[6:]], attrs)[:2]


def render_backward(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of splat_render's operands, and of the 2D means."""
    made = prepare(gpu, x[:8], attrs)
    operands = [*made[:5], x[8], *made[6:]]
    images = rasterize(gpu, operands, attrs)
    needs = [True] * 5 + [used[7], True]
    v = rasterize_backward(gpu, [*operands, *images, x[9], x[10]], attrs, needs)
    back = prepare_backward(gpu, [*x[:8], made[5], *v[:5]], attrs, used)
    return [*back, v[5], v[0], v[6]]
