"""SSIM at the borders of the blocks in which devices sum over windows, and of the image."""

from __future__ import annotations

import numpy as np
import pytest

from backends.devices.held_to_reference import compare
from stipple import ir
from stipple.runtime import Session

SIZES = [(1, 1), (4, 40), (11, 11), (16, 16), (17, 33), (48, 15), (50, 31)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_images_of_every_size(size: tuple[int, int], channels: int, session: Session) -> None:
    rng = np.random.default_rng(channels)
    shape = (*size, channels)
    images = {name: rng.uniform(size=shape).astype(np.float32) for name in ("a", "b")}
    outcomes = []
    for device, dtype in ((session, "f32"), (Session("reference"), "f64")):
        graph = ir.Graph("t")
        a, b = (graph.input(name, shape, dtype) for name in images)
        paddings = ("same", "valid") if min(size) >= 11 else ("same",)
        for padding in paddings:
            ssim = ir.image_ssim(a, b, padding=padding)
            graph.output(f"ssim_{padding}", ssim)
            for name, value in zip("ab", ir.grad(graph, ssim, [a, b]), strict=True):
                graph.output(f"v_{name}_{padding}", value)
        feeds = {n: x.astype(np.float64 if dtype == "f64" else np.float32) for n, x in images.items()}
        outcomes.append(device.compile(graph).run(feeds))
    given, wanted = outcomes
    for name, array in wanted.items():
        compare(name, given[name], array)
