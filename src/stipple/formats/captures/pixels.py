"""Decoding photos, masks and depth maps: whatever is stored, 8-bit RGB or RGBA comes out."""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stipple.errors import FileFormatError

Array = np.ndarray
Size = tuple[int, int]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open(path, "rb") as file:  # mapped, as a read of a length that a broken file claims costs nothing then
                return Image.open(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # type: ignore[arg-type]
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the image is missing") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise FileFormatError(f"{path}: more pixels than an image may have ({Image.MAX_IMAGE_PIXELS:,})") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, TypeError) as error:
        raise FileFormatError(f"{path}: cannot be read as an image: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def stored_sizes(path: Path) -> tuple[Size, Size]:
    """Width and height of an image turned as its EXIF orientation says, and as stored, from its header."""
    with _open(path) as image:
        try:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
        except (OSError, ValueError, SyntaxError, TypeError, KeyError):
            turned = False  # no readable EXIF: nothing to honour
        width, height = image.size
        return ((height, width) if turned else (width, height)), (width, height)


def decode(path: Path, size: Size) -> Array:
    """An image's pixels [H, W, 3 or 4] uint8, turned as its EXIF orientation says if ``size`` then fits.

    Grey, palette, CMYK and 16-bit images are converted. Raises FileFormatError, naming a file that is missing,
    broken, or of another size.
    """
    with _open(path) as image:
        if size not in (image.size, image.size[::-1]):
            raise _wrong_size(path, size, image.size)
        try:
            image.load()
            turned = ImageOps.exif_transpose(image)
            fitting = turned if turned.size == size else image
            if fitting.size != size:
                raise _wrong_size(path, size, image.size)
            return _eight_bit(fitting)
        except FileFormatError:
            raise
        except (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError) as error:
            raise FileFormatError(f"{path}: broken or truncated: {_reason(error)}") from None


def _wrong_size(path: Path, wanted: Size, got: Size) -> FileFormatError:
    return FileFormatError(f"{path}: expected {wanted[0]} x {wanted[1]} pixels, got {got[0]} x {got[1]}")


def _eight_bit(image: Image.Image) -> Array:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image).astype(np.float64)
        scale = 1 / 257 if image.mode.startswith("I") else 255.0  # 16-bit integers; floats in [0, 1]
        byte = np.clip(grey * scale + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(byte[:, :, None], 3, axis=2)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.array(image.convert("RGBA" if transparent else "RGB"))


def decode_mask(path: Path, size: Size) -> Array:
    """A mask [H, W] bool: True where the photo counts. Bright (128 and more) counts; an alpha channel decides alone."""
    pixels = decode(path, size)
    return np.asarray((pixels[..., 3] if pixels.shape[2] == 4 else pixels[..., :3].max(axis=2)) >= 128)


def decode_depth(path: Path, size: Size, scale: float) -> Array:
    """Camera z [H, W] float32 in world units; 0 where the sensor gave none (0, or all bits set)."""
    if path.suffix.lower() == ".npy":
        return _depth_array(path, size)
    with _open(path) as image:
        if image.size != size:
            raise _wrong_size(path, size, image.size)
        try:
            values = np.asarray(image)
        except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:
            raise FileFormatError(f"{path}: broken or truncated: {_reason(error)}") from None
    if values.ndim != 2:
        raise FileFormatError(f"{path}: expected a depth map with one channel, got {list(values.shape)}")
    return _valid_depth(np.where(values == 65535, 0, values) / scale)


def _depth_array(path: Path, size: Size) -> Array:
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the depth map is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(f"{path}: cannot be read as an array: {error}") from None
    if values.shape != (size[1], size[0]) or values.dtype.kind not in "fui":
        raise FileFormatError(f"{path}: expected numbers [{size[1]}, {size[0]}], got {values.dtype} {values.shape}")
    return _valid_depth(values)


def _valid_depth(values: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        depth = values.astype(np.float32)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
