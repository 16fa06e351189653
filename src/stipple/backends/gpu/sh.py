"""Spherical harmonics (SH) as WGSL, written out from the polynomials in ``stipple.numerics``."""

from __future__ import annotations

from functools import lru_cache

from stipple import numerics as nx


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
    """``basis(d)``, values for a unit direction, and ``basis_gradient(d, w)``, the gradient of their weighted sum."""
    count = nx.sh_coeff_count(max(degree, 0))
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
