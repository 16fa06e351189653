"""Loaders given damaged files: one of our errors or a capture, never a crash, and little memory."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures import LAYOUTS, truth
from stipple.errors import StippleError
from stipple.formats.captures import load_frame, open_capture

LIMIT = 64 << 20
FILES = {
    "colmap binary": ("sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "images/000.png"),
    "colmap text": ("sparse/0/cameras.txt", "sparse/0/images.txt", "sparse/0/points3D.txt"),
    "nerfstudio": ("transforms.json", "points.ply", "depth/000.png", "masks/000.png"),
    "blender": ("transforms_train.json", "transforms_test.json", "train/000.png"),
    "tum": ("rgb.txt", "depth.txt", "groundtruth.txt", "camera-intrinsics.txt"),
    "7-scenes": ("seq-01/frame-000000.pose.txt", "seq-01/frame-000000.depth.png"),
    "open3d": ("trajectory.log",),
}
CASES = [(layout, file) for layout, files in FILES.items() for file in files]


@lru_cache(maxsize=8)
def _whole(layout: str) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        LAYOUTS[layout](truth(4, 16, 12) if layout != "blender" else truth(9, 16, 12), root)
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _open_damaged(layout: str, file: str, damaged: bytes) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, data in _whole(layout).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(damaged if name == file else data)
        tracemalloc.start()
        try:
            with suppress(StippleError):
                for view in open_capture(root).views[:2]:
                    load_frame(view)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < LIMIT


@pytest.mark.parametrize(("layout", "file"), CASES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_cut_short(layout: str, file: str, data: st.DataObject) -> None:
    whole = _whole(layout)[file]
    _open_damaged(layout, file, whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(("layout", "file"), CASES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_bytes_changed(layout: str, file: str, data: st.DataObject) -> None:
    damaged = bytearray(_whole(layout)[file])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(damaged), 400) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    _open_damaged(layout, file, bytes(damaged))


@pytest.mark.parametrize(("layout", "file"), CASES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(junk=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_something_else_entirely(layout: str, file: str, junk: bytes) -> None:
    _open_damaged(layout, file, junk)
