"""Image losses on the CPU compared with the reference: every number of channels, odd sizes, both kinds of padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cpu import calls
from stipple.backends.cpu.simd import LANES
from stipple.backends.cpu.threads import Threads
from stipple.backends.reference import image as reference
from stipple.ir.ops.image import L1SsimBackwardOperands, LossBackwardOperands, LossGradients, LossOperands

pytestmark = pytest.mark.every_width

Array = np.ndarray
BOTH = LossGradients(True, True)
SIZES = [(1, 1), (3, 40), (12, 11), (16, 16), (37, 29), (11, 900)]


def pair(height: int, width: int, channels: int) -> LossOperands:
    """An image and another that is near it."""
    rng = np.random.default_rng(height * width + channels)
    first = rng.uniform(size=(height, width, channels))
    return LossOperands(*(a.astype(np.float32) for a in (first, first + rng.normal(0, 0.1, first.shape))))


def exactly(x: Any) -> Any:
    return type(x)(*(np.asarray(a, np.float64) for a in x))


def near(given: Array, expected: Array, tolerance: float = 3e-6) -> None:
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, rtol=tolerance, atol=tolerance * max(np.abs(expected).max(), 1e-6))


@pytest.mark.parametrize("channels", [1, 3, 4, LANES + 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_l1_and_ssim(height: int, width: int, channels: int) -> None:
    x = pair(height, width, channels)
    given = calls.l1_ssim(x, {"padding": "same"}, Threads(2))
    l1, similarity, slopes = reference.l1_ssim(*exactly(x), "same")
    near(given.l1, l1)
    near(given.ssim, similarity)
    back = L1SsimBackwardOperands(*x, given.slopes, np.float32(0.7), np.float32(-0.3))
    gradients = calls.l1_ssim_backward(back, {"padding": "same"}, Threads(2), BOTH)
    expected = reference.l1_ssim_backward(*exactly(back._replace(slopes=slopes)), "same")
    for one, other in zip(gradients, expected, strict=True):
        near(one, other, 1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("height", "width"), SIZES[2:])
def test_ssim_alone(height: int, width: int, padding: str) -> None:
    x = pair(height, width, 3)
    near(calls.ssim_of(x, {"padding": padding}, Threads(2))[0], reference.ssim(*exactly(x), padding))
    back = LossBackwardOperands(*x, np.float32(1.5))
    gradients = calls.ssim_backward(back, {"padding": padding}, Threads(2), BOTH)
    for one, other in zip(gradients, reference.ssim_backward(*exactly(back), padding), strict=True):
        near(one, other, 1e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_l1(height: int, width: int) -> None:
    x = pair(height, width, 3)
    near(calls.l1(x, {}, Threads(2))[0], reference.l1(*exactly(x)))
    back = LossBackwardOperands(*x, np.float32(2))
    for one, other in zip(calls.l1_backward(back, {}, Threads(2)), reference.l1_backward(*back), strict=True):
        near(one, other)


def test_equal_images_are_equal() -> None:
    x = pair(30, 20, 3)
    same = LossOperands(x.image, x.image)
    given = calls.l1_ssim(same, {"padding": "same"}, Threads(2))
    assert given.l1 == 0
    assert given.ssim == pytest.approx(1, abs=1e-6)
    back = L1SsimBackwardOperands(*same, given.slopes, np.float32(1), np.float32(0))
    assert not calls.l1_ssim_backward(back, {"padding": "same"}, Threads(2), BOTH).v_image.any()


def test_what_is_not_finite_stays_so() -> None:
    x = pair(30, 20, 3)
    x.image[15, 10, 1] = np.nan
    given = calls.l1_ssim(x, {"padding": "same"}, Threads(2))
    assert np.isnan(given.l1)
    assert np.isnan(given.ssim)


def test_flat_images_of_any_brightness() -> None:
    """Where variances vanish, they are rounding alone."""
    for a, b in ((0, 0), (1, 1), (0.2, 0.9), (1, 0)):
        x = LossOperands(np.full((20, 20, 3), a, np.float32), np.full((20, 20, 3), b, np.float32))
        near(calls.ssim_of(x, {"padding": "valid"}, Threads(1))[0], reference.ssim(*exactly(x), "valid"), 1e-4)


def test_threads_do_not_change_a_bit() -> None:
    x = pair(150, 40, 3)
    results = []
    for count in (1, 2, 3, 8):
        threads = Threads(count)
        made = calls.l1_ssim(x, {"padding": "same"}, threads)
        back = L1SsimBackwardOperands(*x, made.slopes, np.float32(0.7), np.float32(-0.3))
        results.append([*made, *calls.l1_ssim_backward(back, {"padding": "same"}, threads, BOTH)])
    for others in results[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0], others, strict=True))
