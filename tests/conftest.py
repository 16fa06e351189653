"""Devices that the tests run on: the CPU, and a GPU (a software one does), also with no more than WebGPU promises."""

from __future__ import annotations

import os
from functools import lru_cache

import pytest
from hypothesis import settings

from stipple.backends.cpu import CpuBackend
from stipple.backends.gpu import GpuBackend
from stipple.backends.gpu.device import Gpu
from stipple.errors import DeviceError
from stipple.runtime import Session

# The same examples on every run, so that a newcomer sees what everybody sees; CI draws others besides, by a seed that
# it prints (.ci/run), which --hypothesis-seed and STIPPLE_FUZZ_SEED take.
settings.register_profile("same", derandomize=True)
settings.register_profile("drawn", derandomize=False, print_blob=True)
settings.load_profile("drawn" if os.environ.get("STIPPLE_FUZZ_SEED") else "same")

DEVICES = ("cpu", "gpu", "minimal gpu")


@lru_cache(maxsize=4)
def open_session(name: str) -> Session | str:
    """A session, or why there is none."""
    if name == "cpu":
        return Session(CpuBackend(), debug=True)
    try:
        return Session(GpuBackend("gpu", minimal=name == "minimal gpu"))
    except DeviceError as error:
        return str(error)


def session_on(name: str) -> Session:
    """A session, or a skip that says why; a failure where STIPPLE_REQUIRE_GPU is set."""
    found = open_session(name)
    if isinstance(found, str):
        if os.environ.get("STIPPLE_REQUIRE_GPU"):
            pytest.fail(found)
        pytest.skip(found)
    return found


@pytest.fixture(params=DEVICES)
def session(request: pytest.FixtureRequest) -> Session:
    """Every device in turn."""
    return session_on(request.param)


@pytest.fixture(params=DEVICES[1:])
def gpu_session(request: pytest.FixtureRequest) -> Session:
    """The GPU, and one without subgroups that binds 8 arrays to a kernel."""
    return session_on(request.param)


@pytest.fixture
def gpu(gpu_session: Session) -> Gpu:
    """The device under :func:`gpu_session`."""
    backend = gpu_session.backend
    assert isinstance(backend, GpuBackend)
    return backend.gpu


@pytest.fixture(params=("reference", *DEVICES))
def any_session(request: pytest.FixtureRequest) -> Session:
    """Every device in turn, the reference first."""
    return Session("reference", debug=True) if request.param == "reference" else session_on(request.param)
