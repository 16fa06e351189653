"""Footprints and their lists, rasterized on the CPU and by the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.cpu import calls
from stipple import numerics as nx
from stipple.backends.cpu.threads import Threads
from stipple.backends.reference import composite as reference
from stipple.ir.ops.splat import (
    RasterizeBackwardOperands,
    RasterizeBackwardResults,
    RasterizeOperands,
    RasterizeResults,
)

Array = np.ndarray
Attrs = dict[str, Any]
THREADS = Threads(2)
EVERYTHING = RasterizeResults(*[True] * 6)
USUAL = RasterizeResults(True, True, True, True, False, False)
GRADIENTS = RasterizeBackwardResults(*[True] * 6)
SIGNED = RasterizeBackwardResults(*[True] * 5, False)


def make_attrs(width: int = 50, height: int = 37, projection: str = "ewa", **more: Any) -> Attrs:
    attrs = {
        "width": width,
        "height": height,
        "tile_size": nx.TILE_SIZE,
        "alpha_cutoff": nx.ALPHA_CUTOFF,
        "projection": projection,
        "transmittance_threshold": nx.TRANSMITTANCE_THRESHOLD,
        "max_splat_steps": 0,
    }
    return {**attrs, **more}


def make_footprints(seed: int, features: int, attrs: Attrs, count: int = 60) -> RasterizeOperands:
    """Ellipses of one to eight pixels, all of them in all tiles' lists, each list in an order of its own."""
    rng = np.random.default_rng(seed)
    angle, size = rng.uniform(0, np.pi, count), rng.uniform(1, 8, (count, 2))
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(count, 2, 2)
    inverse = np.einsum("nki,nk,nkj->nij", turn, size**-2.0, turn)
    conics = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    if attrs["projection"] == "ray":
        conics = np.column_stack([conics, rng.uniform(-1, 1, (count, 5)) * ([0.003] * 2 + [0.0002] * 3)])
    across, down = (-(-attrs[side] // attrs["tile_size"]) for side in ("width", "height"))
    lists = [rng.permutation(count) for _ in range(across * down)]
    ends = np.arange(1, len(lists) + 1) * count
    return RasterizeOperands(
        means2d=rng.uniform(-4, [attrs["width"] + 4, attrs["height"] + 4], (count, 2)).astype(np.float32),
        conics=conics.astype(np.float32),
        opacities=rng.uniform(0.02, 1, count).astype(np.float32),
        features=rng.uniform(size=(count, features)).astype(np.float32),
        background=rng.uniform(size=features).astype(np.float32),
        tile_ranges=np.stack([ends - count, ends], -1).astype(np.int32),
        sorted_ids=np.concatenate(lists).astype(np.int32),
    )


def exactly(record: Any) -> Any:
    """The same numbers in float64."""
    return type(record)(*(a.astype(np.float64) if a.dtype == np.float32 else a for a in record))


def backward_operands(x: RasterizeOperands, images: RasterizeResults, seed: int = 9) -> RasterizeBackwardOperands:
    """With any gradients of the image and alpha."""
    rng = np.random.default_rng(seed)
    v_image = rng.normal(size=images.image.shape).astype(x.means2d.dtype)
    v_alpha = rng.normal(size=images.alpha.shape).astype(x.means2d.dtype)
    return RasterizeBackwardOperands(*x, images.image, images.transmittance, images.last_ids, v_image, v_alpha)


def near(made: Array, wanted: Array, tolerance: float, name: str) -> None:
    """Equal but for rounding; a few numbers may be apart, for a pixel at the edge of a footprint may be on either
    side."""
    assert made.shape == wanted.shape, name
    assert np.isfinite(made).all(), name
    scale = max(np.abs(wanted).max(initial=0), 1e-3)
    apart = np.abs(made - wanted) > tolerance * scale
    assert apart.mean() <= 0.01, (name, np.abs(made - wanted).max() / scale, apart.mean())
    assert np.abs(made - wanted).max(initial=0) <= 0.02 * scale, name


def check(x: RasterizeOperands, attrs: Attrs, used: RasterizeResults = USUAL, magnitudes: bool = False) -> None:
    """Forward and gradients beside the reference's."""
    made, wanted = calls.rasterized(x, attrs, THREADS, used), reference.rasterize(exactly(x), attrs)
    for name in ("image", "alpha", "transmittance"):
        near(getattr(made, name), getattr(wanted, name), 2e-5, name)
    for name in ("last_ids", "median_ids", "counts"):
        if getattr(used, name):
            assert (getattr(made, name) != getattr(wanted, name)).mean() <= 0.005, name
            assert getattr(made, name).dtype == np.int32
    operands = backward_operands(x, made)
    given = calls.rasterize_backward(operands, attrs, THREADS, GRADIENTS if magnitudes else SIGNED)
    back = reference.rasterize_backward(exactly(operands), attrs)
    for name in RasterizeBackwardResults._fields[: 6 if magnitudes else 5]:
        near(getattr(given, name), getattr(back, name), 1e-3, name)
