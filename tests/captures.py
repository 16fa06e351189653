"""A small capture whose truth is known, written in every layout that Stipple reads."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

import stipple
from stipple import Camera, Gaussians

WIDTH, HEIGHT, FOCAL = 48, 36, 45.0


@dataclass(frozen=True, eq=False)
class Truth:
    """Cameras, their photos [H, W, 3] uint8, depth maps [H, W], alpha [H, W], and points with colours."""

    cameras: tuple[Camera, ...]
    photos: tuple[np.ndarray, ...]
    depths: tuple[np.ndarray, ...]
    alphas: tuple[np.ndarray, ...]
    points: np.ndarray
    colors: np.ndarray


@lru_cache(maxsize=4)
def truth(views: int = 10, width: int = WIDTH, height: int = HEIGHT) -> Truth:
    """A ball of coloured Gaussians seen from a ring of cameras."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 3))
    points *= rng.uniform(0.2, 1, (60, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    colors = rng.uniform(0.1, 1, (60, 3))
    scene = Gaussians.from_linear(points, 0.12, 0.95, colors)
    focal = FOCAL * width / WIDTH
    cameras, photos, depths, alphas = [], [], [], []
    for angle in np.linspace(0, 2 * np.pi, views, endpoint=False):
        position = [3 * np.sin(angle), -0.8 + 0.3 * np.cos(3 * angle), -3 * np.cos(angle)]
        camera = Camera(width, height, focal, focal, width / 2, height / 2).look_at(position, [0, 0, 0])
        image = stipple.render_view(scene, camera, device="cpu")
        cameras.append(camera)
        photos.append((image.color.clip(0, 1) * 255 + 0.5).astype(np.uint8))
        depths.append(np.where(image.alpha > 0.5, image.depth, 0))
        alphas.append((image.alpha * 255 + 0.5).astype(np.uint8))
    return Truth(
        tuple(cameras), tuple(photos), tuple(depths), tuple(alphas), points, (colors * 255 + 0.5).astype(np.uint8)
    )


def names(count: int) -> list[str]:
    return [f"{i:03d}.png" for i in range(count)]


def _write_photos(made: Truth, folder: Path, files: list[str], alpha: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(files):
        pixels = made.photos[i]
        if alpha:
            share = np.maximum(made.alphas[i][..., None] / 255, 1e-3)
            straight = (pixels / share).clip(0, 255).astype(np.uint8)
            pixels = np.concatenate([straight, made.alphas[i][..., None]], axis=2)
        Image.fromarray(pixels).save(folder / file)


def wxyz(camera: Camera) -> np.ndarray:
    x, y, z, w = Rotation.from_matrix(camera.viewmat[:3, :3]).as_quat()
    return np.array([w, x, y, z])


def opengl_pose(camera: Camera) -> np.ndarray:
    """Camera to world with +y up and +z backward."""
    return np.linalg.inv(camera.viewmat) @ np.diag([1.0, -1, -1, 1])


# --- COLMAP -----------------------------------------------------------------------------------------------
def seen_points(made: Truth, index: int) -> np.ndarray:
    """Which points a view is said to observe: every third, starting at its number."""
    return np.arange(index % 3, len(made.points), 3)


def write_colmap(made: Truth, root: Path, binary: bool = True, model: str = "PINHOLE", rigs: bool = False) -> None:
    _write_photos(made, root / "images", names(len(made.cameras)))
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    c = made.cameras[0]
    params = {"PINHOLE": [c.fx, c.fy, c.cx, c.cy], "SIMPLE_PINHOLE": [c.fx, c.cx, c.cy]}[model]
    if binary:
        number = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1}[model]
        data = struct.pack("<QiiQQ", 1, 7, number, c.width, c.height) + struct.pack(f"<{len(params)}d", *params)
        (folder / "cameras.bin").write_bytes(data)
        data = struct.pack("<Q", len(made.cameras))
        for i, camera in enumerate(made.cameras):
            data += (
                struct.pack("<i7di", i + 1, *wxyz(camera), *camera.viewmat[:3, 3], 7) + names(i + 1)[i].encode() + b"\0"
            )
            seen = seen_points(made, i)
            data += struct.pack("<Q", len(seen) + 1) + struct.pack("<ddq", 1.5, 2.5, -1)
            data += b"".join(struct.pack("<ddq", 0.5, 0.5, 100 + p) for p in seen)
        (folder / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(made.points))
        for p, (point, color) in enumerate(zip(made.points, made.colors, strict=True)):
            data += struct.pack("<Q3d3BdQ", 100 + p, *point, *color, 0.5, 2) + struct.pack("<4i", 1, 0, 2, 0)
        (folder / "points3D.bin").write_bytes(data)
    else:
        numbers = " ".join(repr(float(p)) for p in params)
        (folder / "cameras.txt").write_text(f"# cameras\n7 {model} {c.width} {c.height} {numbers}\n")
        lines = ["# images"]
        for i, camera in enumerate(made.cameras):
            pose = " ".join(repr(float(v)) for v in (*wxyz(camera), *camera.viewmat[:3, 3]))
            lines += [
                f"{i + 1} {pose} 7 {names(i + 1)[i]}",
                "1.5 2.5 -1 " + " ".join(f"0.5 0.5 {100 + p}" for p in seen_points(made, i)),
            ]
        (folder / "images.txt").write_text("\n".join(lines) + "\n")
        rows = [
            f"{100 + p} {' '.join(repr(float(v)) for v in point)} {color[0]} {color[1]} {color[2]} 0.5 1 0 2 0"
            for p, (point, color) in enumerate(zip(made.points, made.colors, strict=True))
        ]
        (folder / "points3D.txt").write_text("\n".join(rows) + "\n")
    if rigs:
        for file in ("rigs", "frames"):
            (folder / f"{file}{'.bin' if binary else '.txt'}").write_bytes(struct.pack("<Q", 0))


# --- transforms.json --------------------------------------------------------------------------------------
def write_nerfstudio(made: Truth, root: Path, extras: bool = True) -> None:
    """With ``extras``: depth, masks, a point cloud, and intrinsics in the frames instead of at the top."""
    files = names(len(made.cameras))
    _write_photos(made, root / "images", files)
    c = made.cameras[0]
    intrinsics = {"fl_x": c.fx, "fl_y": c.fy, "cx": c.cx, "cy": c.cy, "w": c.width, "h": c.height}
    meta: dict[str, object] = {"camera_model": "OPENCV", **({} if extras else intrinsics)}
    frames = []
    for i, camera in enumerate(made.cameras):
        frame: dict[str, object] = {"file_path": f"images/{files[i]}", "transform_matrix": opengl_pose(camera).tolist()}
        if extras:
            (root / "depth").mkdir(exist_ok=True)
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray((made.depths[i] * 1000).astype(np.uint16)).save(root / "depth" / files[i])
            Image.fromarray(np.where(made.alphas[i] > 128, 255, 0).astype(np.uint8)).save(root / "masks" / files[i])
            frame |= {**intrinsics, "depth_file_path": f"depth/{files[i]}", "mask_path": f"masks/{files[i]}"}
        frames.append(frame)
    if extras:
        rows = [
            f"{' '.join(repr(float(v)) for v in p)} {c[0]} {c[1]} {c[2]}"
            for p, c in zip(made.points, made.colors, strict=True)
        ]
        header = f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\n" + "".join(
            f"property float {n}\n" for n in "xyz"
        )
        header += "".join(f"property uchar {n}\n" for n in ("red", "green", "blue")) + "end_header\n"
        (root / "points.ply").write_text(header + "\n".join(rows) + "\n")
        meta["ply_file_path"] = "points.ply"
    (root / "transforms.json").write_text(json.dumps({**meta, "frames": frames}))


def write_blender(made: Truth, root: Path) -> None:
    """The first eight views to train on, the others held out; RGBA photos."""
    c = made.cameras[0]
    angle = 2 * np.arctan(0.5 * c.width / c.fx)
    files = names(len(made.cameras))
    for split, ids in (("train", range(8)), ("test", range(8, len(made.cameras)))):
        some = Truth(
            *(tuple(f[i] for i in ids) for f in (made.cameras, made.photos, made.depths, made.alphas)),
            made.points,
            made.colors,
        )
        _write_photos(some, root / split, [files[i] for i in ids], alpha=True)
        frames = [
            {
                "file_path": f"./{split}/{files[i].removesuffix('.png')}",
                "transform_matrix": opengl_pose(made.cameras[i]).tolist(),
            }
            for i in ids
        ]
        (root / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))


