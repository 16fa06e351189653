"""Colours from spherical harmonics (SH) on the GPU, and their gradients."""

from __future__ import annotations

from functools import lru_cache

from stipple import numerics as nx
from stipple.backends.gpu.constants import Attrs, declared
from stipple.backends.gpu.device import Gpu, groups_of
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.reduction import reduce
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import ShBackwardOperands, ShBackwardResults, ShOperands, ShResults


def sh(gpu: Gpu, x: ShOperands, attrs: Attrs) -> ShResults:
    """Results of splat_sh."""
    count, _, channels = x.sh.shape
    colors = gpu.memory.allocate((count, channels), DType.F32)
    kernel = Kernel("sh", shader_text("sh_forward"), _code(attrs["sh_degree"], channels))
    gpu.run(kernel, x._asdict(), {"colors": colors}, groups_of(count), _params(x))
    return ShResults(colors)


def sh_backward(gpu: Gpu, x: ShBackwardOperands, attrs: Attrs, used: ShBackwardResults) -> ShBackwardResults:
    """Gradients of splat_sh; that of the pose only if it is used."""
    count, _, channels = x.sh.shape
    results = ShBackwardResults(*(gpu.memory.allocate(b.shape, DType.F32) for b in (x.means, x.sh, x.viewmat)))
    kernel = Kernel("sh_backward", shader_text("sh_backward"), _code(attrs["sh_degree"], channels))
    writes = {"v_means": results.v_means, "v_sh": results.v_sh}
    gpu.run(kernel, x._asdict(), writes, groups_of(count), _params(x))
    if used.v_viewmat:
        sums = gpu.memory.allocate((3,), DType.F32)
        reduce(gpu, "sum", results.v_means, (0,), sums)
        gpu.each(_POSE_GRADIENT, {"sums": sums, "viewmat": x.viewmat}, {"v_viewmat": results.v_viewmat}, 16)
    return results


# The camera's centre is -R^T t, and its gradient the negated sum of the means' gradients.
_POSE_GRADIENT = Kernel(
    "pose_gradient",
    """
  let r = i / 4u; let c = i % 4u;
  var value = 0.0;
  if (r < 3u && c < 3u) { value = viewmat(4u * r + 3u) * sums(c); }
  if (r < 3u && c == 3u) {
    for (var k = 0u; k < 3u; k++) { value += viewmat(4u * r + k) * sums(k); }
  }
  v_viewmat[i] = value;""",
)


def _params(x: ShOperands | ShBackwardOperands) -> dict[str, int | float]:
    return {"count": x.sh.shape[0], "coefficients": x.sh.shape[1]}


def _code(degree: int, channels: int) -> str:
    """The code that both kernels share. Arrays have at least one element."""
    numbers = declared(
        CHANNELS=channels, COLORS=max(channels, 1), BASIS=nx.sh_coeff_count(degree), SH_OFFSET=nx.SH_OFFSET
    )
    return shader_text("special") + numbers + sh_basis(degree) + shader_text("sh")


def _number(value: float) -> str:
    text = f"{value:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _term(coefficient: float, powers: tuple[int, int, int]) -> str:
    factors = [_number(coefficient)]
    for name, power in zip(("d.x", "d.y", "d.z"), powers, strict=True):
        factors += [name] * power
    return " * ".join(factors)


@lru_cache(maxsize=8)
def sh_basis(degree: int) -> str:
    """``basis(d)``, values for a unit direction, and ``basis_gradient(d, w)``, the gradient of their weighted sum:
    written out from the polynomials in ``stipple.numerics``."""
    count = nx.sh_coeff_count(degree)
    values, gradients = [], []
    for k, monomials in enumerate(nx.SH_BASIS[:count]):
        values.append(f"  b[{k}] = " + " + ".join(_term(c, (i, j, m)) for c, i, j, m in monomials) + ";")
        for axis, name in enumerate("xyz"):
            parts = [
                _term(c * powers[axis], tuple(p - (a == axis) for a, p in enumerate(powers)))  # type: ignore[arg-type]
                for c, *powers in monomials
                if powers[axis]
            ]
            if parts:
                gradients.append(f"  g.{name} += w[{k}] * ({' + '.join(parts)});")
    lines = [f"fn basis(d: vec3<f32>) -> array<f32, {count}> {{", f"  var b = array<f32, {count}>();", *values]
    lines += ["  return b;", "}", f"fn basis_gradient(d: vec3<f32>, w: array<f32, {count}>) -> vec3<f32> {{"]
    lines += ["  var g = vec3<f32>(0.0);", *gradients, "  return g;", "}", ""]
    return "\n".join(lines)
