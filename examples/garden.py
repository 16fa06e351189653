"""A real scene from points to pictures: make Gaussians, save a splat PLY, and render it with the command line.

The points are those that structure from motion found in photos of a garden (see data/README.md). Each becomes a
round Gaussian as large as half the distance to its neighbours: what training starts from. Writes ``out/garden.ply``,
``out/garden.png`` and ``out/garden_depth.png``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from stipple import Gaussians
from stipple.formats import save_ply

DATA = Path(__file__).parent / "data" / "garden_points.npz"


def points_to_gaussians(points: np.ndarray, colors: np.ndarray) -> Gaussians:
    """Round Gaussians whose sigma is half the mean distance to the three nearest points; stray points are left out."""
    distances, _ = cKDTree(points).query(points, k=4, workers=-1)
    apart = distances[:, 1:].mean(axis=1)
    kept = apart < np.percentile(apart, 98)
    return Gaussians.from_linear(points[kept], 0.5 * np.clip(apart[kept], 1e-4, 0.03), 0.85, colors[kept] / 255)


def main() -> None:
    """Make the scene and render it."""
    with np.load(DATA) as file:
        scene = points_to_gaussians(file["means3d"], file["colors"])
        viewmat, intrinsics = file["viewmats"][0], file["Ks"][0]
        height = int(file["height"])
    out = Path("out")
    out.mkdir(exist_ok=True)
    save_ply(scene, out / "garden.ply")

    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    position = -rotation.T @ translation
    fov = np.rad2deg(2 * np.arctan(0.5 * height / intrinsics[1, 1]))
    words = {
        "-o": str(out / "garden.png"),
        "--depth": str(out / "garden_depth.png"),
        "--from": ",".join(f"{v:.4f}" for v in position),
        "--look-at": ",".join(f"{v:.4f}" for v in position + rotation[2]),
        "--up": ",".join(f"{v:.4f}" for v in -rotation[1]),
        "--fov": f"{fov:.2f}",
        "--size": "1296x840",
        "--background": "0.5,0.6,0.7",
    }
    command = ["render", str(out / "garden.ply"), *(w for pair in words.items() for w in pair)]
    print("stipple " + " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", "stipple", *command], check=True)
    print("Now try: stipple info out/garden.ply")
    turn = f"--from {words['--from']} --look-at 0,0,0.2 --up 0,0,1"
    print(f"         stipple render out/garden.ply -o out/turn.mp4 --size 640x360 {turn}")


if __name__ == "__main__":
    main()