# --- RGB-D ------------------------------------------------------------------------------------------------
def _write_intrinsics(made: Truth, root: Path) -> None:
    """In 640 x 480 pixels, as sensors' are."""
    c = made.cameras[0].resized(640, 480)
    (root / "camera-intrinsics.txt").write_text(f"{c.fx} 0 {c.cx}\n0 {c.fy} {c.cy}\n0 0 1\n")


def write_tum(made: Truth, root: Path) -> None:
    files = names(len(made.cameras))
    _write_photos(made, root / "rgb", files)
    (root / "depth").mkdir()
    rgb, depth, poses = ["# color"], ["# depth"], ["# truth"]
    for i, camera in enumerate(made.cameras):
        Image.fromarray((made.depths[i] * 5000).astype(np.uint16)).save(root / "depth" / files[i])
        inverse = np.linalg.inv(camera.viewmat)
        stamp = 100 + i / 30
        rgb.append(f"{stamp:.6f} rgb/{files[i]}")
        depth.append(f"{stamp + 0.005:.6f} depth/{files[i]}")
        numbers = [*inverse[:3, 3], *Rotation.from_matrix(inverse[:3, :3]).as_quat()]
        poses.append(f"{stamp - 0.004:.6f} " + " ".join(repr(float(v)) for v in numbers))
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    _write_intrinsics(made, root)


