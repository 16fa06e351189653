"""How far EWA's footprints are from the exact projection of a Gaussian, by camera model, angle and size.

    python benchmarks/ewa_error.py

EWA maps a Gaussian by the camera's derivative at its mean. Here Gaussians are round, ``size`` times as wide as they
are far (one sigma over distance), and their means are seen at an angle from the optical axis. Their exact image is
found from points: Gauss-Hermite nodes, which give the moments of a smooth map to many digits. Printed are, in per
cent, the distance between the means over the footprint's larger sigma, and the error of the larger and the smaller
sigma. The image is so large that no limit of the frame is met.
"""

from __future__ import annotations

import numpy as np

from stipple import ir
from stipple.runtime import Session

FOCAL = 500.0
SIDE = 1 << 20
ANGLES = (0, 15, 30, 45, 60, 75, 85)
SIZES = (0.01, 0.05)
NODES = 9
BARREL = [-0.12, 0.005, 0.0, 0.0, 0.0, 0.0, 0.001, -0.001]
"""k1 to k6, p1, p2 of a wide-angle lens; its distortion stops growing 62 degrees from the axis."""
MODELS = {
    "pinhole": ("pinhole", []),
    "pinhole, distorted": ("pinhole", BARREL),
    "fisheye": ("fisheye", [-0.02, 0.004, -0.001, 0.0001]),
    "ortho": ("ortho", []),
}


def project(points: np.ndarray, scale: float, camera_model: str, distortion: list[float]) -> dict[str, np.ndarray]:
    """Footprints of round Gaussians at camera-space points [n, 3]."""
    graph = ir.Graph("footprints")
    count = len(points)
    arrays = {
        "means": points,
        "quats": np.tile([1.0, 0, 0, 0], (count, 1)),
        "scales": np.full((count, 3), scale),
        "opacities": np.ones(count),
        "viewmat": np.eye(4),
        "intrinsics": np.array([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]]),
        "clip": np.array([1e-4, 1e6]),
        "distortion": np.array(distortion),
    }
    values = {name: graph.input(name, array.shape, "f64") for name, array in arrays.items()}
    footprints = ir.splat_project(**values, width=SIDE, height=SIDE, camera_model=camera_model, eps2d=0.0)
    for name in ("means2d", "conics", "radii"):
        graph.output(name, getattr(footprints, name))
    return Session("reference").compile(graph).run(arrays)


def nodes() -> tuple[np.ndarray, np.ndarray]:
    """Points [n, 3] and weights of the standard normal distribution in space."""
    x, w = np.polynomial.hermite_e.hermegauss(NODES)
    weights = np.einsum("i,j,k->ijk", w, w, w).ravel()
    return np.stack(np.meshgrid(x, x, x, indexing="ij"), axis=-1).reshape(-1, 3), weights / weights.sum()


def error(angle: float, size: float, camera_model: str, distortion: list[float]) -> str:
    """Errors of mean and sigmas in per cent; a dash where the Gaussian reaches behind the camera or beyond the lens."""
    theta = np.deg2rad(angle)
    mean = np.array([np.sin(theta) * np.cos(0.6), np.sin(theta) * np.sin(0.6), np.cos(theta)])
    ewa = project(mean[None], size, camera_model, distortion)
    offsets, weights = nodes()
    exact = project(mean + size * offsets, 1e-9, camera_model, distortion)
    reached = (exact["radii"] > 0).all(axis=1)
    if not ewa["radii"].all() or weights[~reached].sum() > 1e-6:
        return f"{'-':>20}"
    pixels, weights = exact["means2d"][reached], weights[reached] / weights[reached].sum()
    center = weights @ pixels
    cov = np.einsum("n,ni,nj->ij", weights, pixels - center, pixels - center)
    a, b, c = ewa["conics"][0]
    sigmas = np.sqrt(np.linalg.eigvalsh(np.array([[c, -b], [-b, a]]) / (a * c - b * b)))
    wanted = np.sqrt(np.linalg.eigvalsh(cov))
    shift = np.linalg.norm(center - ewa["means2d"][0]) / wanted[1]
    small, large = sigmas / wanted - 1
    return f"{100 * shift:6.2f} {100 * large:6.2f} {100 * small:6.2f}"


def main() -> None:
    for size in SIZES:
        print(f"size {size:g}: mean's shift, error of the larger sigma, of the smaller one, in per cent")
        print("angle  " + "  ".join(f"{name:>20}" for name in MODELS))
        for angle in ANGLES:
            print(f"{angle:5d}  " + "  ".join(error(angle, size, *model) for model in MODELS.values()))
        print()


if __name__ == "__main__":
    main()
