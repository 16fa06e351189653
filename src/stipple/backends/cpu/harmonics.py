"""Colours of the visible Gaussians from spherical harmonics, and gradients back."""

from __future__ import annotations

import math

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel
from stipple.backends.cpu.harmonics_basis import basis, basis_gradient

f4 = np.float32
ZERO, ONE = f4(0), f4(1)
OFFSET = f4(nx.SH_OFFSET)
MAX_COEFFICIENTS = nx.sh_coeff_count(nx.MAX_SH_DEGREE)


@inline
def direction(means, i, position):
    """Unit direction from the camera to a Gaussian, and one over the distance."""
    x, y, z = means[i, 0] - position[0], means[i, 1] - position[1], means[i, 2] - position[2]
    scale = ONE / math.sqrt(x * x + y * y + z * z)
    return x * scale, y * scale, z * scale, scale


@inline
def cull(i, radii, means2d, conics, opacities, depths):
    """Take a Gaussian out: radii 0 and zeros."""
    radii[i, 0] = 0
    radii[i, 1] = 0
    means2d[i, 0] = ZERO
    means2d[i, 1] = ZERO
    opacities[i] = ZERO
    depths[i] = ZERO
    for k in range(conics.shape[1]):
        conics[i, k] = ZERO


_FOOTPRINTS = "i4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f4[::1],f4[:,::1]"


@kernel(f"void(i8,i8,f4[:,::1],{_FOOTPRINTS})")
def copy_colors(start, end, colors, radii, means2d, conics, opacities, depths, out):
    """Colours as they are, for visible Gaussians; one whose colour is not finite is culled."""
    channels = colors.shape[1]
    for i in range(start, end):
        visible = radii[i, 0] > 0
        for c in range(channels):
            visible &= abs(colors[i, c]) < f4(np.inf)
        for c in range(channels):
            out[i, c] = colors[i, c] if visible else ZERO
        if not visible:
            cull(i, radii, means2d, conics, opacities, depths)


@kernel(f"void(i8,i8,f4[:,::1],f4[:,:,::1],f4[::1],i8,{_FOOTPRINTS})")
def evaluate(start, end, means, sh, position, degree, radii, means2d, conics, opacities, depths, out):
    """Harmonics + 0.5, clamped at 0, for visible Gaussians; one whose colour is not finite is culled."""
    channels = sh.shape[2]
    count = (degree + 1) * (degree + 1)
    values = np.empty(MAX_COEFFICIENTS, np.float32)
    for i in range(start, end):
        visible = radii[i, 0] > 0
        if visible:
            x, y, z, _ = direction(means, i, position)
            basis(x, y, z, degree, values)
            for c in range(channels):
                total = OFFSET
                for k in range(count):
                    total += values[k] * sh[i, k, c]
                visible &= abs(total) < f4(np.inf)
                out[i, c] = max(total, ZERO)
        if not visible:
            for c in range(channels):
                out[i, c] = ZERO
            cull(i, radii, means2d, conics, opacities, depths)


@kernel("void(i8,i8,f4[:,::1],f4[:,:,::1],f4[::1],i8,i4[:,::1],f4[:,::1],f4[:,::1],f4[:,:,::1],f8[::1])")
def evaluate_backward(start, end, means, sh, position, degree, radii, v_seen, v_means, v_sh, v_cam):
    """Gradients in the coefficients; in the means, added to ``v_means``; in the camera's position, summed."""
    channels, coefficients = sh.shape[2], sh.shape[1]
    count = (degree + 1) * (degree + 1)
    values, weights = np.empty(MAX_COEFFICIENTS, np.float32), np.empty(MAX_COEFFICIENTS, np.float32)
    for i in range(start, end):
        if radii[i, 0] <= 0:
            for k in range(coefficients):
                for c in range(channels):
                    v_sh[i, k, c] = ZERO
            continue
        x, y, z, scale = direction(means, i, position)
        basis(x, y, z, degree, values)
        for k in range(count):
            weights[k] = ZERO
        for c in range(channels):
            total = OFFSET
            for k in range(count):
                total += values[k] * sh[i, k, c]
            v = v_seen[i, c] if total > ZERO else ZERO
            for k in range(count):
                v_sh[i, k, c] = values[k] * v
                weights[k] += sh[i, k, c] * v
        for k in range(count, coefficients):
            for c in range(channels):
                v_sh[i, k, c] = ZERO
        if degree > 0:
            gx, gy, gz = basis_gradient(x, y, z, degree, weights)
            along = gx * x + gy * y + gz * z
            gx, gy, gz = (gx - x * along) * scale, (gy - y * along) * scale, (gz - z * along) * scale
            v_means[i, 0] += gx
            v_means[i, 1] += gy
            v_means[i, 2] += gz
            v_cam[16] -= gx
            v_cam[17] -= gy
            v_cam[18] -= gz
