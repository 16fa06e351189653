"""Captures of every layout come out as the same cameras, photos, depths and points; bad ones are named."""

from __future__ import annotations

import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures import LAYOUTS, Truth, truth, write_blender, write_colmap, write_nerfstudio, write_tum, wxyz
from stipple.errors import FileFormatError, InputError, StippleError
from stipple.formats.captures import CaptureOptions, frame_camera, load_frame, open_capture, sparse_depth
from stipple.formats.captures.survey import Survey
from stipple.scene.camera import rotation_of

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def made() -> Truth:
    return truth()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_cameras_and_photos(layout: str, made: Truth, tmp_path: Path) -> None:
    LAYOUTS[layout](made, tmp_path)
    capture = open_capture(tmp_path)
    assert len(capture.views) == len(made.cameras)
    order = sorted(range(len(capture.views)), key=lambda i: Path(capture.views[i].name).name)
    for camera, photo, i in zip(made.cameras, made.photos, order, strict=True):
        frame = load_frame(capture.views[i])
        np.testing.assert_allclose(frame.camera.viewmat, camera.viewmat, atol=2e-6)
        np.testing.assert_allclose(frame.camera.intrinsics, camera.intrinsics, rtol=1e-6, atol=1e-4)
        assert (frame.camera.width, frame.camera.height) == (camera.width, camera.height)
        if layout == "blender":
            assert frame.pixels.shape == (camera.height, camera.width, 4)
            over_black = frame.pixels[..., :3] * (frame.pixels[..., 3:] / 255)
            assert np.abs(over_black - photo).max() <= 3
        else:
            np.testing.assert_array_equal(frame.pixels, photo)


@pytest.mark.parametrize("layout", ["nerfstudio", "tum", "7-scenes", "open3d"])
def test_depth_maps(layout: str, made: Truth, tmp_path: Path) -> None:
    LAYOUTS[layout](made, tmp_path)
    for view, depth in zip(open_capture(tmp_path).views, made.depths, strict=True):
        frame = load_frame(view)
        assert frame.depth is not None
        assert frame.depth.dtype == np.float32
        np.testing.assert_allclose(frame.depth, depth, atol=1.1e-3)
        if layout == "nerfstudio":
            assert frame.mask is not None
            assert frame.mask.any()
            assert not frame.mask.all()


@pytest.mark.parametrize("layout", ["colmap binary", "colmap text", "nerfstudio"])
def test_points(layout: str, made: Truth, tmp_path: Path) -> None:
    LAYOUTS[layout](made, tmp_path)
    capture = open_capture(tmp_path)
    np.testing.assert_allclose(capture.points, made.points, rtol=1e-6)
    np.testing.assert_array_equal(capture.colors, made.colors)
    if layout.startswith("colmap"):
        for i, view in enumerate(capture.views):
            np.testing.assert_array_equal(view.points, np.arange(i % 3, len(made.points), 3))


def test_hold_out(made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path / "c")
    capture = open_capture(tmp_path / "c")
    assert capture.split(8) == ([1, 2, 3, 4, 5, 6, 7, 9], [0, 8])
    assert capture.split(0) == (list(range(10)), [])
    with pytest.raises(InputError, match="holds out all"):
        capture.split(1)
    write_blender(made, tmp_path / "b")
    blender = open_capture(tmp_path / "b")
    train, test = blender.split(3)
    assert {blender.views[i].name.split("/")[0] for i in train} == {"train"}
    assert {blender.views[i].name.split("/")[0] for i in test} == {"test"}


def test_nerfstudio_lists_of_files_decide_the_split(made: Truth, tmp_path: Path) -> None:
    write_nerfstudio(made, tmp_path, extras=False)
    meta = json.loads((tmp_path / "transforms.json").read_text())
    files = [f["file_path"] for f in meta["frames"]]
    meta |= {"train_filenames": files[:6], "val_filenames": files[6:8], "test_filenames": files[8:9]}
    (tmp_path / "transforms.json").write_text(json.dumps(meta))
    capture = open_capture(tmp_path)
    assert [v.split for v in capture.views] == ["train"] * 6 + ["test"]


def test_photos_smaller_than_the_model_says(made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path)
    (tmp_path / "images").rename(tmp_path / "full")
    (tmp_path / "images_2").mkdir()
    for file in (tmp_path / "full").iterdir():
        image = Image.open(file)
        image.resize((24, 18), Image.Resampling.BOX).save(tmp_path / "images_2" / file.name)
    capture = open_capture(tmp_path)
    assert "images_2" in capture.notes[0]
    camera = frame_camera(capture.views[0])
    assert (camera.width, camera.height, camera.fx, camera.cx) == (24, 18, 22.5, 12)
    whole = open_capture(tmp_path, CaptureOptions(images="full"))
    small = load_frame(whole.views[0], downscale=2)
    assert small.camera.fx == camera.fx
    assert np.abs(small.pixels.astype(int) - load_frame(capture.views[0]).pixels).max() <= 1


