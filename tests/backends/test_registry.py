"""Devices by name, those of other packages among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stipple.backends.reference import ReferenceBackend
from stipple.backends.registry import AUTO, devices, open_device, register_device
from stipple.errors import DeviceError
from stipple.runtime import Session


def offer(folder: Path, name: str, target: str) -> None:
    """What an installed package leaves that offers a device."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[stipple.backends]\n{name} = {target}\n")


def test_auto_is_a_rule() -> None:
    assert AUTO == "cpu" == devices()[0] == Session("auto").device


def test_packages_offer_devices_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from stipple.backends.reference import ReferenceBackend\nclass Backend(ReferenceBackend):\n    name = 'tpu'\n"
    )
    offer(tmp_path, "tpu", "elsewhere:Backend")
    offer(tmp_path, "broken", "nowhere:Backend")
    offer(tmp_path, "cpu", "nowhere:Backend")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"tpu", "broken"} <= set(devices())
    assert devices().count("cpu") == 1, "names that ship are not taken over"
    assert open_device("tpu").name == "tpu"
    with pytest.raises(DeviceError, match="device 'broken': the package that offers it, nowhere:Backend, fails"):
        Session("broken")


def test_a_process_registers_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stipple.backends.registry._REGISTERED", {})
    register_device("mine", ReferenceBackend)
    assert "mine" in devices()
    assert Session("mine").device == "reference"
    for taken in ("cpu", "auto"):
        with pytest.raises(DeviceError, match=f"the name '{taken}' is taken"):
            register_device(taken, ReferenceBackend)
