"""Files that change, that are none, or that ask for more than they hold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from captures import truth, write_colmap, write_nerfstudio
from stipple.errors import FileFormatError, OutOfMemoryError
from stipple.formats import load_ply
from stipple.formats.captures import load_frame, open_capture
from stipple.formats.captures.pixels import decode, decode_depth
from stipple.formats.reading import BoundedFile, read_bytes, read_lines
from stipple.train.config_toml import read_toml

IN_A_PROCESS_OF_ITS_OWN = """
import os, sys
from pathlib import Path
from PIL import Image
from stipple.errors import FileFormatError
from stipple.formats.captures.pixels import decode
whole = Image.open
def open_then_cut(file, *arguments, **more):
    image = whole(file, *arguments, **more)
    os.truncate(path, 100)
    return image
Image.open = open_then_cut
for path in map(Path, sys.argv[1:]):
    try:
        decode(path, (400, 300))
    except FileFormatError as error:
        print(error)
"""
DECODED_FIRST = """
import sys
from pathlib import Path
from stipple.formats.captures.pixels import decode
print(decode(Path(sys.argv[1]), (4, 3)).shape)
"""


def python(code: str, *arguments: Path) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
    return done.stdout


def test_a_photo_cut_short_while_it_is_read(tmp_path: Path) -> None:
    """Mapped into memory it would end the process, as a page that is gone cannot be read."""
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    photos = [tmp_path / f"a.{s}" for s in ("png", "bmp", "jpg", "tif")]
    for photo in photos:
        Image.fromarray(pixels).save(photo, **({"compression": "tiff_lzw"} if photo.suffix == ".tif" else {}))
    message = python(IN_A_PROCESS_OF_ITS_OWN, *photos).splitlines()
    assert [line.split(": ")[1] for line in message] == ["broken or truncated"] * len(photos)


@pytest.mark.parametrize("suffix", ["tif", "webp"])
def test_tiny_photos_are_read_by_a_process_that_has_read_none_before(suffix: str, tmp_path: Path) -> None:
    """Decoders of other formats, which look first, seek to 2048."""
    photo = tmp_path / f"a.{suffix}"
    Image.new("RGB", (4, 3), (9, 8, 7)).save(photo)
    assert photo.stat().st_size < 2048
    assert python(DECODED_FIRST, photo).strip() == "(3, 4, 3)"


def test_a_length_that_a_file_claims_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abcdef")
    with BoundedFile(path) as file:
        assert file.read(1 << 60) == b"abcdef"
        assert file.seek(4096) == 4096
        assert file.read(10) == b""
        with pytest.raises(OSError, match="fileno"):
            file.fileno()


# --- what is no file --------------------------------------------------------------------------------------
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (load_ply, read_bytes, read_toml, lambda p: list(read_lines(p)), lambda p: decode(p, (4, 4))):
        with pytest.raises(FileFormatError, match=r"pipe: expected a file, found a named pipe"):
            read(pipe)
    with pytest.raises(FileFormatError, match=r"expected a file, found a device"):
        load_ply("/dev/zero")
    with socket.socket(socket.AF_UNIX) as open_socket:
        monkeypatch.chdir(tmp_path)  # names of sockets must be short
        open_socket.bind("s")
        with pytest.raises(OSError, match=r"Errno"):
            read_bytes("s")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("file", ["images/003.png", "masks/003.png", "depth/003.png", "points.ply"])
def test_a_pipe_among_a_captures_files(file: str, tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(FileFormatError, match="found a named pipe"):
        _load_all(tmp_path)


def _load_all(root: Path) -> None:
    for view in open_capture(root).views:
        load_frame(view)


def test_a_folder_where_a_photo_is_expected(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path)
    (tmp_path / "images/003.png").unlink()
    (tmp_path / "images/003.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"003\.png"):
        open_capture(tmp_path)


# --- decoders meet damage ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 1000000), }", "expected numbers"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (12, 16), }", "expected numbers"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (12, 16), }", "truncated"),
        ("{'descr': '<f8', 'shape': (12, 16), }", "cannot be read as an array"),
        ("(" * 4000, "cannot be read as an array"),
        ("{'descr': '<f8", "cannot be read as an array"),
    ],
)
def test_damaged_arrays(header: str, message: str, tmp_path: Path) -> None:
    text = header.encode() + b"\n"
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64)
    with pytest.raises(FileFormatError, match=rf"d\.npy: {message}"):
        decode_depth(tmp_path / "d.npy", (16, 12), 1.0)


def test_an_archive_named_as_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((12, 16)))
    (tmp_path / "a.npz").rename(tmp_path / "d.npy")
    with pytest.raises(FileFormatError, match=r"d\.npy: cannot be read as an array"):
        decode_depth(tmp_path / "d.npy", (16, 12), 1.0)


def test_arrays_in_any_order(tmp_path: Path) -> None:
    values = np.arange(1, 193, dtype=">f4").reshape(12, 16)
    np.save(tmp_path / "d.npy", np.asfortranarray(values))
    np.testing.assert_array_equal(decode_depth(tmp_path / "d.npy", (16, 12), 1.0), values)


def test_a_decoder_that_fails_in_its_own_way(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(range(200)))
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x20ftypheic\0\0\0\0heicmif1miaf" + bytes(range(200)))
    with pytest.raises(FileFormatError, match=r"a\.avif: cannot be read as an image: "):
        decode(tmp_path / "a.avif", (4, 4))
    with pytest.raises(FileFormatError, match=r"b\.heic: .*HEIC is not supported here; convert it to JPEG or PNG"):
        decode(tmp_path / "b.heic", (4, 4))


def test_depth_far_finer_than_its_photo(tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path)
    Image.new("I;16", (48 * 5, 36 * 5)).save(tmp_path / "depth/000.png")
    view = open_capture(tmp_path).views[0]
    with pytest.raises(FileFormatError, match=r"depth.000\.png: 240 x 180 pixels of depth are far more than"):
        load_frame(view)


def test_programs_are_not_run_for_a_photo(tmp_path: Path) -> None:
    """EPS, which Pillow gives to Ghostscript, is no photo, whatever its name."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    with pytest.raises(FileFormatError, match=r"a\.png: cannot be read as an image: unknown format"):
        decode(tmp_path / "a.png", (4, 4))


def test_memory_that_is_missing_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(image: Image.Image) -> None:
        raise MemoryError

    Image.new("RGB", (4, 4)).save(tmp_path / "a.bmp")
    monkeypatch.setattr(BmpImageFile, "load", starve)
    with pytest.raises(OutOfMemoryError, match=r"not enough memory to decode .*a\.bmp"):
        decode(tmp_path / "a.bmp", (4, 4))
