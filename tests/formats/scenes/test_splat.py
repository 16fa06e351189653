""".splat files: values by their definition, round trips, what is left out, and broken files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from ply_files import scene
from stipple import Gaussians
from stipple.errors import FileFormatError, FormatWarning
from stipple.formats import load_scene, save_scene


def row(mean: tuple[float, ...], scale: tuple[float, ...], rgba: tuple[int, ...], quat: tuple[int, ...]) -> bytes:
    return struct.pack("<6f8B", *mean, *scale, *rgba, *quat)


def test_values_by_definition(tmp_path: Path) -> None:
    """Written byte by byte, as the viewer's own converter defines them."""
    path = tmp_path / "s.splat"
    path.write_bytes(row((1, -2, 3.5), (0.5, 1, 2), (255, 0, 51, 128), (128, 255, 128, 0)))
    one = load_scene(path)
    np.testing.assert_array_equal(one.means, [[1, -2, 3.5]])
    np.testing.assert_allclose(one.scales, [[0.5, 1, 2]], rtol=1e-6)
    np.testing.assert_allclose(one.sh[:, 0] * 0.28209479177 + 0.5, [[1, 0, 0.2]], atol=1e-6)
    assert one.opacities[0] == pytest.approx(128 / 255, rel=1e-5)
    np.testing.assert_allclose(one.quats, [[0, 127 / 128, 0, -1]], atol=1e-6)


def test_bytes_by_definition(tmp_path: Path) -> None:
    path = tmp_path / "s.splat"
    made = Gaussians.from_linear([[1, 2, 3]], [[0.25, 0.5, 1]], 0.6, [[0, 0.2, 1.0]], [[0, 0, 3, -4]])
    save_scene(made, path)
    values = struct.unpack("<6f8B", path.read_bytes())
    np.testing.assert_allclose(values[:6], [1, 2, 3, 0.25, 0.5, 1], rtol=1e-6)
    assert values[6:10] == (0, 51, 255, 153)
    assert values[10:] == (128, 128, 128 + round(0.6 * 128), 128 - round(0.8 * 128))


def test_round_trip(tmp_path: Path) -> None:
    original = scene(200, 0)
    save_scene(original, tmp_path / "s.splat")
    assert (tmp_path / "s.splat").stat().st_size == 200 * 32
    read = load_scene(tmp_path / "s.splat")
    order = np.lexsort(original.means.T)
    again = np.lexsort(read.means.T)
    np.testing.assert_array_equal(read.means[again], original.means[order])
    np.testing.assert_allclose(read.log_scales[again], original.log_scales[order], atol=1e-6)
    np.testing.assert_allclose(read.opacities[again], original.opacities[order], atol=0.5 / 255 + 1e-6)
    unit = original.quats / np.linalg.norm(original.quats, axis=1, keepdims=True)
    np.testing.assert_allclose(read.quats[again], unit[order], atol=1 / 128)
    colors = (np.clip(s.sh[:, 0] * 0.28209479177 + 0.5, 0, 1) for s in (read, original))
    mine, theirs = colors
    np.testing.assert_allclose(mine[again], theirs[order], atol=0.5 / 255 + 1e-6)


def test_large_opaque_gaussians_come_first(tmp_path: Path) -> None:
    save_scene(scene(50, 0), tmp_path / "s.splat")
    read = load_scene(tmp_path / "s.splat")
    weight = np.prod(read.scales.astype(float), axis=1) * read.opacities
    assert (weight[1:] <= weight[:-1] * 1.1).all(), "up to what 8 bits of opacity leave open"
    again = tmp_path / "again.splat"
    save_scene(read, again)
    assert len(again.read_bytes()) == 50 * 32


def test_higher_bands_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    with pytest.warns(FormatWarning, match=r"no SH above degree 0.*degree 2") as caught:
        save_scene(scene(5, 2), tmp_path / "s.splat")
    assert caught[0].filename == __file__, "the warning points to the caller"
    assert load_scene(tmp_path / "s.splat").sh_degree == 0


def test_what_is_never_drawn_is_left_out(tmp_path: Path) -> None:
    made = scene(4, 0)
    made.means[1, 0] = np.nan
    made.quats[2] = 0
    save_scene(made, tmp_path / "s.splat")
    np.testing.assert_array_equal(sorted(load_scene(tmp_path / "s.splat").means[:, 0]), sorted(made.means[[0, 3], 0]))


def test_a_scale_that_is_not_positive_is_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "s.splat").write_bytes(
        row((0, 0, 0), (0, 1, 1), (0, 0, 0, 255), (255, 128, 128, 128))
        + row((0, 0, 0), (1, 1, 1), (0, 0, 0, 255), (255, 128, 128, 128))
    )
    assert load_scene(tmp_path / "s.splat").finite.tolist() == [False, True]


def test_no_gaussians(tmp_path: Path) -> None:
    save_scene(scene(0, 0), tmp_path / "s.splat")
    assert load_scene(tmp_path / "s.splat").count == 0


@pytest.mark.parametrize("size", [1, 31, 33])
def test_cut_short(size: int, tmp_path: Path) -> None:
    (tmp_path / "s.splat").write_bytes(bytes(size))
    with pytest.raises(FileFormatError, match=rf"s\.splat: truncated.*expected 32 bytes for each.*got {size} bytes"):
        load_scene(tmp_path / "s.splat")
