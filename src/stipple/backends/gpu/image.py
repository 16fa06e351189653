"""L1 and SSIM, forward and gradient: each way one kernel, which sums over windows along rows and across them."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

import numpy as np

from stipple import numerics as nx
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import declared
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


_SIDE = 16
_WIDE = _SIDE + 2 * _HALF


def _summed(maps: int, take: str, step: int) -> str:
    """Sums s0, s1, ... over a window; ``take`` computes terms v0, v1, ... of the element ``at``, the window's next one
    is ``step`` further."""
    offsets = np.arange(nx.SSIM_WINDOW) - _HALF
    values = np.exp(-(offsets**2) / (2 * nx.SSIM_SIGMA**2))
    add = " ".join(f"s{m} += $w * v{m};" for m in range(maps))
    lines = [f"    var s{m} = 0.0;" for m in range(maps)]
    for k, weight in enumerate(values / values.sum()):
        lines.append(f"    {{ let at = first + {k * step}u; {take} {add} }}".replace("$w", f"{weight:.9g}"))
    return "\n".join(lines)


def _windowed(name: str, arrays: tuple[str, ...], terms: tuple[str, ...], finish: str, functions: str = "") -> Kernel:
    """A kernel that sums terms over windows, s0, s1, ..., in one pass. ``arrays`` are expressions for their elements
    ``at``, which terms refer to as a0, a1, ...; ``finish`` uses the sums at the element i."""
    load = "\n".join(
        f"    var a{n} = 0.0; if (inside) {{ a{n} = {array}; }} s_loaded[{n * _WIDE**2}u + k] = a{n};"
        for n, array in enumerate(arrays)
    )
    loaded = " ".join(f"let a{n} = s_loaded[{n * _WIDE**2}u + at];" for n in range(len(arrays)))
    values = " ".join(f"let v{m} = {term};" for m, term in enumerate(terms))
    rows = _SIDE * _WIDE
    along = [f"    s_along[{m * rows}u + k] = s{m};" for m in range(len(terms))]
    sums = " ".join(f"let v{m} = s_along[{m * rows}u + at];" for m in range(len(terms)))
    code = Template(shader_text("windows")).substitute(
        load=load, along="\n".join([_summed(len(terms), f"{loaded} {values}", 1), *along]),
        across=f"  let first = lid;\n{_summed(len(terms), sums, _SIDE)}", finish=finish,
    )  # fmt: skip
    constants = declared(HALF=_HALF, LOADED=len(arrays) * _WIDE**2, ALONG=len(terms) * rows)
    return Kernel(name, constants + code, functions)


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
_MOMENTS = _windowed("ssim_slopes", ("image(at)", "other(at)"), ("a0", "a1", "a0 * a0", "a1 * a1", "a0 * a1"), _SLOPES)
_BACK = """
  let d = image(i) - other(i);
  out[i] = v_l1(0u) * signum(d) / f32(P.count) + v_ssim(0u) * (s0 + 2.0 * image(i) * s1 + other(i) * s2);"""
_GRADIENT = _windowed(
    "ssim_gradient", tuple(f"slopes({m}u * P.count + at)" for m in range(3)), ("a0", "a1", "a2"), _BACK,
    shader_text("special"),
)  # fmt: skip


def _params(image: GpuBuffer, padding: str) -> dict[str, int | float]:
    height, width, channels = image.shape
    margin = _HALF if padding == "valid" else 0
    if padding == "valid" and min(height, width) < nx.SSIM_WINDOW:
        raise InputError(f"image_ssim: padding 'valid' needs an image of at least 11 x 11, got {width} x {height}")
    windows = max((height - 2 * margin) * (width - 2 * margin) * channels, 1)
    blocks = -(-width // _SIDE)
    return {
        "height": height, "width": width, "channels": channels, "margin": margin, "share": 1 / windows,
        "count": image.size, "blocks": blocks, "groups": blocks * -(-height // _SIDE) * channels,
    }  # fmt: skip


def _slopes(gpu: Gpu, image: GpuBuffer, other: GpuBuffer, padding: str) -> tuple[GpuBuffer, GpuBuffer]:
    """SSIM's slopes [3, H, W, C] for ``image``, and each pixel's share of SSIM and of L1 [2, H * W * C]."""
    params = _params(image, padding)
    slopes, terms = gpu.memory.allocate((3, *image.shape), DType.F32), gpu.memory.allocate((2, image.size), DType.F32)
    writes = {"slopes": slopes, "terms": terms}
    gpu.run(_MOMENTS, {"image": image, "other": other}, writes, int(params["groups"]), params)
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
    out = gpu.memory.allocate(image.shape, DType.F32)
    reads = {"slopes": slopes, "image": image, "other": other, "v_l1": v_l1, "v_ssim": v_ssim}
    gpu.run(_GRADIENT, reads, {"out": out}, int(params["groups"]), params)
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
