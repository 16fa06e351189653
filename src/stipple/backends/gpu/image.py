"""L1 and SSIM, forward and gradient: two separable passes of the window each way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from stipple import numerics as nx
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.reduction import reduce
from stipple.backends.gpu.structure import fill
from stipple.errors import InputError
from stipple.ir.dtype import DType

_HALF = nx.SSIM_WINDOW // 2
_PICK = Kernel("pick", "  out[i] = both(P.which);")
_OF_NOTHING = (0.0, 1.0)
"""L1 and SSIM of images without pixels, which count as equal."""


@lru_cache(maxsize=16)
def _windowed(maps: int, axis: str, take: str) -> str:
    """Sums s0, s1, ... over the window along an axis; ``take`` computes terms v0, v1, ... at index ``at`` of a tap."""
    offsets = np.arange(nx.SSIM_WINDOW) - _HALF
    values = np.exp(-(offsets**2) / (2 * nx.SSIM_SIGMA**2))
    limit, step = {"x": ("width", "P.channels"), "y": ("height", "P.width * P.channels")}[axis]
    add = " ".join(f"s{m} += $w * v{m};" for m in range(maps))
    lines = [f"  var s{m} = 0.0;" for m in range(maps)]
    for offset, weight in zip(offsets, values / values.sum(), strict=True):
        inside = f"{axis} >= {-offset}u" if offset <= 0 else f"{axis} + {offset}u < P.{limit}"
        at = f"i - {-offset}u * {step}" if offset <= 0 else f"i + {offset}u * {step}"
        lines.append(f"  if ({inside}) {{ let at = {at}; {take} {add} }}".replace("$w", f"{weight:.9g}"))
    return "\n".join(lines)


_PLACE = "  let x = (i / P.channels) % P.width; let y = i / (P.channels * P.width);\n"
_MOMENTS = "let v0 = image(at); let v1 = other(at); let v2 = v0 * v0; let v3 = v1 * v1; let v4 = v0 * v1;"


def _along(maps: int, take: str) -> str:
    """The body of the first pass: along rows, for each map."""
    out = "".join(f"\n  out[{m}u * P.count + i] = s{m};" for m in range(maps))
    return _PLACE + _windowed(maps, "x", take) + out


def _across(maps: int) -> str:
    """The body of the second pass: across the rows, over the sums of the first."""
    return _PLACE + _windowed(maps, "y", _maps_of("along", maps))


def _maps_of(source: str, maps: int) -> str:
    return " ".join(f"let v{m} = {source}({m}u * P.count + at);" for m in range(maps))


_SLOPES = f"""
  let m1 = s0; let m2 = s1;
  let s11 = s2 - m1 * m1; let s22 = s3 - m2 * m2; let s12 = s4 - m1 * m2;
  let light = 2.0 * m1 * m2 + {nx.SSIM_C1}; let structure = 2.0 * s12 + {nx.SSIM_C2};
  let light_norm = m1 * m1 + m2 * m2 + {nx.SSIM_C1}; let structure_norm = s11 + s22 + {nx.SSIM_C2};
  let value = light * structure / (light_norm * structure_norm);
  let inside = x >= P.margin && y >= P.margin && x + P.margin < P.width && y + P.margin < P.height;
  let share = select(0.0, P.share, inside);
  let v12 = share * 2.0 * light / (light_norm * structure_norm);
  let v11 = -share * value / structure_norm;
  let v1 = share * (2.0 * m2 * structure / (light_norm * structure_norm) - 2.0 * m1 * value / light_norm);
  slopes[i] = v1 - 2.0 * m1 * v11 - m2 * v12;
  slopes[P.count + i] = v11;
  slopes[2u * P.count + i] = v12;
  terms[i] = share * value;
  terms[P.count + i] = abs(image(i) - other(i)) / f32(P.count);"""
_BACK = """
  let d = image(i) - other(i);
  out[i] = v_l1(0u) * signum(d) / f32(P.count) + v_ssim(0u) * (s0 + 2.0 * image(i) * s1 + other(i) * s2);"""


def _params(image: GpuBuffer, padding: str) -> dict[str, int | float]:
    height, width, channels = image.shape
    margin = _HALF if padding == "valid" else 0
    if padding == "valid" and min(height, width) < nx.SSIM_WINDOW:
        raise InputError(f"image_ssim: padding 'valid' needs an image of at least 11 x 11, got {width} x {height}")
    windows = max((height - 2 * margin) * (width - 2 * margin) * channels, 1)
    return {"height": height, "width": width, "channels": channels, "margin": margin, "share": 1 / windows}


def _slopes(gpu: Gpu, image: GpuBuffer, other: GpuBuffer, padding: str) -> tuple[GpuBuffer, GpuBuffer]:
    """SSIM's slopes [3, H, W, C] for ``image``, and each pixel's share of SSIM and of L1 [2, H * W * C]."""
    params = _params(image, padding)
    along = gpu.memory.allocate((5, *image.shape), DType.F32)
    slopes, terms = gpu.memory.allocate((3, *image.shape), DType.F32), gpu.memory.allocate((2, image.size), DType.F32)
    reads = {"image": image, "other": other}
    gpu.each(Kernel("ssim_along", _along(5, _MOMENTS)), reads, {"out": along}, image.size, params)
    reads = {"along": along, **reads}
    kernel = Kernel("ssim_slopes", _across(5) + _SLOPES)
    gpu.each(kernel, reads, {"slopes": slopes, "terms": terms}, image.size, params)
    return slopes, terms


def l1_ssim(gpu: Gpu, x: Sequence[GpuBuffer], padding: str) -> list[GpuBuffer]:
    """l1, ssim and slopes."""
    image, other = x
    slopes, terms = _slopes(gpu, image, other, padding)
    results = [gpu.memory.allocate((), DType.F32), gpu.memory.allocate((), DType.F32)]
    if not image.size:
        for out, value in zip(results, _OF_NOTHING, strict=True):
            fill(gpu, out, value)
        return [*results, slopes]
    both = gpu.memory.allocate((2,), DType.F32)
    reduce(gpu, "sum", terms, (1,), both)
    for k, out in enumerate((results[1], results[0])):
        gpu.each(_PICK, {"both": both}, {"out": out}, 1, {"which": k})
    return [*results, slopes]


def _from_slopes(
    gpu: Gpu, image: GpuBuffer, other: GpuBuffer, slopes: GpuBuffer, v_l1: GpuBuffer, v_ssim: GpuBuffer
) -> GpuBuffer:
    params = _params(image, "same")
    along, out = gpu.memory.allocate((3, *image.shape), DType.F32), gpu.memory.allocate(image.shape, DType.F32)
    first = Kernel("slopes_along", _along(3, _maps_of("slopes", 3)))
    second = Kernel("slopes_across", _across(3) + _BACK, shader_text("special"))
    gpu.each(first, {"slopes": slopes}, {"out": along}, image.size, params)
    reads = {"along": along, "image": image, "other": other, "v_l1": v_l1, "v_ssim": v_ssim}
    gpu.each(second, reads, {"out": out}, image.size, params)
    return out


def l1_ssim_backward(gpu: Gpu, x: Sequence[GpuBuffer], padding: str, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of both images; the second only if it is used."""
    image, other, slopes, v_l1, v_ssim = x
    results = [_from_slopes(gpu, image, other, slopes, v_l1, v_ssim)]
    if not used[1]:
        return [*results, gpu.memory.allocate(image.shape, DType.F32)]
    swapped, _ = _slopes(gpu, other, image, padding)
    return [*results, _from_slopes(gpu, other, image, swapped, v_l1, v_ssim)]


