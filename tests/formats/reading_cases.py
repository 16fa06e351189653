"""Every kind of file that Stipple reads: whole ones to damage, and all that is done with one when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, features

from captures import LAYOUTS, truth
from ply_files import packed, rewritten, scene
from stipple.cli.run_cameras import run_flight, view_camera
from stipple.formats import load_scene, save_ply, save_scene
from stipple.formats.captures import load_frame, open_capture, sparse_depth
from stipple.formats.captures.pixels import decode, decode_depth, decode_mask, stored_sizes
from stipple.formats.captures.survey import Survey
from stipple.poses import store_photo
from stipple.scene.normalization import Normalization
from stipple.train import RunFolder
from stipple.train.config import make_config
from stipple.train.config_toml import read_toml, to_toml

SIZE = (16, 12)
_CAPTURE_FILES = {
    "colmap binary": ("sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "images/000.png"),
    "colmap text": ("sparse/0/cameras.txt", "sparse/0/images.txt", "sparse/0/points3D.txt"),
    "nerfstudio": ("transforms.json", "points.ply", "depth/000.png", "masks/000.png"),
    "blender": ("transforms_train.json", "transforms_test.json", "train/000.png"),
    "tum": ("rgb.txt", "depth.txt", "groundtruth.txt", "camera-intrinsics.txt"),
    "7-scenes": ("seq-01/frame-000000.pose.txt", "seq-01/frame-000000.depth.png"),
    "open3d": ("trajectory.log", "color/000.png"),
}
_IMAGES = ("jpg", "png", "webp", "tif", "bmp", "gif", "ppm", "jp2", *(("avif",) if features.check("avif") else ()))


@dataclass(frozen=True)
class Case:
    """A file inside a folder that ``write`` makes, and what reading the folder means."""

    name: str
    file: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


def cases() -> Iterator[Case]:
    for layout, files in _CAPTURE_FILES.items():
        for file in files:
            yield Case(f"{layout}: {file}", file, _capture(layout), read_capture)
    for suffix in _IMAGES:
        yield Case(f"image: {suffix}", f"a.{suffix}", _image(f"a.{suffix}"), _read_image(f"a.{suffix}"))
    yield Case("depth: npy", "d.npy", _write_array, lambda root: decode_depth(root / "d.npy", SIZE, 1.0))
    for name, write in _SPLATS.items():
        yield Case(f"splats: {name}", "s.ply", write, lambda root: _read_scene(root / "s.ply"))
    yield Case("splats: .splat", "s.splat", _write_splat, lambda root: _read_scene(root / "s.splat"))
    yield Case("run: cameras.json", "cameras.json", _write_cameras, _read_cameras)
    yield Case("run: config.toml", "config.toml", _write_config, _read_config)


# --- captures ---------------------------------------------------------------------------------------------
def _capture(layout: str) -> Callable[[Path], object]:
    return lambda root: LAYOUTS[layout](truth(9 if layout == "blender" else 4, *SIZE), root)


def read_capture(root: Path) -> None:
    capture = open_capture(root)
    survey = Survey.of(capture, 8)
    Normalization.of([v.camera for v in capture.views], capture.points).points(capture.points)
    assert np.isfinite(survey.positions).all()
    for view in capture.views[:2]:
        frame = load_frame(view)
        sparse_depth(frame.camera, capture.points if view.points is None else capture.points[view.points])


# --- images -----------------------------------------------------------------------------------------------
def _image(name: str) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 3
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        more = {"exif": exif, "icc_profile": profile} if name.endswith(("jpg", "png", "webp", "tif", "avif")) else {}
        pixels = np.random.default_rng(5).integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / name, **more)

    return write


def _read_image(name: str) -> Callable[[Path], object]:
    def read(root: Path) -> None:
        path = root / name
        stored_sizes(path)
        pixels = decode(path, SIZE)
        assert pixels.shape[:2] == SIZE[::-1]
        decode_mask(path, SIZE)
        store_photo(path, root / f"stored{path.suffix}", 8)

    return read


def _write_array(root: Path) -> None:
    np.save(root / "d.npy", np.linspace(0, 5, SIZE[0] * SIZE[1]).reshape(SIZE[::-1]))


# --- splats -----------------------------------------------------------------------------------------------
_SPLATS: dict[str, Callable[[Path], object]] = {
    "binary": lambda root: save_ply(scene(20, 1), root / "s.ply"),
    "ascii": lambda root: (root / "s.ply").write_bytes(rewritten(scene(9, 1), "ascii", "float", True)),
    "big endian": lambda root: (root / "s.ply").write_bytes(
        rewritten(scene(9, 0), "binary_big_endian", "double", True)
    ),
    "compressed": lambda root: (root / "s.ply").write_bytes(packed(3, 9)),
}


def _write_splat(root: Path) -> None:
    save_scene(scene(20, 0), root / "s.splat")


def _read_scene(path: Path) -> None:
    made = load_scene(path)
    made.bounds(0.95)
    made.select(made.finite).with_sh_degree(1)
    assert made.scales.shape == made.means.shape
    assert len(made.opacities) == made.count


# --- runs -------------------------------------------------------------------------------------------------
def _write_cameras(root: Path) -> None:
    exposure = np.eye(3, 4, dtype=np.float32)
    rows = [(f"{i}.png", "train", c, exposure) for i, c in enumerate(truth(4, *SIZE).cameras)]
    RunFolder(root).write_cameras(rows)


def _read_cameras(root: Path) -> None:
    view_camera(root, None, None)
    view_camera(root, None, (32, 24))
    run_flight(root, 5, (32, 24))


def _write_config(root: Path) -> None:
    config = make_config("fast", {"data": {"intrinsics": [1.0, 2, 3, 4], "masks": "m"}, "loss": {"background": "auto"}})
    (root / "config.toml").write_text(to_toml(config))
    (root / "run.json").write_text(json.dumps({"capture": "nowhere"}))


def _read_config(root: Path) -> None:
    config, _ = RunFolder(root).read_description()
    (root / "again.toml").write_text(to_toml(config))
    assert make_config(None, read_toml(root / "again.toml")) == config
