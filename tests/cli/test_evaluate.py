"""``stipple eval``."""

from __future__ import annotations

import json
import sys
import types
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from running import stipple


def test_eval_agrees_with_the_run(run: Path, tmp_path: Path) -> None:
    before = json.loads((run / "eval.json").read_text())
    result = stipple("eval", run, "--save-images", "--train")
    assert result.exit_code == 0, result.output
    after = json.loads((run / "eval.json").read_text())
    assert set(after["mean"]) == {"test", "train"}
    for split in ("test", "train"):
        assert after["mean"][split]["psnr"] == pytest.approx(before["mean"][split]["psnr"], abs=0.02)
        assert after["mean"][split]["ssim"] == pytest.approx(before["mean"][split]["ssim"], abs=0.002)
    assert len(after["views"]) == 10
    render = np.asarray(Image.open(run / "eval" / "000.render.png")).astype(float)
    photo = np.asarray(Image.open(run / "eval" / "000.photo.png")).astype(float)
    assert -10 * np.log10(((render - photo) ** 2).mean() / 255**2) == pytest.approx(after["views"][0]["psnr"], abs=0.2)


@pytest.mark.skipif(find_spec("lpips") is not None, reason="the extra lpips is installed")
def test_lpips_without_the_extra(run: Path) -> None:
    result = stipple("eval", run, "--lpips", "vgg")
    assert result.exit_code == 1
    assert "pip install 'stipple[lpips]'" in result.output


class _Lpips:
    """Stands in for the network: the mean absolute difference of what it is given, whose form it checks."""

    def __init__(self, net: str, verbose: bool) -> None:
        if net == "alex":
            raise OSError("no network")
        assert net == "vgg"
        assert not verbose

    def __call__(self, image: np.ndarray, photo: np.ndarray) -> float:
        for array in (image, photo):
            assert array.shape == (1, 3, 36, 48)
            assert array.dtype == np.float32
            assert array.min() >= -1
            assert array.max() <= 1
        assert photo.min() < -0.2, "from -1 to 1, as LPIPS takes colours"
        return float(np.abs(image - photo).mean())


def test_lpips_is_given_what_it_expects(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.SimpleNamespace(
        from_numpy=lambda array: array, no_grad=nullcontext, hub=types.SimpleNamespace(get_dir=lambda: "HUB")
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=_Lpips))
    kept = (run / "eval.json").read_bytes()
    try:
        result = stipple("eval", run, "--lpips", "vgg", "--save-images")
        assert result.exit_code == 0, result.output
        views = json.loads((run / "eval.json").read_text())["views"]
    finally:
        (run / "eval.json").write_bytes(kept)
    for view in views:
        stem = view["name"].rsplit(".", 1)[0]
        photo, image = (
            np.asarray(Image.open(run / "eval" / f"{stem}.{kind}.png"), float) / 255 for kind in ("photo", "render")
        )
        assert view["lpips"] == pytest.approx(2 * np.abs(image - photo).mean(), abs=5e-3)
    assert "LPIPS" in result.output
    refused = stipple("eval", run, "--lpips", "alex")
    assert refused.exit_code == 1
    assert "cannot be loaded: no network; without a network connection, put the file" in refused.output
    assert "HUB/checkpoints" in refused.output
