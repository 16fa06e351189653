"""Build a graph that renders a small scene, run it on the reference backend, and save the picture.

The scene is a trefoil knot of a few hundred flat Gaussians, coloured along the way. Writes
``out/first_picture.png`` (colour beside depth) and ``out/first_picture.safetensors`` (the graph).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from stipple import ir
from stipple.compat import rlx
from stipple.runtime import Session

WIDTH, HEIGHT, COUNT = 400, 300, 420


def trefoil(count: int) -> dict[str, np.ndarray]:
    """Gaussians along a knot, each stretched along the curve and turned to follow it."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    curve = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], axis=1)
    tangent = np.roll(curve, -1, axis=0) - np.roll(curve, 1, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # The rotation that takes the x axis to the tangent, as a quaternion wxyz (unnormalised is fine).
    quats = np.concatenate([1 + tangent[:, :1], np.cross([1.0, 0, 0], tangent)], axis=1)
    hue = t[:, None] + np.array([0, 2, 4]) * np.pi / 3
    return {
        "means": curve.astype(np.float32),
        "quats": quats.astype(np.float32),
        "scales": np.tile(np.float32([0.09, 0.11, 0.11]), (count, 1)),
        "opacities": np.full(count, 0.85, np.float32),
        "colors": (0.55 + 0.45 * np.cos(hue)).astype(np.float32),
    }


def build() -> ir.Graph:
    """A graph from Gaussians (any number of them) to the image that a look-at camera renders."""
    graph = rlx.Graph("first_picture")
    means = graph.input("means", ["N", 3])
    quats = graph.input("quats", ["N", 4])
    scales = graph.input("scales", ["N", 3])
    opacities = graph.input("opacities", ["N"])
    colors = graph.input("colors", ["N", 3])
    params = rlx.GaussianSplatRenderParams(WIDTH, HEIGHT, radius_scale=1.0, max_splat_steps=0, max_list_entries=0)
    meta = graph.gaussian_splat_render_meta(
        camera_position=[2.0, 4.0, -9.0],
        camera_target=[0.0, -0.2, 0.0],
        camera_up=[0.0, 1.0, 0.0],
        fov_y_degrees=40.0,
        near=0.1,
        far=100.0,
        background=[0.06, 0.07, 0.10],
        params=params,
    )
    camera = ir.splat_camera(meta, **params.attrs())
    image = ir.splat_render(
        means,
        quats,
        scales,
        opacities,
        colors,
        camera.viewmat,
        camera.intrinsics,
        camera.background,
        camera.clip,
        width=WIDTH,
        height=HEIGHT,
    )
    graph.output("rgba", image.rgba)
    alpha = ir.narrow(image.rgba, 2, 3, 1)
    graph.output("depth", image.depth / ir.maximum(ir.reshape(alpha, [HEIGHT, WIDTH]), 1e-6))
    return graph


def picture(rgba: np.ndarray, depth: np.ndarray) -> Image.Image:
    """Colour beside depth: near is bright, empty is black."""
    covered = rgba[..., 3] > 0.5
    shade = np.zeros_like(depth)
    shade[covered] = 1 - 0.85 * (depth[covered] - depth[covered].min()) / np.ptp(depth[covered])
    both = np.concatenate([rgba[..., :3], np.repeat(shade[..., None], 3, axis=2)], axis=1)
    return Image.fromarray((both.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def main() -> None:
    """Build, compile, run, save."""
    graph = build()
    print(graph)
    executable = Session("reference").compile(graph)
    out = executable.run(trefoil(COUNT), timings=True)
    print(executable.report())
    folder = Path("out")
    folder.mkdir(exist_ok=True)
    picture(out["rgba"], out["depth"]).save(folder / "first_picture.png")
    ir.save(graph, folder / "first_picture.safetensors")
    print(f"\nSaved {folder / 'first_picture.png'}: colour beside depth, {WIDTH} x {HEIGHT}, {COUNT} Gaussians.")
    print(f"Look at the graph: python -m stipple.ir show {folder / 'first_picture.safetensors'}")


if __name__ == "__main__":
    main()
