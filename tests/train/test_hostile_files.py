"""A run's small files, damaged or written by somebody else: one sentence, soon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from captures import truth
from stipple.cli.run_cameras import run_flight, view_camera
from stipple.errors import FileFormatError, InputError
from stipple.train import RunFolder
from stipple.train.config import fields, layer_of, make_config
from stipple.train.config_toml import parse_setting, read_toml

VALUES = (10**400, 16**6000, 2**31, -(2**31), 1e31, float("inf"), [[[[[[1]]]]]], {"a": {}})
TOMLS = {
    "an integer of many digits": ("seed = " + "1" * 5000, "not valid TOML: a line is longer than"),
    "nested lists": ("x = " + "[" * 3000, "not valid TOML: it is nested too deeply"),
    "nested tables": ("\n".join(["x = " + "{a=" * 1200] * 3), "not valid TOML: it is nested too deeply"),
    "one dotted key": ("a." * 20_000 + "a = 1", "not valid TOML: a line is longer than"),
    "too large": ("# comment\n" * 10_000, "expected at most 65,536 bytes"),
    "no UTF-8": (b"\xff\xfe", "not valid TOML: "),
}


@pytest.mark.parametrize("case", TOMLS)
def test_configurations_that_are_none(case: str, tmp_path: Path) -> None:
    text, message = TOMLS[case]
    (tmp_path / "c.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileFormatError, match=rf"c\.toml: {message}"):
        read_toml(tmp_path / "c.toml")


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_beyond_all_bounds(value: object) -> None:
    """No value of the configuration takes them, and no sentence about them is long."""
    for name in fields():
        with pytest.raises(InputError) as told:
            make_config(None, layer_of(name, value))
        assert len(str(told.value)) < 500
        assert name.partition(".")[0] in str(told.value)


def test_a_setting_that_is_no_value() -> None:
    for text in ("[" * 3000, "1" * 5000, "a." * 9000 + "=3"):
        with pytest.raises(InputError, match=r"data\.test_every"):
            make_config(None, parse_setting(f"data.test_every={text}"))


def test_names_of_values_are_shown_harmlessly() -> None:
    with pytest.raises(InputError, match=r"there is no value a\\x1b\[31m"):
        make_config(None, {"a\x1b[31m": 1})


# --- cameras.json -----------------------------------------------------------------------------------------
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_named_as_cameras(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cameras.json")
    with pytest.raises(FileFormatError, match=r"cameras\.json: expected a file, found a named pipe"):
        RunFolder(tmp_path).read_cameras()
