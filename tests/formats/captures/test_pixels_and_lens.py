"""Photos of every kind decode to the same 8 bits; lenses are undone as their formulas say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stipple import Camera
from stipple.errors import FileFormatError
from stipple.formats.captures import Lens, View, load_frame
from stipple.formats.captures.frames import settle
from stipple.formats.captures.model import Capture
from stipple.formats.captures.pixels import decode, decode_depth, decode_mask

SIZE = (6, 4)


def gradient() -> np.ndarray:
    x, y = np.meshgrid(np.arange(6), np.arange(4))
    return np.stack([40 * x, 60 * y, 255 - 20 * x], axis=2).astype(np.uint8)


def test_colours_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png", SIZE), gradient())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, tmp_path: Path) -> None:
    """The stored image, turned as the tag says, is what is decoded."""
    upright = Image.fromarray(gradient())
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", SIZE), gradient())
    view = View("a.png", tmp_path / "a.png", Camera(6, 4, 5, 5, 3, 2))
    settled = settle(Capture(tmp_path, "test", (view,))).views[0]
    assert (settled.camera.width, settled.camera.height) == SIZE


def test_a_camera_for_the_stored_pixels_overrules_the_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    view = View("a.png", tmp_path / "a.png", Camera(6, 4, 5, 5, 3, 2))
    frame = load_frame(settle(Capture(tmp_path, "test", (view,))).views[0])
    np.testing.assert_array_equal(frame.pixels, gradient())


@pytest.mark.parametrize(("mode", "dtype"), [("L", np.uint8), ("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
def test_grey(mode: str, dtype: type, tmp_path: Path) -> None:
    byte = gradient()[..., 0]
    values = {"L": byte, "I;16": byte * np.uint16(257), "I": byte * np.int32(257), "F": byte / np.float32(255)}[mode]
    Image.fromarray(values.astype(dtype)).save(tmp_path / "a.tif")
    made = decode(tmp_path / "a.tif", SIZE)
    np.testing.assert_array_equal(made, np.repeat(byte[:, :, None], 3, axis=2))


@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "LA"])
def test_other_modes(mode: str, tmp_path: Path) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(gradient()).convert(mode).save(tmp_path / f"a.{suffix}")
    made = decode(tmp_path / f"a.{suffix}", SIZE)
    assert made.dtype == np.uint8
    assert made.shape == (4, 6, 4 if mode == "LA" else 3)


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    rgba = np.concatenate([gradient(), np.full((4, 6, 1), 255, np.uint8)], axis=2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    frame = load_frame(View("a.png", tmp_path / "a.png", Camera(6, 4, 5, 5, 3, 2)))
    np.testing.assert_array_equal(frame.pixels, gradient())


def test_wrong_size(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    with pytest.raises(FileFormatError, match=r"a\.png: expected 5 x 4 pixels, got 6 x 4"):
        decode(tmp_path / "a.png", (5, 4))


def test_masks(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:4] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "m.png", SIZE), mask > 0)
    Image.fromarray(np.dstack([mask, mask, mask, 255 - mask])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "a.png", SIZE), mask == 0)


def test_depth(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 65535], [1500, 1, 2]], np.uint16)
    Image.fromarray(values).save(tmp_path / "d.png")
    made = decode_depth(tmp_path / "d.png", (3, 2), 1000.0)
    np.testing.assert_allclose(made, [[0, 1, 0], [1.5, 0.001, 0.002]])
    np.save(tmp_path / "d.npy", np.array([[np.nan, 1, -1], [np.inf, 2, 3]]))
    np.testing.assert_allclose(decode_depth(tmp_path / "d.npy", (3, 2), 1.0), [[0, 1, 0], [0, 2, 3]])
    with pytest.raises(FileFormatError, match="expected 4 x 2 pixels"):
        decode_depth(tmp_path / "d.png", (4, 2), 1.0)
    with pytest.raises(FileFormatError, match="expected numbers"):
        decode_depth(tmp_path / "d.npy", (4, 2), 1.0)


# --- lenses -----------------------------------------------------------------------------------------------
def scenery(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture on the plane z = 1."""
    channels = [np.sin(5 * x) * np.cos(4 * y), np.cos(6 * x + 1), np.sin(3 * x + 5 * y)]
    return np.stack([(127 + 100 * c) for c in channels], axis=-1)