def test_masks_from_a_folder(made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path / "c")
    masks = tmp_path / "masks"
    masks.mkdir()
    for i, alpha in enumerate(made.alphas):
        name = f"{i:03d}.png.png" if i % 2 else f"{i:03d}.jpg"
        Image.fromarray(np.where(alpha > 128, 255, 0).astype(np.uint8)).save(masks / name, quality=100)
    capture = open_capture(tmp_path / "c", CaptureOptions(masks=str(masks)))
    for view, alpha in zip(capture.views, made.alphas, strict=True):
        mask = load_frame(view).mask
        assert mask is not None
        assert (mask == (alpha > 128)).mean() > 0.98
    (masks / "003.png.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 003\.png"):
        open_capture(tmp_path / "c", CaptureOptions(masks=str(masks)))


def test_transparent_colours_do_not_bleed_when_made_smaller(tmp_path: Path, made: Truth) -> None:
    write_blender(made, tmp_path)
    file = tmp_path / "train" / "000.png"
    pixels = np.zeros((36, 48, 4), np.uint8)
    pixels[:, :, 1] = 255  # green where nothing is
    pixels[:, ::2] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(file)
    frame = load_frame(open_capture(tmp_path).views[0], downscale=2)
    view = next(v for v in open_capture(tmp_path).views if v.image == file)
    frame = load_frame(view, downscale=2)
    np.testing.assert_array_equal(frame.pixels[..., :3], np.broadcast_to([255, 0, 0], (18, 24, 3)))
    assert np.abs(frame.pixels[..., 3].astype(int) - 128).max() <= 1


def test_unused_photos_and_several_models_are_reported(made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path)
    Image.new("RGB", (48, 36)).save(tmp_path / "images" / "stray.jpg")
    shutil.copytree(tmp_path / "sparse" / "0", tmp_path / "sparse" / "1")
    capture = open_capture(tmp_path)
    assert capture.unused == ("stray.jpg",)
    assert any("there are others: 1" in n for n in capture.notes)


def test_sparse_depth_takes_the_nearest_point(made: Truth) -> None:
    camera = made.cameras[0]
    ahead = camera.position + np.outer([2.0, 1.5, -1.0], camera.viewmat[2, :3])
    depth = sparse_depth(camera, ahead)
    assert np.count_nonzero(depth) == 1
    assert depth[18, 24] == pytest.approx(1.5)
    assert not sparse_depth(camera, np.zeros((0, 3))).any()


# --- real captures ----------------------------------------------------------------------------------------
@pytest.mark.skipif(not (DATA / "fern").is_dir(), reason="../shared/data/fern is not here")
def test_fern() -> None:
    capture = open_capture(DATA / "fern")
    assert (capture.kind, len(capture.views), len(capture.points)) == ("COLMAP", 20, 10091)
    frame = load_frame(capture.views[0])
    assert frame.pixels.shape == (378, 504, 3)
    assert frame.camera.fx == pytest.approx(3260.53 / 8, rel=0.02)


@pytest.mark.skipif(not (DATA / "lego").is_dir(), reason="../shared/data/lego is not here")
def test_lego() -> None:
    capture = open_capture(DATA / "lego")
    train, test = capture.split(8)
    assert (len(train), len(test)) == (100, 25)
    frame = load_frame(capture.views[train[0]])
    assert frame.pixels.shape == (400, 400, 4)
    assert frame.camera.fx == pytest.approx(555.5555, rel=1e-5)
    for i in train[:5]:  # the cameras of this scene look at the origin
        camera = frame_camera(capture.views[i])
        direction = -camera.position / np.linalg.norm(camera.position)
        assert camera.viewmat[2, :3] @ direction > 0.999


@pytest.mark.skipif(not (DATA / "rgbd_open3d").is_dir(), reason="../shared/data/rgbd_open3d is not here")
def test_frames_of_a_room_agree_on_where_its_walls_are() -> None:
    from stipple.train.initialize import from_depth

    frames = [load_frame(v) for v in open_capture(DATA / "rgbd_open3d").views]
    points, _ = from_depth(frames[:1], 20000, 0)
    for frame in frames[1:]:
        predicted = sparse_depth(frame.camera, points)
        assert frame.depth is not None
        both = (predicted > 0) & (frame.depth > 0)
        assert both.mean() > 0.03
        assert np.median(np.abs(predicted - frame.depth)[both]) < 0.02


