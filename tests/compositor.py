"""A second, independent way to composite prepared Gaussians: all Gaussians at all pixels, no tiles.

It also tells how far each pixel is from every discrete choice, so that derivatives can be compared where they
exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Composite:
    rgba: np.ndarray
    depth: np.ndarray
    safe: np.ndarray  # pixels that no choice is near to


def composite(
    out: dict[str, np.ndarray], background: np.ndarray, attrs: dict[str, Any], margin: float = 5e-3
) -> Composite:
    """Composite the results of prepare, Gaussian by Gaussian over the whole image."""
    height, width = attrs["height"], attrs["width"]
    cutoff = attrs.get("alpha_cutoff", 1 / 255)
    threshold = attrs.get("transmittance_threshold", 1e-4)
    most = attrs.get("max_splat_steps", 0) or np.inf
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    channels = out["colors"].shape[1]
    color, depth = np.zeros((height, width, channels)), np.zeros((height, width))
    light = np.ones((height, width))
    open_, steps, safe = np.ones_like(light, bool), np.zeros_like(light), np.ones_like(light, bool)
    visible = np.flatnonzero((out["radii"][:, 0] > 0) & np.isfinite(out["colors"]).all(axis=1))
    for i in sorted(visible, key=lambda i: (out["depths"][i], i)):
        dx, dy = x - out["means2d"][i, 0], y - out["means2d"][i, 1]
        a, b, c = out["conics"][i, :3]
        sigma = 0.5 * (a * dx**2 + 2 * b * dx * dy + c * dy**2)
        if attrs.get("projection", "ewa") == "ray":
            p, q, e, f, g = out["conics"][i, 3:]
            sigma = sigma / (1 + 2 * p * dx + 2 * q * dy + e * dx**2 + 2 * f * dx * dy + g * dy**2)
        raw = out["opacities"][i] * np.exp(-sigma)
        alpha = np.minimum(raw, 0.99)
        edge = 0.5 * 3.33**2
        if cutoff > 0:
            edge = min(edge, np.log(out["opacities"][i] / cutoff))
        touches = open_ & (sigma <= edge)
        after = light * (1 - alpha)
        near = np.abs(sigma - edge) < margin
        near |= touches & (np.abs(raw - 0.99) < margin)
        near |= touches & (np.abs(after / max(threshold, 1e-300) - 1) < margin)
        safe &= ~(open_ & near)
        stops = touches & ((after <= threshold) | (steps >= most))
        open_ &= ~stops
        takes = touches & ~stops
        weight = np.where(takes, light * alpha, 0)
        color += weight[..., None] * out["colors"][i]
        depth += weight * out["depths"][i]
        light = np.where(takes, after, light)
        steps += takes
    rgba = np.concatenate([color + light[..., None] * background, 1 - light[..., None]], axis=2)
    return Composite(rgba, depth, safe)
