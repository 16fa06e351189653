"""More than colours: normals, median depth and how crowded each pixel is, from one graph of the small splat ops.

A fisheye looks at a garden of flat Gaussians, each turned the way the points around it lie. Colours and normals are
features of the Gaussians and are composited together; the median depth and the number of contributors are further
results of the rasterizer, computed because they are asked for here. Writes ``out/features.png``: colour, normals,
depth, contributors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from garden import DATA, points_to_gaussians
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from stipple import ir
from stipple.runtime import Session

WIDTH, HEIGHT = 480, 320
LENS = [0.02, -0.004, 0.0, 0.0]


def build() -> ir.Graph:
    """Gaussians and a fisheye camera in; an image of six features, median depth and counts out."""
    graph = ir.Graph("features")
    means, quats = graph.input("means", ["N", 3]), graph.input("quats", ["N", 4])
    scales, opacities = graph.input("scales", ["N", 3]), graph.input("opacities", ["N"])
    sh = graph.input("sh", ["N", 1, 3])
    viewmat, intrinsics = graph.input("viewmat", [4, 4]), graph.input("intrinsics", [3, 3])
    size = {"width": WIDTH, "height": HEIGHT}

    lens = graph.constant(np.array(LENS, np.float32))
    p = ir.splat_project(
        means, quats, scales, opacities, viewmat, intrinsics, distortion=lens, camera_model="fisheye", **size
    )
    colors = ir.splat_sh(means, sh, viewmat, p.radii, sh_degree=0)
    normals = ir.splat_normals(means, quats, scales, viewmat)
    features = ir.concat([colors, normals], axis=1)
    lists = ir.splat_bin(p.means2d, p.conics, opacities, p.radii, p.depths, **size)
    background = graph.constant(np.array([0.5, 0.6, 0.7, 0, 0, 0], np.float32))
    r = ir.splat_rasterize(p.means2d, p.conics, opacities, features, background, *lists, **size)

    graph.output("image", r.image)
    graph.output("depth", ir.splat_median_depth(p.depths, r.median_ids))
    graph.output("counts", r.counts)
    return graph


def flat(means: np.ndarray) -> np.ndarray:
    """Quaternions wxyz that turn the third axis to where points vary least around each point."""
    _, near = cKDTree(means).query(means, k=9, workers=-1)
    around = means[near] - means[near].mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    normal, side = axes[:, :, 0], axes[:, :, 2]
    matrices = np.stack([side, np.cross(normal, side), normal], axis=2)
    return Rotation.from_matrix(matrices).as_quat()[:, [3, 0, 1, 2]].astype(np.float32)


def main() -> None:
    """Render and save."""
    with np.load(DATA) as file:
        scene = points_to_gaussians(file["means3d"], file["colors"])
        viewmat = file["viewmats"][0].astype(np.float32)
    focal = 0.32 * WIDTH
    feeds = {
        "means": scene.means,
        "quats": flat(scene.means),
        "scales": scene.scales * np.float32([1.3, 1.3, 0.3]),
        "opacities": scene.opacities,
        "sh": scene.sh[:, :1],
        "viewmat": viewmat,
        "intrinsics": np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]], np.float32),
    }
    out = Session().compile(build()).run(feeds)

    normals = 0.5 - 0.5 * out["image"][..., 3:]  # towards the camera is bright
    nearness = np.where(out["depth"] > 0, 1 / np.maximum(out["depth"], 1e-6), 0)
    grey = [np.repeat((x / np.percentile(x, 99))[..., None], 3, axis=2) for x in (nearness, out["counts"])]
    rows = [np.hstack([out["image"][..., :3], normals]), np.hstack(grey)]
    Path("out").mkdir(exist_ok=True)
    Image.fromarray((np.vstack(rows).clip(0, 1) * 255).astype(np.uint8)).save("out/features.png")
    print(f"out/features.png: up to {out['counts'].max()} Gaussians in a pixel")


if __name__ == "__main__":
    main()