# --- what is wrong is named -------------------------------------------------------------------------------
def test_not_a_capture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_capture(tmp_path / "none")
    with pytest.raises(InputError, match="not a capture"):
        open_capture(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="1 photos but no camera poses"):
        open_capture(tmp_path)
    with pytest.raises(InputError, match="not a capture"):
        open_capture(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "missing"),
        (lambda p: p.write_bytes(b"nonsense"), "cannot be read as an image"),
        (lambda p: Image.new("RGB", (48, 48)).save(p), "do not match the aspect ratio"),
    ],
)
def test_bad_photos_are_named_when_the_capture_is_opened(
    spoil: object, message: str, made: Truth, tmp_path: Path
) -> None:
    write_colmap(made, tmp_path)
    spoil(tmp_path / "images" / "004.png")  # type: ignore[operator]
    with pytest.raises(FileFormatError, match=rf"004\.png: .*{message}"):
        open_capture(tmp_path)


def test_a_truncated_photo_is_named_when_it_is_decoded(made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path)
    file = tmp_path / "images" / "004.png"
    file.write_bytes(file.read_bytes()[:-200])
    view = open_capture(tmp_path).views[4]
    with pytest.raises(FileFormatError, match=r"004\.png: broken or truncated"):
        load_frame(view)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("cameras.txt", "PINHOLE", "FISHBOWL", "line 2: unknown camera model"),
        ("cameras.txt", "PINHOLE", "OPENCV", "expected 8 parameters for OPENCV"),
        ("cameras.txt", "45.0", "-45.0", "fx: expected a finite number > 0, got -45.0"),
        ("images.txt", " 7 000.png", " 8 000.png", "refers to camera 8"),
        ("images.txt", " 7 000.png", " x 000.png", "line 2: expected IMAGE_ID"),
        ("images.txt", "1.5 2.5 -1", "1.5 2.5", "expected X Y POINT3D_ID"),
        ("images.txt", " 7 001.png", " 7 000.png", "two views are called"),
        ("points3D.txt", "100 ", "x ", "line 1: expected POINT3D_ID"),
    ],
)
def test_bad_colmap_text(file: str, old: str, new: str, message: str, made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path, binary=False)
    path = tmp_path / "sparse" / "0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=message):
        open_capture(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": []}, "at least one frame"),
        ({"frames": [{"file_path": 3}]}, "frame 0: expected an object"),
        ({"camera_model": "EQUIRECTANGULAR"}, "not supported"),
        ({"fl_x": None}, "frame 0"),
        ({"ply_file_path": "gone.ply"}, r"gone\.ply: the point cloud is missing"),
    ],
)
def test_bad_transforms(change: dict[str, object], message: str, made: Truth, tmp_path: Path) -> None:
    write_nerfstudio(made, tmp_path, extras=False)
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(FileFormatError, match=message):
        open_capture(tmp_path)


def test_a_pose_that_is_no_rotation(made: Truth, tmp_path: Path) -> None:
    write_nerfstudio(made, tmp_path, extras=False)
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    meta["frames"][2]["transform_matrix"][0] = [5, 0, 0, 0]
    file.write_text(json.dumps(meta))
    with pytest.raises(FileFormatError, match=r"frame 2 .*is not a rotation"):
        open_capture(tmp_path)


def test_tum_frames_without_a_pose_nearby_are_left_out(made: Truth, tmp_path: Path) -> None:
    write_tum(made, tmp_path)
    lines = (tmp_path / "groundtruth.txt").read_text().splitlines()
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines[:4]) + "\n")
    assert len(open_capture(tmp_path).views) == 3
    (tmp_path / "groundtruth.txt").write_text("1 2 3\n")
    with pytest.raises(FileFormatError, match=r"groundtruth\.txt, line 1"):
        open_capture(tmp_path)


def test_infinite_points_are_left_out_and_reported(made: Truth, tmp_path: Path) -> None:
    points = made.points.copy()
    points[3] = np.inf
    write_colmap(replace(made, points=points), tmp_path)
    capture = open_capture(tmp_path)
    assert len(capture.points) == len(points) - 1
    assert any("NaN or infinity" in n for n in capture.notes)
    for i, view in enumerate(capture.views):
        seen = [p for p in range(i % 3, len(points), 3) if p != 3]
        assert view.points is not None
        np.testing.assert_allclose(capture.points[view.points], points[seen])


def test_far_points_are_left_out_and_reported(made: Truth, tmp_path: Path) -> None:
    """Squares of their distances would overflow."""
    points = made.points.copy()
    points[3], points[7] = 1e308, [0, -1e16, 0]
    write_colmap(replace(made, points=points), tmp_path)
    capture = open_capture(tmp_path)
    np.testing.assert_allclose(capture.points, np.delete(points, [3, 7], axis=0))
    assert any("2 of 60 points" in n for n in capture.notes)
    assert np.isfinite(Survey.of(capture, 8).distance)