def ssim(gpu: Gpu, x: Sequence[GpuBuffer], padding: str) -> list[GpuBuffer]:
    """Mean SSIM."""
    return l1_ssim(gpu, x, padding)[1:2]


def ssim_backward(gpu: Gpu, x: Sequence[GpuBuffer], padding: str, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of the mean SSIM with respect to both images."""
    image, other, v_out = x
    zero = gpu.memory.allocate((), DType.F32)
    fill(gpu, zero, 0.0)
    results = []
    for a, b, is_used in ((image, other, used[0]), (other, image, used[1])):
        if is_used:
            results.append(_from_slopes(gpu, a, b, _slopes(gpu, a, b, padding)[0], zero, v_out))
        else:
            results.append(gpu.memory.allocate(image.shape, DType.F32))
    return results


_DIFFERENCE = Kernel("l1", "  out[i] = abs(image(i) - other(i));")
_L1_BACKWARD = "  let g = v_out(0u) * signum(image(i) - other(i)) / f32(P.count);\n  first[i] = g; second[i] = -g;"


def l1(gpu: Gpu, x: Sequence[GpuBuffer]) -> list[GpuBuffer]:
    """Mean absolute difference."""
    image, other = x
    difference, out = gpu.memory.allocate(image.shape, DType.F32), gpu.memory.allocate((), DType.F32)
    if not image.size:
        fill(gpu, out, _OF_NOTHING[0])
        return [out]
    gpu.each(_DIFFERENCE, {"image": image, "other": other}, {"out": difference}, image.size)
    axes = tuple(range(len(image.shape)))
    reduce(gpu, "sum", difference, axes, out, 1 / image.size)
    return [out]


def l1_backward(gpu: Gpu, x: Sequence[GpuBuffer]) -> list[GpuBuffer]:
    """Gradients of the mean absolute difference with respect to both images."""
    image, other, v_out = x
    results = [gpu.memory.allocate(image.shape, DType.F32), gpu.memory.allocate(image.shape, DType.F32)]
    kernel = Kernel("l1_backward", _L1_BACKWARD, shader_text("special"))
    reads = {"image": image, "other": other, "v_out": v_out}
    writes = {"first": results[0], "second": results[1]}
    gpu.each(kernel, reads, writes, image.size)
    return results
