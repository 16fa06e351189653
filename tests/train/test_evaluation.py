"""PSNR, SSIM, and comparing renders with photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures import truth, write_blender
from running import stipple
from stipple import Gaussians
from stipple.formats.captures import Frame
from stipple.train import make_config
from stipple.train.evaluation import Evaluator, corrected, mean_scores, psnr, ssim


def test_psnr_and_ssim() -> None:
    rng = np.random.default_rng(0)
    photo = rng.uniform(size=(30, 40, 3)).astype(np.float32)
    assert psnr(photo, photo) == 100
    assert psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)) == pytest.approx(20)
    half = np.zeros((4, 4), bool)
    half[:2] = True
    image = np.zeros((4, 4, 3))
    image[:2] = 0.01
    assert psnr(image, np.zeros((4, 4, 3)), half) == pytest.approx(40)
    assert ssim(photo, photo, "cpu") == pytest.approx(1)
    noisy = (photo + rng.normal(size=photo.shape) * 0.1).astype(np.float32)
    assert ssim(noisy, photo, "cpu") == pytest.approx(direct_ssim(noisy, photo), abs=1e-5)


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """From the definition, by SciPy's correlation with zeros outside."""
    from scipy.ndimage import correlate1d

    x = np.arange(11) - 5
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(v: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(v, window, 0, mode="constant"), window, 1, mode="constant")

    a, b = a.astype(float), b.astype(float)
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    top, bottom = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4), (ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)
    return float((top / bottom).mean())


def test_colour_correction_undoes_an_affine_change() -> None:
    photo = np.random.default_rng(0).uniform(0.2, 0.8, (10, 12, 3))
    image = photo @ np.array([[0.8, 0.1, 0], [0, 0.9, 0], [0.1, 0, 0.7]]) + 0.05
    assert psnr(image, photo) < 30
    assert psnr(corrected(image, photo), photo) > 60


def test_evaluating_with_alpha_and_mask() -> None:
    made = truth()
    scene = Gaussians.from_linear(made.points, 0.12, 0.95, made.colors / 255)
    evaluator = Evaluator(make_config(None, {"extras": {"exposure": True}}), "cpu")
    same = evaluator.compare(scene, made.cameras[0], Frame(made.cameras[0], made.photos[0]), "a", "test")
    assert same.score.psnr > 50
    assert same.score.ssim > 0.999
    assert same.score.psnr_corrected is not None
    spoilt = made.photos[0].copy()
    spoilt[:10] = 255
    mask = np.ones((36, 48), bool)
    mask[:10] = False
    bad = evaluator.compare(scene, made.cameras[0], Frame(made.cameras[0], spoilt), "a", "test").score.psnr
    good = evaluator.compare(scene, made.cameras[0], Frame(made.cameras[0], spoilt, mask), "a", "test").score.psnr
    assert bad < 10
    assert good > 50
    assert mean_scores([same.score]) == {k: v for k, v in same.score.as_dict().items() if k not in ("name", "split")}


@pytest.mark.parametrize("opaque", [0, 1, 5])
def test_photos_with_and_without_alpha_are_evaluated_alike_in_training_and_by_eval(opaque: int, tmp_path: Path) -> None:
    """Whichever photo is the first, and whichever is the only one without alpha."""
    write_blender(truth(), tmp_path / "capture")
    photo = sorted((tmp_path / "capture" / "train").iterdir())[opaque]
    Image.open(photo).convert("RGB").save(photo)
    more = ["--steps", 30, "--start-count", 300, "--start-source", "random"]
    result = stipple("train", tmp_path / "capture", "-o", tmp_path / "run", *more)
    assert result.exit_code == 0, result.output
    before = {v["name"]: v for v in json.loads((tmp_path / "run" / "eval.json").read_text())["views"]}
    result = stipple("eval", tmp_path / "run", "--train")
    assert result.exit_code == 0, result.output
    after = {v["name"]: v for v in json.loads((tmp_path / "run" / "eval.json").read_text())["views"]}
    assert set(before) == set(after)
    for name, view in after.items():
        assert view["psnr"] == pytest.approx(before[name]["psnr"], abs=1e-3), name
        assert view["ssim"] == pytest.approx(before[name]["ssim"], abs=1e-4), name


def test_each_photo_has_the_background_that_belongs_to_it() -> None:
    made = truth()
    nothing = Gaussians.from_linear(made.cameras[0].position[None], 0.1, 0.5, [[0, 0, 0]])  # too near
    evaluator = Evaluator(make_config(None), "cpu")
    clear = np.zeros((36, 48, 4), np.uint8)
    black = np.zeros((36, 48, 3), np.uint8)
    for pixels, wanted in ((clear, 1.0), (black, 0.0)):
        compared = evaluator.compare(nothing, made.cameras[0], Frame(made.cameras[0], pixels), "a", "test")
        assert (compared.image == wanted).all()
        assert (compared.photo == wanted).all()
