"""Decoding photos: kept, streamed, broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captures import truth, write_colmap, write_nerfstudio
from stipple.errors import FileFormatError
from stipple.formats.captures import open_capture
from stipple.scene import Normalization
from stipple.train import Problem, make_config
from stipple.train.loader import Loader


def problem_of(root: Path, **sections: Any) -> Problem:
    problem = Problem.open(str(root), make_config(None, sections))
    problem.load(lambda: None)
    problem.close()
    return problem


def test_streamed_photos_are_those_that_are_kept(tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path)
    capture = open_capture(tmp_path)
    one = 48 * 36 * (3 + 1 + 4)
    counted = []
    frames = []
    for memory in (1e9, 3.5 * one, 0):
        loader = Loader(capture, capture.views, 1.0, Normalization(), memory)
        loader.load(lambda: counted.append(1))
        loader.prefetch(range(10))
        frames.append([loader.frame(i, factor) for factor in (1, 2) for i in range(10)])
        assert loader.streamed == {1e9: 0, 3.5 * one: 7, 0: 10}[memory]
        loader.close()
    assert len(counted) == 30
    for other in frames[1:]:
        for a, b in zip(frames[0], other, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
            np.testing.assert_array_equal(a.depth, b.depth)
            np.testing.assert_array_equal(a.mask, b.mask)


def test_tracks_make_sparse_depth(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path)
    problem = problem_of(tmp_path, loss={"depth": 0.1})
    depth = problem.train.frame(0).depth
    assert depth is not None
    assert 10 <= np.count_nonzero(depth) <= 20
    assert problem_of(tmp_path).train.frame(0).depth is None


def test_a_broken_photo_ends_the_load(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path)
    file = tmp_path / "images" / "006.png"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match=r"006\.png: broken"):
        problem_of(tmp_path)
