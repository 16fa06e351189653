"""What is measured: devices that can be, cases, and times."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from running import make_scene
from stipple import bench
from stipple.bench.cases import frame_of, scene_case, scene_of
from stipple.bench.timing import best_of, best_of_waiting
from stipple.errors import DeviceError, InputError


def test_devices_that_are_not_measured() -> None:
    quiet = Console(file=io.StringIO())
    with pytest.raises(InputError, match="bench: expected the device cpu or a GPU, got 'reference'"):
        bench.measure("reference", [], quiet)
    with pytest.raises(DeviceError, match="no device 'abacus'"):
        bench.measure("abacus", [], quiet)


def test_usual_cases(tmp_path: Path) -> None:
    path = str(make_scene(tmp_path / "s.ply"))
    assert len(bench.usual_cases(True, None)) == 1
    names = [case.name for case in bench.usual_cases(False, path)]
    assert names[1].startswith("100,000 Gaussians")
    assert names[2] == "s.ply, 300 Gaussians, 1280x720"


def test_a_scene_is_measured_from_where_it_is_framed(tmp_path: Path) -> None:
    case = scene_case(str(make_scene(tmp_path / "s.ply")), 64, 48)
    assert scene_of(case).sh_degree == 3
    frame = frame_of(case)
    assert frame.pixels.shape == (48, 64, 3)
    inside = scene_of(case).means @ frame.camera.viewmat[:3, :3].T + frame.camera.viewmat[:3, 3]
    assert (inside[:, 2] > 0).mean() > 0.95
    middle = inside[:, :2] / inside[:, 2:]
    assert np.abs(np.median(middle, axis=0)).max() < 0.1


def test_times_are_the_shortest_of_those_counted() -> None:
    calls: list[int] = []
    assert best_of(lambda: calls.append(1), seconds=0.0, minimum=4) >= 0
    assert len(calls) == 5, "one to warm up"
    waits: list[int] = []
    best_of_waiting(lambda: calls.append(2), lambda: waits.append(1), 3)
    assert (calls.count(2), len(waits)) == (5, 10)
