"""Frames: a view's photo, undistorted if requested, at the size for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.formats.captures.lens import Undistortion, pixels_of, remap, undistortion
from stipple.formats.captures.model import Capture, View
from stipple.formats.captures.pixels import decode, decode_depth, decode_mask, stored_sizes
from stipple.scene.camera import Camera

Array = np.ndarray
_ASPECT_TOLERANCE = 0.02
_FINEST_DEPTH = 16  # times the photo's pixels


@dataclass(frozen=True, eq=False)
class Frame:
    """Pixels [H, W, 3], or 4 with alpha, uint8; ``mask`` [H, W] bool, True where the photo is used, or None;
    ``depth`` [H, W] float32 in world units, 0 where unknown, or None."""

    camera: Camera
    pixels: Array
    mask: Array | None = None
    depth: Array | None = None

    @property
    def transparent(self) -> bool:
        """Whether the photo has an alpha channel."""
        return bool(self.pixels.shape[2] == 4)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.pixels, self.mask, self.depth) if a is not None)

    def smaller(self, factor: int) -> Frame:
        """The frame at 1 / ``factor`` of its size, by averages over areas."""
        if factor == 1:
            return self
        camera = scaled(self.camera, factor)
        size = (camera.width, camera.height)
        mask = None if self.mask is None else _resize_mask(self.mask, size)
        depth = None if self.depth is None else cv2.resize(self.depth, size, interpolation=cv2.INTER_NEAREST)
        return Frame(camera, _resize(self.pixels, size), mask, depth)


def scaled(camera: Camera, factor: float) -> Camera:
    """The camera of an image ``factor`` times smaller, sizes rounded."""
    width, height = (max(1, round(n / factor)) for n in (camera.width, camera.height))
    return camera.resized(width, height)


def settle(capture: Capture) -> Capture:
    """The capture with cameras at the size of the actual photos, from the photos' headers.

    Raises FileFormatError, naming the photo, if one is missing or its aspect ratio is not the camera's.
    """
    return replace(capture, views=tuple(_settled(v) for v in capture.views))


def _settled(view: View) -> View:
    turned, stored = stored_sizes(view.image)
    declared = (view.camera.width, view.camera.height)
    for size in (turned, stored):
        if size == declared:
            return view
    for size in (turned, stored):
        if abs(size[0] * declared[1] / (size[1] * declared[0]) - 1) < _ASPECT_TOLERANCE:
            return replace(view, camera=view.camera.resized(*size))
    raise FileFormatError(
        f"{view.image}: {turned[0]} x {turned[1]} pixels do not match the aspect ratio of its camera, "
        f"{declared[0]} x {declared[1]}"
    )


def frame_camera(view: View, downscale: float = 1.0) -> Camera:
    """The camera of a view's frame."""
    maps = _undistortion(view)
    return scaled(view.camera if maps is None else maps.camera, downscale)


def _undistortion(view: View) -> Undistortion | None:
    try:
        return None if view.lens is None else undistortion(view.camera, view.lens)
    except InputError as error:
        raise FileFormatError(f"{view.image}: {error}") from None


def load_frame(view: View, downscale: float = 1.0) -> Frame:
    """Decode a settled view: photo, mask and depth, without distortion, ``downscale`` times smaller."""
    size = (view.camera.width, view.camera.height)
    pixels = decode(view.image, size)
    mask = None if view.mask is None else decode_mask(view.mask, size)
    depth = None if view.depth is None else _depth(view, size)
    maps = _undistortion(view)
    if maps is not None:
        pixels = remap(pixels, maps)
        depth = None if depth is None else remap(depth, maps, smooth=False)
        if mask is not None:
            mask = remap(mask.astype(np.uint8), maps, smooth=False) > 0
        if maps.outside is not None:
            mask = ~maps.outside if mask is None else mask & ~maps.outside
    if pixels.shape[2] == 4 and (pixels[..., 3] == 255).all():
        pixels = np.ascontiguousarray(pixels[..., :3])
    camera = frame_camera(view, downscale)
    small = (camera.width, camera.height)
    if small != size:
        pixels = _resize(pixels, small)
        mask = None if mask is None else _resize_mask(mask, small)
        depth = None if depth is None else cv2.resize(depth, small, interpolation=cv2.INTER_NEAREST)
    return Frame(camera, pixels, mask, depth)


def _depth(view: View, size: tuple[int, int]) -> Array:
    """Depth maps may have another resolution than the photos; they show the same view."""
    assert view.depth is not None
    if view.depth.suffix.lower() == ".npy":
        return decode_depth(view.depth, size, view.depth_scale)
    stored = stored_sizes(view.depth)[1]
    if stored[0] * stored[1] > _FINEST_DEPTH * size[0] * size[1]:
        raise FileFormatError(
            f"{view.depth}: {stored[0]} x {stored[1]} pixels of depth are far more than the photo's, "
            f"{size[0]} x {size[1]}"
        )
    depth = decode_depth(view.depth, stored, view.depth_scale)
    return depth if stored == size else np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST))


def _resize(pixels: Array, size: tuple[int, int]) -> Array:
    if pixels.shape[2] == 3:
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    # colours are weighted by their opacity
    alpha = pixels[..., 3:].astype(np.float32) / 255
    small = cv2.resize(np.concatenate([pixels[..., :3] * alpha, alpha], axis=2), size, interpolation=cv2.INTER_AREA)
    rgb = small[..., :3] / np.maximum(small[..., 3:], 1e-6)
    return np.asarray(np.concatenate([rgb, small[..., 3:] * 255], axis=2) + 0.5).clip(0, 255).astype(np.uint8)


def _resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """A pixel of the smaller mask is set only if all pixels that it covers are set."""
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.999)


def sparse_depth(camera: Camera, points: Array) -> Array:
    """Camera z [H, W] of points [M, 3] at the pixels they fall on, the nearest where several do; 0 elsewhere."""
    local = points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    local = local[local[:, 2] > camera.near]
    u, v = np.floor(pixels_of(camera, local)).T
    inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    depth = np.full((camera.height, camera.width), np.inf, np.float32)
    np.minimum.at(depth, (v[inside].astype(int), u[inside].astype(int)), local[inside, 2].astype(np.float32))
    return np.where(np.isfinite(depth), depth, np.float32(0))
