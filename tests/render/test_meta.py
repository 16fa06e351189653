"""What rasterization tells besides its images: which names, what they hold, and when they are fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import stipple
from scenes import Scene, random_scene
from scenes import render as reference_render
from stipple.runtime import DeviceArray

ARRAYS = ("means2d", "depths", "radii", "conics", "opacities", "visible_colors")
NUMBERS = ("tile_width", "tile_height", "tile_size", "width", "height", "n_cameras")
DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])


def arguments(scene: Scene, device: str, cameras: int = 2) -> dict[str, Any]:
    a = scene.arrays
    viewmats = np.stack([a["viewmat"]] * cameras)
    viewmats[:, 0, 3] += 0.1 * np.arange(cameras)
    return {
        **{n: a[n] for n in ("means", "quats", "scales", "opacities", "colors")},
        "viewmats": viewmats, "Ks": np.stack([a["intrinsics"]] * cameras), "width": scene.attrs["width"],
        "height": scene.attrs["height"], "tile_size": 8, "device": device,
    }  # fmt: skip


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the arrays that were fetched from a device so far."""
    found: list[tuple[int, ...]] = []
    fetch = DeviceArray.numpy

    def counted(self: DeviceArray) -> np.ndarray:
        found.append(self.shape)
        return fetch(self)

    monkeypatch.setattr(DeviceArray, "numpy", counted)
    return found


@DEVICES
def test_what_it_holds(device: str) -> None:
    scene = random_scene(90, count=15, tile_size=8)
    given = arguments(scene, device)
    meta = stipple.rasterization(**given)[2]
    assert isinstance(meta, Mapping)
    assert list(meta) == [*ARRAYS, *NUMBERS, "isect_offsets", "flatten_ids"]
    assert len(meta) == 14
    assert [meta[n] for n in NUMBERS] == [3, 2, 8, 20, 14, 2]
    names = {"visible_colors": "colors"}
    for c, viewmat in enumerate(given["viewmats"]):
        wanted = reference_render(scene.with_(viewmat=viewmat))
        for name in ARRAYS:
            assert len(meta[name]) == 2
            np.testing.assert_allclose(meta[name][c], wanted[names.get(name, name)], rtol=1e-4, atol=1e-4, err_msg=name)
        starts = [*meta["isect_offsets"][c].ravel(), len(meta["flatten_ids"][c])]
        for tile, (first, last) in enumerate(wanted["tile_ranges"]):
            listed = iter(meta["flatten_ids"][c][starts[tile] : starts[tile + 1]])
            assert all(i in listed for i in wanted["sorted_ids"][first:last]), "in order; a device may list a few more"
        assert len(meta["flatten_ids"][c]) <= 1.1 * len(wanted["sorted_ids"])
    assert meta["isect_offsets"].shape == (2, 2, 3)
    assert meta["radii"].dtype == np.int32
    assert meta["means2d"].dtype == np.float32
    assert set(dict(meta)) == set(meta)
    assert repr(meta).startswith("<meta of 2 cameras: means2d, ")
    assert "viewmat" not in meta
    with pytest.raises(KeyError, match="viewmat"):
        _ = meta["viewmat"]


@DEVICES
@pytest.mark.parametrize("front", ["rasterization", "rasterization_vjp"])
def test_arrays_are_fetched_when_they_are_asked_for(front: str, device: str, fetches: list[tuple[int, ...]]) -> None:
    meta = getattr(stipple, front)(**arguments(random_scene(91, count=7), device))[2]
    assert len(meta) == len(list(meta)) == 14
    assert meta["width"] == 20
    assert "radii" in repr(meta)
    assert fetches == []
    first = meta["radii"]
    assert fetches == [(7, 2)] * 2
    assert meta["radii"] is first
    assert len(fetches) == 2
    offsets = meta["isect_offsets"]
    assert len(fetches) == 4
    assert meta["isect_offsets"] is offsets


@DEVICES
def test_it_stays_what_it_was(device: str) -> None:
    """Arrays that are fetched late are those of their call, whatever was rendered since."""
    given = arguments(random_scene(92, count=12), device)
    wanted = {n: np.array(stipple.rasterization(**given)[2][n]) for n in ARRAYS}
    meta, others = stipple.rasterization(**given)[2], arguments(random_scene(93, count=12), device)
    late = [stipple.rasterization(**others)[2] for _ in range(3)]
    given["means"][:] = 0
    assert np.abs(late[-1]["means2d"] - wanted["means2d"]).max() > 1
    for name in ARRAYS:
        np.testing.assert_array_equal(meta[name], wanted[name], err_msg=name)
