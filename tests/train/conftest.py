from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from running import killed, make_capture, make_run, results, train


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="session")
def run(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(capture, tmp_path_factory.mktemp("run") / "out")


@pytest.fixture(scope="session")
def whole(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Any, Any]:
    """The results of the undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(capture, out)
    return results(out)


@pytest.fixture(scope="session")
def stopped(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed at step 47, with checkpoints of steps 40 and 20; to be copied."""
    return killed(capture, tmp_path_factory.mktemp("stopped") / "out", 47)


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "out"))
