"""Decoding photos, masks and depth maps; photos of any stored format become 8-bit RGB or RGBA."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stipple.errors import FileFormatError, OutOfMemoryError, StippleError
from stipple.forking import hold_across_forks
from stipple.formats.captures.depth_array import read_depth_array
from stipple.formats.reading import BoundedFile
from stipple.memory import shortage

Array = np.ndarray
Size = tuple[int, int]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif")
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "PPM", "JPEG2000")  # none starts other programs
_OTHERS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_WARNINGS = threading.Lock()  # warning filters are global to the process, and several threads decode
hold_across_forks(_WARNINGS)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image whose header has been read; any error while it is used becomes FileFormatError.

    Raises FileFormatError, naming the file, if it is missing, not an image, broken, or too large; OSError only if the
    file cannot be opened.
    """
    try:
        file = BoundedFile(path)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: the image is missing") from None
    with file:
        try:
            image = _opened(file)
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from None
        except Exception as error:  # decoders raise all kinds of errors: struct.error, KeyError, RuntimeError ...
            raise _told(error, path, "cannot be read as an image", file) from None
        with image:
            try:
                yield image
            except StippleError:
                raise
            except Exception as error:
                raise _told(error, path, "broken or truncated", file) from None


def _opened(file: BoundedFile) -> Image.Image:
    maximum = Image.MAX_IMAGE_PIXELS
    with _quiet():
        try:
            image = Image.open(file, formats=_formats())  # type: ignore[arg-type]  # it needs read, seek and tell alone
        except Image.DecompressionBombError:
            raise FileFormatError(f"more pixels than an image may have ({maximum:,})") from None
    if maximum is not None and image.width * image.height > maximum:
        raise FileFormatError(f"more pixels than an image may have ({maximum:,})")
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow can decode."""
    Image.init()
    return tuple(f for f in _FORMATS if f in Image.OPEN)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: the relevant ones are checked here, and errors name the file."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _told(error: Exception, path: Path, what: str, file: BoundedFile) -> StippleError:
    if shortage(error) is not None:
        return OutOfMemoryError(f"not enough memory to decode {path}")
    return FileFormatError(f"{path}: {what}: {_reason(error, file)}")


def _reason(error: Exception, file: BoundedFile) -> str:
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        known = _OTHERS.get(file.read(12)[8:])
        return f"{known} is not supported here; convert it to JPEG or PNG" if known else "unknown format"
    return " ".join(str(error).split()) or type(error).__name__


def stored_sizes(path: Path) -> tuple[Size, Size]:
    """Width and height of an image, rotated by its EXIF orientation and as stored, from its header."""
    with open_image(path) as image:
        turned = _orientation(image) in _TURNED
        width, height = image.size
        return ((height, width) if turned else (width, height)), (width, height)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (as stored) if it cannot be read."""
    try:
        with _quiet():
            found = image.getexif().get(_ORIENTATION)
    except Exception:  # EXIF data may be damaged in any way while the photo itself is intact
        return 1
    return found if isinstance(found, int) else 1


def turned_upright(image: Image.Image) -> Image.Image:
    """The image rotated by its EXIF orientation; unchanged if there is none or it cannot be read."""
    if not 1 < _orientation(image) <= 8:
        return image
    with _quiet():
        return ImageOps.exif_transpose(image)


def decode(path: Path, size: Size) -> Array:
    """An image's pixels [H, W, 3 or 4] uint8, rotated by its EXIF orientation if it then has ``size``.

    Grey, palette, CMYK and 16-bit images are converted. Raises FileFormatError, naming a file that is missing,
    broken, or of another size.
    """
    with open_image(path) as image:
        if size not in (image.size, image.size[::-1]):
            raise _wrong_size(path, size, image.size)
        image.load()
        turned = turned_upright(image)
        fitting = turned if turned.size == size else image
        if fitting.size != size:
            raise _wrong_size(path, size, image.size)
        return _eight_bit(fitting)


def _wrong_size(path: Path, expected: Size, got: Size) -> FileFormatError:
    return FileFormatError(f"{path}: expected {expected[0]} x {expected[1]} pixels, got {got[0]} x {got[1]}")


def _eight_bit(image: Image.Image) -> Array:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0)
        scale = 1 / 257 if image.mode.startswith("I") else 255.0  # 16-bit integers; floats in [0, 1]
        with np.errstate(over="ignore"):
            byte = np.clip(grey * scale + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(byte[:, :, None], 3, axis=2)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.array(image.convert("RGBA" if transparent else "RGB"))


def decode_mask(path: Path, size: Size) -> Array:
    """A mask [H, W] bool: True where the photo is used: where it is bright (128 or more), or by its alpha channel if it
    has one."""
    pixels = decode(path, size)
    return np.asarray((pixels[..., 3] if pixels.shape[2] == 4 else pixels[..., :3].max(axis=2)) >= 128)


def decode_depth(path: Path, size: Size, scale: float) -> Array:
    """Camera z [H, W] float32 in world units; 0 where the sensor measured none (0, or all bits set)."""
    if path.suffix.lower() == ".npy":
        return _valid_depth(read_depth_array(path, size))
    with open_image(path) as image:
        if image.size != size:
            raise _wrong_size(path, size, image.size)
        image.load()
        values = np.asarray(image)
    if values.ndim != 2:
        raise FileFormatError(f"{path}: expected a depth map with one channel, got {list(values.shape)}")
    with np.errstate(over="ignore"):
        return _valid_depth(np.where(values == 65535, 0, values) / scale)


def _valid_depth(values: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        depth = values.astype(np.float32)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
