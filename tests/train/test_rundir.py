"""cameras.json of any content ends in one short sentence, and comes back as it was."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captures import truth
from stipple.cli.run_cameras import run_flight, view_camera
from stipple.errors import FileFormatError
from stipple.train import RunFolder

CAMERAS = {
    "an empty list": ([], "expected a list of at least one camera"),
    "no list": ({}, "expected a list of at least one camera"),
    "no object": ([3], "camera 0 is broken"),
    "infinite": ({"width": float("inf")}, "camera 0 is broken: expected whole numbers of pixels"),
    "half a pixel": ({"height": 35.5}, "camera 0 is broken: expected whole numbers of pixels"),
    "huge": ({"width": 10**9}, "camera 0 is broken: expected whole numbers of pixels"),
    "a number that no float holds": ({"fx": 10**400}, "camera 0 is broken"),
    "far out": ({"viewmat": (np.eye(4) + np.eye(4, k=3) * 1e308).tolist()}, "camera 0 is broken: expected a viewmat"),
    "no matrix": ({"viewmat": []}, r"camera 0 is broken: viewmat: expected shape \[4, 4\], got \[0\]"),
    "no text": ({"width": None}, "camera 0 is broken"),
    "an exposure that is none": ({"exposure": [[1e40] * 4] * 3}, "camera 0 is broken: expected an exposure"),
}


@pytest.mark.parametrize("case", CAMERAS)
def test_cameras_that_are_none(case: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_cameras([("a.png", "train", truth().cameras[0], None)])
    change, message = CAMERAS[case]
    rows = json.loads(folder.cameras.read_text())
    folder.cameras.write_text(json.dumps([{**rows[0], **change}] if isinstance(change, dict) and change else change))
    for read in (lambda: view_camera(tmp_path, None, None), lambda: run_flight(tmp_path, 5, None)):
        with pytest.raises(FileFormatError, match=rf"cameras\.json: {message}"):
            read()


def test_cameras_come_back_as_they_were(tmp_path: Path) -> None:
    camera, exposure = truth().cameras[3], np.arange(12, dtype=np.float32).reshape(3, 4)
    RunFolder(tmp_path).write_cameras([("a.png", "train", camera, exposure), ("b.png", "test", camera, None)])
    made = RunFolder(tmp_path).read_cameras()
    assert made["b.png"][1] is None
    np.testing.assert_array_equal(made["a.png"][1], exposure)
    again = made["a.png"][0]
    assert isinstance(again.width, int)
    assert (again.width, again.height, again.near, again.far) == (camera.width, camera.height, camera.near, camera.far)
    np.testing.assert_array_equal(again.viewmat, camera.viewmat)


def test_lenses_come_back_as_they_were(tmp_path: Path) -> None:
    """Pictures of a run's views are taken through the photos' lens, films without it."""
    lens = {"model": "fisheye", "distortion": (0.1, 0.02, -0.003, 0.0)}
    RunFolder(tmp_path).write_cameras([("a.png", "train", replace(truth().cameras[3], **lens), None)])
    camera = view_camera(tmp_path, "a.png", None)
    assert (camera.model, camera.distortion) == ("fisheye", lens["distortion"])
    assert {(c.model, c.distortion) for c in run_flight(tmp_path, 3, None)} == {("pinhole", ())}
    rows = json.loads((tmp_path / "cameras.json").read_text())
    for change, message in (
        ({"model": "lens"}, "model"),
        ({"distortion": [1, 2]}, "distortion"),
        ({"distortion": 3}, ""),
    ):
        (tmp_path / "cameras.json").write_text(json.dumps([{**rows[0], **change}]))
        with pytest.raises(FileFormatError, match=rf"cameras\.json: camera 0 is broken: .*{message}"):
            RunFolder(tmp_path).read_cameras()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_named_as_cameras(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cameras.json")
    with pytest.raises(FileFormatError, match=r"cameras\.json: expected a file, found a named pipe"):
        RunFolder(tmp_path).read_cameras()
