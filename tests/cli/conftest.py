from __future__ import annotations

from pathlib import Path

import pytest

from running import make_capture, make_run, make_scene


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="session")
def run(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(capture, tmp_path_factory.mktemp("run") / "out")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.ply")
