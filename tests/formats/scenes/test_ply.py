"""Splat PLY files: round trips, every byte order and type, other programs' files, and broken ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ply_files import packed, rewritten, scene
from stipple import Gaussians
from stipple.errors import FileFormatError
from stipple.formats import load_ply, save_ply

SPLATS = Path(__file__).parents[4] / "shared" / "data" / "splats"
FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")


def assert_same(a: Gaussians, b: Gaussians, **tolerance: float) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_round_trip(degree: int, count: int, tmp_path: Path) -> None:
    original = scene(count, degree)
    save_ply(original, tmp_path / "s.ply")
    assert_same(load_ply(tmp_path / "s.ply"), original)
    assert [p.name for p in tmp_path.iterdir()] == ["s.ply"]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("kind", ["float", "float32", "double"])
@pytest.mark.parametrize("extra", [False, True])
def test_other_programs_layouts(form: str, kind: str, extra: bool, tmp_path: Path) -> None:
    original = scene(9, 1)
    (tmp_path / "s.ply").write_bytes(rewritten(original, form, kind, extra))
    assert_same(load_ply(tmp_path / "s.ply"), original, rtol=1e-6)


def test_files_from_supersplat() -> None:
    if not SPLATS.exists():
        pytest.skip(f"{SPLATS} is not on this machine")
    biker = load_ply(SPLATS / "biker.compressed.ply")
    assert (biker.count, biker.sh_degree) == (152_746, 0)
    assert biker.finite.all()
    low, high = biker.bounds()
    assert np.all(high - low > 0.9)
    assert np.all(high - low < 3.3)
    np.testing.assert_allclose(np.linalg.norm(biker.quats, axis=1), 1, atol=1e-3)
    small = load_ply(SPLATS / "test.ply")
    assert (small.count, small.sh_degree) == (64, 3)
    assert np.abs(small.sh[:, 1:]).max() <= 4


def test_compressed_values() -> None:
    """One Gaussian packed by hand."""
    import io
    import tempfile

    position = (1024 << 21) | (256 << 11) | 2047
    rotation = (2 << 30) | (1023 << 20) | (512 << 10) | 0
    scale = (0 << 21) | (1023 << 11) | 2047
    color = (255 << 24) | (0 << 16) | (128 << 8) | 51
    bounds = [0, 0, 0, 2, 4, 8, -6, -5, -4, -1, -2, -3]
    names = [f"{e}_{p}{a}" for p in ("", "scale_") for e in ("min", "max") for a in "xyz"]
    header = ["ply", "format binary_little_endian 1.0", "element chunk 1", *(f"property float {n}" for n in names)]
    header += ["element vertex 1", *(f"property uint packed_{n}" for n in ("position", "rotation", "scale", "color"))]
    stream = io.BytesIO()
    stream.write(("\n".join([*header, "end_header"]) + "\n").encode())
    stream.write(np.array(bounds, "<f4").tobytes())
    stream.write(np.array([position, rotation, scale, color], "<u4").tobytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.ply"
        path.write_bytes(stream.getvalue())
        one = load_ply(path)
    np.testing.assert_allclose(one.means[0], [2 * 1024 / 2047, 4 * 256 / 1023, 8], rtol=1e-5)
    np.testing.assert_allclose(one.log_scales[0], [-6, -2, -3], rtol=1e-5)
    assert one.opacities[0] == pytest.approx(51 / 255, rel=1e-4)
    a, b, c = ((np.array([1023, 512, 0]) / 1023) - 0.5) * np.sqrt(2)
    np.testing.assert_allclose(one.quats[0], [a, b, np.sqrt(max(1 - a * a - b * b - c * c, 0)), c], atol=1e-5)
    np.testing.assert_allclose(one.sh[0, 0] * 0.28209479 + 0.5, [1, 0, 128 / 255], atol=1e-5)


HEADER = b"ply\nformat ascii 1.0\nelement vertex 1\n"
BROKEN = {
    "empty": (b"", "not a PLY file"),
    "other": (b"\x89PNG\r\n", "not a PLY file"),
    "no end": (b"ply\nformat ascii 1.0\n", "ends without 'end_header'"),
    "no format": (b"ply\nelement vertex 0\nend_header\n", "no format line"),
    "bad line": (b"ply\nformat ascii 1.0\nelephant\nend_header\n", "cannot read the header line 'elephant'"),
    "bad type": (HEADER + b"property quad x\nend_header\n", "cannot read the header line 'property quad x'"),
    "no vertex": (b"ply\nformat ascii 1.0\nend_header\n", "no element 'vertex'"),
    "a property twice": (
        b"ply\nformat binary_little_endian 1.0\nelement camera 1\nproperty float f\nproperty int f\nend_header\n",
        "a property of camera is declared twice: f",
    ),
    "an element twice": (HEADER + b"element vertex 2\nend_header\n", "an element is declared twice: vertex"),
    "rows without numbers": (
        b"ply\nformat ascii 1.0\nelement nothing 99999999999999999\nelement vertex 1\nend_header\n",
        "vertex has no property x",
    ),
    "more rows than the file can hold": (
        b"ply\nformat ascii 1.0\nelement camera 99999999999\nproperty float f\nend_header\n1\n",
        "the header declares 99999999999 of 'camera', the file holds at most 1",
    ),
    "points": (HEADER + b"property float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n", "a point cloud"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_broken_files(case: str, tmp_path: Path) -> None:
    data, message = BROKEN[case]
    path = tmp_path / "broken.ply"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=message) as caught:
        load_ply(path)
    assert str(path) in str(caught.value)


def test_cut_short_and_miscounted(tmp_path: Path) -> None:
    path = tmp_path / "s.ply"
    save_ply(scene(20, 1), path)
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            load_ply(path)
    path.write_bytes(data[:-1])
    with pytest.raises(FileFormatError, match="truncated: the header declares 20 of 'vertex', the file holds 19"):
        load_ply(path)
    path.write_bytes(data.replace(b"f_rest_8", b"f_rust_8"))
    with pytest.raises(FileFormatError, match="8 f_rest properties"):
        load_ply(path)
    path.write_bytes(data.replace(b"float rot_3", b"float rot_x"))
    with pytest.raises(FileFormatError, match="vertex has no property rot_3"):
        load_ply(path)
    path.write_bytes(rewritten(scene(3, 0), "ascii", "float", False).replace(b"vertex 3", b"vertex 9"))
    with pytest.raises(FileFormatError, match="vertex 3 of 9: the file ends"):
        load_ply(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60), st.integers(0, 2000), st.integers(0, 30), st.sampled_from(["ascii", "binary_little_endian"])
)
def test_fuzzed(tmp_path: Path, noise: bytes, position: int, drop: int, form: str) -> None:
    data = rewritten(scene(5, 1), form, "float", True)
    position %= len(data)
    path = tmp_path / "f.ply"
    path.write_bytes(data[:position] + noise + data[position + drop :])
    tracemalloc.start()
    try:
        load_ply(path)
    except FileFormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


def test_a_compressed_file_that_lacks_something(tmp_path: Path) -> None:
    path, whole = tmp_path / "c.ply", packed(1, 5)
    path.write_bytes(whole)
    assert load_ply(path).sh_degree == 1
    damages = {
        b"property uint packed_scale\n": b"property uint other\n",
        b"property uint packed_color\n": b"property float packed_color\n",
        b"property float min_scale_y\n": b"property float other\n",
        b"property uchar f_rest_3\n": b"property uchar f_rest_99\n",
        b"property uchar f_rest_4\n": b"property uchar other\n",
        b"element sh 5": b"element sh 4",
    }
    messages = (
        "no 32-bit integers packed_scale",
        "no 32-bit integers packed_color",
        "holds bounds",
        *["coefficients"] * 3,
    )
    for (old, new), message in zip(damages.items(), messages, strict=True):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(FileFormatError, match=message):
            load_ply(path)


def test_numbers_beyond_float32_are_infinite_and_not_drawn(tmp_path: Path) -> None:
    original = scene(9, 0)
    text = rewritten(original, "ascii", "double", False).decode()
    first = repr(float(original.means[0, 0]))
    assert first in text
    (tmp_path / "s.ply").write_text(text.replace(first, "1e308", 1))
    assert load_ply(tmp_path / "s.ply").finite.tolist() == [False] + [True] * 8