def write_seven_scenes(made: Truth, root: Path) -> None:
    folder = root / "seq-01"
    folder.mkdir(parents=True)
    for i, camera in enumerate(made.cameras):
        stem = folder / f"frame-{i:06d}"
        Image.fromarray(made.photos[i]).save(f"{stem}.color.png")
        depth = np.where(made.depths[i] > 0, made.depths[i] * 1000, 65535)
        Image.fromarray(depth.astype(np.uint16)).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", np.linalg.inv(camera.viewmat))
    _write_intrinsics(made, root)


def write_open3d(made: Truth, root: Path) -> None:
    files = names(len(made.cameras))
    _write_photos(made, root / "color", files)
    (root / "depth").mkdir()
    lines = []
    for i, camera in enumerate(made.cameras):
        Image.fromarray((made.depths[i] * 1000).astype(np.uint16)).save(root / "depth" / files[i])
        pose = "\n".join(" ".join(repr(float(v)) for v in row) for row in np.linalg.inv(camera.viewmat))
        lines.append(f"{i} {i} {i + 1}\n{pose}")
    (root / "trajectory.log").write_text("\n".join(lines) + "\n")
    _write_intrinsics(made, root)


LAYOUTS = {
    "colmap binary": write_colmap,
    "colmap text": lambda made, root: write_colmap(made, root, binary=False),
    "colmap with rigs": lambda made, root: write_colmap(made, root, model="SIMPLE_PINHOLE", rigs=True),
    "colmap text with rigs": lambda made, root: write_colmap(made, root, binary=False, rigs=True),
    "nerfstudio": write_nerfstudio,
    "nerfstudio plain": lambda made, root: write_nerfstudio(made, root, extras=False),
    "blender": write_blender,
    "tum": write_tum,
    "7-scenes": write_seven_scenes,
    "open3d": write_open3d,
}
