"""Adam, fused, in place; and the noise of MCMC training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import numpy as np

from stipple import numerics as nx
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.host.tensor import adam_factors
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.ops.optim import AdamOperands, AdamResults, AdamVisibleOperands

_ADAM = """
  let g = grad(i);
$guard
  let next_m = P.beta1 * m(i) + P.rest1 * g;
  let next_v = P.beta2 * v(i) + P.rest2 * g * g;
  next_param_out[i] = param(i) - $rate * inverse(0u) * next_m / (sqrt(next_v * inverse(1u)) + P.eps);
  next_m_out[i] = next_m;
  next_v_out[i] = next_v;"""
_ADAM_OVERWRITES = (("next_param_out", "param"), ("next_m_out", "m"), ("next_v_out", "v"))
_GUARD = """
  if (visible(i / P.width) == 0u) {
    next_param_out[i] = param(i); next_m_out[i] = m(i); next_v_out[i] = v(i);
    return;
  }"""


def adam(
    gpu: Gpu, node: Node, x: AdamOperands | AdamVisibleOperands, out: Sequence[GpuBuffer], dims: Mapping[str, int]
) -> None:
    """An adam or adam_visible node."""
    results = AdamResults(*out)
    params: dict[str, int | float] = {n: float(node.attrs[n]) for n in ("beta1", "beta2", "eps")}
    params |= {f"rest{k}": 1 - float(node.attrs[f"beta{k}"]) for k in (1, 2)}  # in float64: float32 would lose digits
    reads = {"param": x.param, "grad": x.grad, "m": x.m, "v": x.v, "lr": x.lr}
    reads["inverse"] = _inverse_factors(gpu, node, x.step)
    rate, guard = "lr(0u)", ""
    if x.lr.size > 1:
        params["columns"], rate = x.lr.size, "lr(i % P.columns)"
    if isinstance(x, AdamVisibleOperands):
        reads["visible"], guard = x.visible, _GUARD
        params["width"] = math.prod(x.param.shape[1:])
    kernel = Kernel(node.op, Template(_ADAM).substitute(guard=guard, rate=rate), overwrites=_ADAM_OVERWRITES)
    writes = {"next_param_out": results.param, "next_m_out": results.m, "next_v_out": results.v}
    gpu.each(kernel, reads, writes, x.param.size, params)


_FACTORS = """
  let x = step_(0u) * logs(i);
  var factor = 1.0 - exp(x);
  if (x > -0.5) {  // here 1 - exp(x) would cancel: use its series
    factor = 1.0;
    for (var k = 9.0; k > 1.0; k -= 1.0) { factor = 1.0 + factor * x / k; }
    factor *= -x;
  }
  out[i] = 1.0 / factor;"""


def _inverse_factors(gpu: Gpu, node: Node, step: GpuBuffer) -> GpuBuffer:
    """The bias corrections, once for all parameters of a step. An array, because they change with every step, and
    changed constants would need new bindings."""
    key = f"adam {node.attrs['beta1']} {node.attrs['beta2']}"
    if key not in step.derived:
        known = step.host is not None
        step.derived[key] = _factors_by_host(gpu, node, step) if known else _factors_by_device(gpu, node, step)
    factors: GpuBuffer = step.derived[key]
    return factors


def _factors_by_host(gpu: Gpu, node: Node, step: GpuBuffer) -> GpuBuffer:
    assert step.host is not None
    return gpu.memory.upload(1 / np.array(adam_factors(node, step.host)), DType.F32)


def _factors_by_device(gpu: Gpu, node: Node, step: GpuBuffer) -> GpuBuffer:
    """The same for a step that only the device knows. It writes only its own buffer, so it runs even in an unusable
    run: a later run with the same step may use the result."""
    logs = [math.log(beta) if beta else -200.0 for beta in (node.attrs["beta1"], node.attrs["beta2"])]
    reads = {"step_": step, "logs": gpu.memory.upload(np.array(logs), DType.F32)}
    out = gpu.memory.allocate((2,), DType.F32)
    gpu.each(Kernel("adam_factors", _FACTORS, always=True), reads, {"out": out}, 2)
    return out


_HASH = f"""
fn hash4(words: vec4<u32>) -> vec4<u32> {{
  var v = words * {nx.PCG_FACTOR}u + {nx.PCG_TERM}u;
  v.x += v.y * v.w; v.y += v.z * v.x; v.z += v.x * v.y; v.w += v.y * v.z;
  v = v ^ (v >> vec4<u32>(16u));
  v.x += v.y * v.w; v.y += v.z * v.x; v.z += v.x * v.y; v.w += v.y * v.z;
  return v;
}}
"""
_NOISE = f"""
  let words = hash4(vec4<u32>(i, u32(key(0u)), u32(key(1u)), 0u));
  let u = (vec4<f32>(words >> vec4<u32>(8u)) + 0.5) * {2.0**-24};
  let r = sqrt(-2.0 * log(u.x)); let s = sqrt(-2.0 * log(u.z));
  let whole = {2 * math.pi};
  let normal = vec3<f32>(r * cosine(whole * u.y), r * sine(whole * u.y), s * cosine(whole * u.w));
  let raw = vec4<f32>(quats(4u * i), quats(4u * i + 1u), quats(4u * i + 2u), quats(4u * i + 3u));
  let mean = vec3<f32>(means(3u * i), means(3u * i + 1u), means(3u * i + 2u));
  let q = raw / length(raw);
  let w = q.x; let x = q.y; let y = q.z; let z = q.w;
  let axes = mat3x3<f32>(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
  let scale = vec3<f32>(scales(3u * i), scales(3u * i + 1u), scales(3u * i + 2u));
  let gate = amount(0u) / (1.0 + exp({nx.NOISE_STEEPNESS} * (opacities(i) - {1 - nx.NOISE_MIDDLE})));
  let moved = mean + axes * (gate * scale * scale * (transpose(axes) * normal));
  let good = dot(raw, raw) > 0.0 && is_finite(moved.x) && is_finite(moved.y) && is_finite(moved.z);
  next_out[3u * i] = select(mean.x, moved.x, good);
  next_out[3u * i + 1u] = select(mean.y, moved.y, good);
  next_out[3u * i + 2u] = select(mean.z, moved.z, good);"""


def noise(gpu: Gpu, node: Node, x: Any, out: Sequence[GpuBuffer], dims: Mapping[str, int]) -> None:
    """A splat_noise node."""
    functions = shader_text("special") + shader_text("trigonometry") + _HASH
    kernel = Kernel("splat_noise", _NOISE, functions, overwrites=(("next_out", "means"),))
    gpu.each(kernel, x._asdict(), {"next_out": out[0]}, x.means.shape[0])
