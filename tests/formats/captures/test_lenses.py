"""Photos through a lens: kept as they are and rendered through the same lens, or undistorted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import stipple
from captures import Truth, names, truth, wxyz
from stipple import Camera, Gaussians
from stipple.errors import FileFormatError, InputError
from stipple.formats.captures import CaptureOptions, load_frame, open_capture
from stipple.formats.captures.lens import pixels_of, slopes_of
from stipple.formats.captures.model import Lens

KEPT = CaptureOptions(undistort=False)
# COLMAP's model, its coefficients after the focal lengths and centre, and the camera that they make
LENSES: dict[str, tuple[list[float], str, tuple[float, ...]]] = {
    "FULL_OPENCV": (
        [0.2, -0.1, 0.003, -0.002, 0.03, 0.15, 0.04, 0.01],
        "pinhole",
        (0.2, -0.1, 0.03, 0.15, 0.04, 0.01, 0.003, -0.002),
    ),
    "OPENCV": ([-0.15, 0.03, 0.002, 0.001], "pinhole", (-0.15, 0.03, 0, 0, 0, 0, 0.002, 0.001)),
    "OPENCV_FISHEYE": ([0.05, -0.01, 0.002, 0.0], "fisheye", (0.05, -0.01, 0.002, 0.0)),
}


def scene_of(made: Truth) -> Gaussians:
    return Gaussians.from_linear(made.points, 0.12, 0.95, made.colors / 255)


def bent_camera(camera: Camera, name: str) -> Camera:
    _, model, distortion = LENSES[name]
    return replace(camera, model=model, distortion=distortion)


def write(made: Truth, root: Path, name: str) -> None:
    """A COLMAP capture of photos that were taken through a lens."""
    (root / "images").mkdir(parents=True)
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    c, lines = made.cameras[0], ["# images"]
    for i, camera in enumerate(made.cameras[:3]):
        image = stipple.render_view(scene_of(made), bent_camera(camera, name), device="reference")
        Image.fromarray((image.color.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(root / "images" / names(i + 1)[i])
        pose = " ".join(repr(float(v)) for v in (*wxyz(camera), *camera.viewmat[:3, 3]))
        lines += [f"{i + 1} {pose} 7 {names(i + 1)[i]}", ""]
    numbers = " ".join(repr(float(p)) for p in (c.fx, c.fy, c.cx, c.cy, *LENSES[name][0]))
    (folder / "cameras.txt").write_text(f"7 {name} {c.width} {c.height} {numbers}\n")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.mark.parametrize("name", list(LENSES))
def test_photos_are_rendered_through_their_lens(name: str, tmp_path: Path) -> None:
    """The true scene is the photo, to rounding, where the photo is kept; undistorting blurs it a little."""
    made = truth()
    write(made, tmp_path / "c", name)
    found = {}
    for options in (KEPT, CaptureOptions()):
        view = open_capture(tmp_path / "c", options).views[1]
        frame = load_frame(view)
        drawn = stipple.render_view(scene_of(made), frame.camera, device="reference").color
        inside = np.ones(drawn.shape[:2], bool) if frame.mask is None else frame.mask
        found[options.undistort] = psnr(drawn[inside], frame.pixels[inside] / 255)
        assert (frame.camera.distortion == ()) == options.undistort
    kept = open_capture(tmp_path / "c", KEPT).views[1].camera
    assert (kept.model, kept.distortion) == LENSES[name][1:]
    assert found[False] > 50
    assert 28 < found[True] < found[False]
    straight = stipple.render_view(scene_of(made), kept.without_distortion(), device="reference").color
    photo = load_frame(open_capture(tmp_path / "c", KEPT).views[1]).pixels / 255
    assert psnr(straight, photo) < found[True], "without the lens, the picture is another"


@pytest.mark.parametrize("name", list(LENSES))
def test_pixels_and_rays_are_inverse_to_each_other(name: str) -> None:
    camera = bent_camera(truth().cameras[0], name)
    rng = np.random.default_rng(0)
    pixels = rng.uniform([0, 0], [camera.width, camera.height], (50, 2))
    depth = rng.uniform(1, 3, (50, 1))
    slopes = slopes_of(camera, pixels)
    np.testing.assert_allclose(pixels_of(camera, np.hstack([slopes * depth, depth])), pixels, atol=2e-3)
    straight = camera.without_distortion()
    points = np.hstack([slopes * depth, depth])
    np.testing.assert_allclose(slopes_of(straight, pixels_of(straight, points)), slopes, atol=1e-12)


def test_lenses_that_cannot_be_rendered_through_say_so() -> None:
    camera = truth().cameras[0]
    with pytest.raises(InputError, match="leave undistort at true"):
        Lens((0.1, 0, 0, 0, 0, 0, 0, 0, 0.01)).on(camera)
    assert Lens((0.1,)).on(camera).distortion == (0.1, 0, 0, 0, 0, 0, 0, 0)
    assert Lens((), fisheye=True).on(camera).distortion == (0, 0, 0, 0)
    with pytest.raises(InputError, match="model: expected one of pinhole, ortho, fisheye, got 'lens'"):
        replace(camera, model="lens")
    with pytest.raises(InputError, match="distortion: a fisheye camera has 4 coefficients, got 0"):
        replace(camera, model="fisheye")
    with pytest.raises(InputError, match="distortion: a pinhole camera has 0 or 8 coefficients, got 2"):
        replace(camera, distortion=(0.1, 0.2))


def test_a_capture_with_such_a_lens_names_the_photo(tmp_path: Path) -> None:
    made = truth()
    write(made, tmp_path / "c", "OPENCV")
    capture = open_capture(tmp_path / "c")
    odd = replace(capture.views[0], lens=Lens((0.1, *(0.0,) * 7, 0.01)))
    with pytest.raises(FileFormatError, match=r"000\.png: a lens with coefficients beyond"):
        replace(capture, views=(odd,)).with_lenses()


def test_the_order_of_coefficients_is_opencvs() -> None:
    name = "FULL_OPENCV"
    camera = bent_camera(truth().cameras[0], name)
    points = np.random.default_rng(1).uniform([-0.4, -0.3, 1], [0.4, 0.3, 2], (20, 3))
    wanted, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.intrinsics, np.array(LENSES[name][0]))
    np.testing.assert_allclose(pixels_of(camera, points), wanted[:, 0], rtol=1e-12)