def test_a_camera_far_out_or_of_no_size(made: Truth, tmp_path: Path) -> None:
    write_nerfstudio(made, tmp_path, extras=False)
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    far = json.loads(file.read_text())
    far["frames"][4]["transform_matrix"][1][3] = 1e308
    for changed, message in (
        (far, r"camera of 'images/004\.png' is farther away"),
        ({**meta, "w": 10**12, "h": 10**12}, "width: expected an int >= 1 and <= 1048576"),
        ({**meta, "w": 10**400}, "frame 0"),
        ({**meta, "w": float("inf")}, "frame 0"),
        ({**meta, "cx": -(10**400)}, "frame 0"),
        ({**meta, "fl_x": 1e400}, "frame 0"),
    ):
        file.write_text(json.dumps(changed))
        with pytest.raises(FileFormatError, match=message):
            open_capture(tmp_path)


@pytest.mark.parametrize("binary", [True, False])
def test_ids_of_points_use_all_64_bits(binary: bool, made: Truth, tmp_path: Path) -> None:
    write_colmap(made, tmp_path, binary=binary)
    folder, large = tmp_path / "sparse/0", 2**64 - 2
    if binary:
        points, images = folder / "points3D.bin", folder / "images.bin"
        old, new = struct.pack("<Q", 100), struct.pack("<Q", large)
        points.write_bytes(points.read_bytes().replace(old, new))
        images.write_bytes(images.read_bytes().replace(old, new))
    else:
        points, images = folder / "points3D.txt", folder / "images.txt"
        points.write_text(points.read_text().replace("100 ", f"{large} ", 1))
        images.write_text(images.read_text().replace(" 0.5 100", f" 0.5 {large}"))
    capture = open_capture(tmp_path)
    for i, view in enumerate(capture.views):
        np.testing.assert_array_equal(view.points, np.arange(i % 3, len(made.points), 3))
    if not binary:
        points.write_text(points.read_text().replace(str(large), str(2**64)))
        with pytest.raises(FileFormatError, match="an id from 0 to"):
            open_capture(tmp_path)


@pytest.mark.parametrize("name", ["two  spaces.png", "a b   c.png", "[red]x[bold].png", os.fsdecode(b"caf\xe9.png")])
@pytest.mark.parametrize("layout", ["colmap binary", "colmap text", "tum"])
def test_names_of_every_kind(layout: str, name: str, made: Truth, tmp_path: Path) -> None:
    LAYOUTS[layout](made, tmp_path)
    listed, photos = {
        "colmap binary": ("sparse/0/images.bin", "images"),
        "colmap text": ("sparse/0/images.txt", "images"),
        "tum": ("rgb.txt", "rgb"),
    }[layout]
    try:
        (tmp_path / photos / "003.png").rename(tmp_path / photos / name)
    except OSError:
        pytest.skip("this file system stores no such name")
    file = tmp_path / listed
    file.write_bytes(file.read_bytes().replace(b"003.png", os.fsencode(name)))
    found = [v for v in open_capture(tmp_path).views if Path(v.name).name == name]
    assert len(found) == 1
    np.testing.assert_array_equal(load_frame(found[0]).pixels, made.photos[3])


@pytest.mark.parametrize("key", ["train_filenames", "test_filenames", "val_filenames"])
def test_lists_of_a_split_that_are_none(key: str, made: Truth, tmp_path: Path) -> None:
    write_nerfstudio(made, tmp_path, extras=False)
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, key: None}))
    assert len(open_capture(tmp_path).views) == 10
    for wrong in ("images/000.png", [None], [3], {"a": 1}, 5):
        file.write_text(json.dumps({**meta, key: wrong}))
        with pytest.raises(FileFormatError, match=f"{key}: expected a list of file names"):
            open_capture(tmp_path)


@pytest.mark.parametrize("unit", [0, -1, 5e-324, float("inf"), float("nan"), 10**400, "x", [[]]])
def test_a_unit_of_depth_that_is_none(unit: object, made: Truth, tmp_path: Path) -> None:
    write_nerfstudio(made, tmp_path)
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "depth_unit_scale_factor": unit}))
    with pytest.raises(FileFormatError, match="depth_unit_scale_factor: expected a number from"):
        open_capture(tmp_path)


@pytest.mark.parametrize("length", [1e-300, 1, 1e300])
def test_a_quaternion_of_any_length(length: float, made: Truth) -> None:
    camera = made.cameras[2]
    np.testing.assert_allclose(rotation_of(length * wxyz(camera)), camera.viewmat[:3, :3], atol=1e-12)


def test_all_errors_are_ours(made: Truth, tmp_path: Path) -> None:
    """A capture whose files are swapped with each other fails with one of our errors."""
    write_colmap(made, tmp_path)
    folder = tmp_path / "sparse" / "0"
    shutil.copy(folder / "images.bin", folder / "cameras.bin")
    with pytest.raises(StippleError):
        open_capture(tmp_path)