def distort(lens: Lens, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lens puts a direction (x, y, 1), by the published formulas (Brown; Kannala and Brandt)."""
    k = [*lens.coefficients, *[0.0] * 8]
    r2 = x * x + y * y
    if lens.fisheye:
        r = np.sqrt(r2)
        angle = np.arctan(r)
        bent = angle * (1 + k[0] * angle**2 + k[1] * angle**4 + k[2] * angle**6 + k[3] * angle**8)
        factor = np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1)
        return x * factor, y * factor
    k1, k2, p1, p2, k3, k4, k5, k6 = k[:8]
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


LENSES = {
    "simple radial": Lens((-0.12,)),
    "radial": Lens((0.1, -0.05)),
    "opencv": Lens((-0.2, 0.05, 0.01, -0.008)),
    "full opencv": Lens((-0.1, 0.02, 0.003, 0.002, 0.01, 0.05, -0.01, 0.001)),
    "fisheye": Lens((0.05, -0.01, 0.002, 0.0), fisheye=True),
}


@pytest.mark.parametrize("name", LENSES)
def test_undoing_a_lens_gives_what_a_pinhole_sees(name: str, tmp_path: Path) -> None:
    lens = LENSES[name]
    camera = Camera(160, 120, 130, 132, 84, 57)
    u, v = np.meshgrid(np.arange(160) + 0.5, np.arange(120) + 0.5)
    wanted = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    x, y = wanted
    for _ in range(200):  # the direction that the lens puts on each pixel
        dx, dy = distort(lens, x, y)
        x, y = x + 0.7 * (wanted[0] - dx), y + 0.7 * (wanted[1] - dy)
    Image.fromarray((scenery(x, y) + 0.5).astype(np.uint8)).save(tmp_path / "a.png")
    frame = load_frame(View("a.png", tmp_path / "a.png", camera, lens))
    c = frame.camera
    pinhole = scenery((u - c.cx) / c.fx, (v - c.cy) / c.fy)
    inside = np.ones((120, 160), bool) if frame.mask is None else frame.mask
    assert inside.mean() > 0.9
    error = np.abs(frame.pixels - pinhole).max(axis=2)[inside]
    assert np.quantile(error, 0.99) < 2.0
    assert error.mean() < 0.7
    uncorrected = np.abs(load_frame(View("a.png", tmp_path / "a.png", camera)).pixels - pinhole).max(axis=2)
    assert np.quantile(uncorrected, 0.99) > 5, "the lens matters"


def test_masks_and_depth_go_through_the_lens(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(tmp_path / "a.png")
    ramp = np.tile(np.arange(160, dtype=np.uint16) + 1, (120, 1))
    Image.fromarray(ramp).save(tmp_path / "d.png")
    Image.fromarray(np.where(ramp < 81, 255, 0).astype(np.uint8)).save(tmp_path / "m.png")
    view = View("a.png", tmp_path / "a.png", Camera(160, 120, 130, 130, 80, 60), LENSES["simple radial"])
    frame = load_frame(replace(view, mask=tmp_path / "m.png", depth=tmp_path / "d.png", depth_scale=1.0))
    assert frame.depth is not None
    assert frame.mask is not None
    assert set(np.unique(frame.depth)) <= set(range(1, 161)), "depth is never averaged"
    inside = frame.mask | (frame.depth >= 81)
    assert inside.mean() > 0.97, "mask and depth agree where the photo has pixels"


def test_a_lens_that_cannot_be_undone(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(tmp_path / "a.png")
    view = View("a.png", tmp_path / "a.png", Camera(16, 12, 10, 10, 8, 6), Lens((float("nan"),)))
    with pytest.raises(FileFormatError, match=r"a\.png: lens"):
        load_frame(view)
