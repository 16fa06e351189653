"""Image losses: L1 and windowed SSIM with gradients, on all threads.

The window is separable: rows are blurred first, with channels interleaved as they are, then columns. Sums are
taken row by row in float64, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import kernel
from stipple.backends.cpu.threads import Threads
from stipple.errors import InputError
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.image import (
    L1SsimBackwardOperands,
    L1SsimResults,
    LossBackwardOperands,
    LossGradients,
    LossOperands,
)

Array = np.ndarray
f4 = np.float32
ZERO, ONE, TWO = f4(0), f4(1), f4(2)
C1, C2 = f4(nx.SSIM_C1), f4(nx.SSIM_C2)
TAPS, MARGIN = nx.SSIM_WINDOW, nx.SSIM_WINDOW // 2
_ROWS = 16


def _window() -> Array:
    offsets = np.arange(TAPS) - MARGIN
    window = np.exp(-(offsets**2) / (2 * nx.SSIM_SIGMA**2))
    return np.asarray(window / window.sum(), np.float32)


WINDOW = _window()


# --- L1 ---------------------------------------------------------------------------------------------------
@kernel("void(i8,i8,f4[:,::1],f4[:,::1],f8[::1])")
def l1_rows(start, end, image, target, sums):
    """Sum of absolute differences of each row."""
    for y in range(start, end):
        total = 0.0
        for i in range(image.shape[1]):
            total += abs(image[y, i] - target[y, i])
        sums[y] = total


@kernel("void(i8,i8,f4[:,::1],f4[:,::1],f4,f4[:,::1],f4[:,::1])")
def l1_rows_backward(start, end, image, target, scale, v_image, v_target):
    """Sign of each difference times ``scale``."""
    for y in range(start, end):
        for i in range(image.shape[1]):
            d = image[y, i] - target[y, i]
            v = scale if d > ZERO else (-scale if d < ZERO else ZERO)
            v_image[y, i] = v
            v_target[y, i] = -v


def _rows(image: Array) -> Array:
    """[H, W, C] as rows [H, W * C]."""
    height, width, channels = image.shape
    return image.reshape(height, width * channels)


def _slope_rows(slopes: Array) -> Array:
    """[3, H, W, C] as three times rows [H, W * C]."""
    _, height, width, channels = slopes.shape
    return slopes.reshape(3, height, width * channels)


def l1(x: Sequence[Array], attrs: Mapping[str, AttrValue], threads: Threads) -> list[Array]:
    """Result of image_l1."""
    image, target = x
    sums = np.zeros(image.shape[0])
    threads.blocks(len(sums), _ROWS, lambda s, e: l1_rows(s, e, _rows(image), _rows(target), sums))
    return [np.asarray(sums.sum() / max(image.size, 1), np.float32)]


def l1_backward(x: Sequence[Array], attrs: Mapping[str, AttrValue], threads: Threads) -> list[Array]:
    """Results of image_l1_backward."""
    image, target, v_out = x
    scale = np.float32(float(v_out) / max(image.size, 1))
    made = [np.empty_like(image), np.empty_like(image)]
    rows = [_rows(a) for a in (image, target, *made)]
    threads.blocks(len(image), _ROWS, lambda s, e: l1_rows_backward(s, e, rows[0], rows[1], scale, rows[2], rows[3]))
    return made


# --- SSIM -------------------------------------------------------------------------------------------------
@kernel("void(i8,i8,i8,f4[:,::1],f4[:,::1],f4[:,:,::1],f8[::1])")
def blur_moments(start, end, channels, image, target, out, differences):
    """Blur rows of a, b, a a, b b and a b, with zeros beyond the border; sum each row's absolute differences."""
    width = image.shape[1]
    pad = MARGIN * channels
    rows = np.zeros((5, width + 2 * pad), np.float32)
    for y in range(start, end):
        for i in range(width):
            a, b = image[y, i], target[y, i]
            rows[0, pad + i] = a
            rows[1, pad + i] = b
            rows[2, pad + i] = a * a
            rows[3, pad + i] = b * b
            rows[4, pad + i] = a * b
        total = 0.0
        for i in range(width):
            total += abs(image[y, i] - target[y, i])
        differences[y] = total
        for q in range(5):
            for i in range(width):
                out[q, y, i] = WINDOW[0] * rows[q, i]
            for t in range(1, TAPS):
                weight, shift = WINDOW[t], t * channels
                for i in range(width):
                    out[q, y, i] += weight * rows[q, i + shift]


@kernel("void(i8,i8,i8,i8,f4[:,:,::1],f8[::1],f4,f4[:,:,::1])")
def ssim_rows(start, end, channels, margin, moments, sums, scale, slopes):
    """Blur columns, sum SSIM over windows at least ``margin`` inside, and (if an array is given for them) its slopes.

    ``slopes`` are the gradients, times ``scale``, in the mean of a, the mean of a a and the mean of a b.
    """
    height, width = moments.shape[1], moments.shape[2]
    rows = np.zeros((5, width), np.float32)
    for y in range(start, end):
        sums[y] = 0.0
        inside = margin <= y < height - margin
        if not inside:
            for q in range(len(slopes)):
                slopes[q, y, :] = ZERO
            continue
        rows[:] = ZERO
        for t in range(TAPS):
            row = y + t - MARGIN
            if 0 <= row < height:
                weight = WINDOW[t]
                for q in range(5):
                    for i in range(width):
                        rows[q, i] += weight * moments[q, row, i]
        total = 0.0
        first, last = margin * channels, width - margin * channels
        for q in range(len(slopes)):
            slopes[q, y, :] = ZERO
        for i in range(first, last):
            m1, m2 = rows[0, i], rows[1, i]
            s11, s22, s12 = rows[2, i] - m1 * m1, rows[3, i] - m2 * m2, rows[4, i] - m1 * m2
            light, shape = TWO * m1 * m2 + C1, TWO * s12 + C2
            light_norm, shape_norm = m1 * m1 + m2 * m2 + C1, s11 + s22 + C2
            inverse = ONE / (light_norm * shape_norm)
            value = light * shape * inverse
            total += value
            if len(slopes):
                v12 = scale * TWO * light * inverse
                v11 = -scale * value / shape_norm
                v1 = scale * (TWO * m2 * shape * inverse - TWO * m1 * value / light_norm)
                slopes[0, y, i] = v1 - TWO * m1 * v11 - m2 * v12
                slopes[1, y, i] = v11
                slopes[2, y, i] = v12
        sums[y] = total


@kernel("void(i8,i8,i8,f4[:,:,::1],f4[:,:,::1])")
def blur_slopes(start, end, channels, slopes, out):
    """Blur rows of the three slopes."""
    width = slopes.shape[2]
    pad = MARGIN * channels
    row = np.zeros(width + 2 * pad, np.float32)
    for y in range(start, end):
        for q in range(3):
            row[pad : pad + width] = slopes[q, y]
            for i in range(width):
                out[q, y, i] = WINDOW[0] * row[i]
            for t in range(1, TAPS):
                weight, shift = WINDOW[t], t * channels
                for i in range(width):
                    out[q, y, i] += weight * row[i + shift]


@kernel("void(i8,i8,f4[:,::1],f4[:,::1],f4[:,:,::1],f4,f4,f4[:,::1])")
def ssim_gradient_rows(start, end, image, other, slopes, v_ssim, v_l1, out):
    """Blur columns of the slopes and combine them, with the sign of L1, into the gradient in ``image``."""
    height, width = image.shape
    rows = np.zeros((3, width), np.float32)
    for y in range(start, end):
        rows[:] = ZERO
        for t in range(TAPS):
            row = y + t - MARGIN
            if 0 <= row < height:
                weight = WINDOW[t]
                for q in range(3):
                    for i in range(width):
                        rows[q, i] += weight * slopes[q, row, i]
        for i in range(width):
            d = image[y, i] - other[y, i]
            sign = v_l1 if d > ZERO else (-v_l1 if d < ZERO else ZERO)
            out[y, i] = v_ssim * (rows[0, i] + TWO * image[y, i] * rows[1, i] + other[y, i] * rows[2, i]) + sign


def _ssim(image: Array, target: Array, padding: str, slopes: Array, threads: Threads) -> tuple[float, float]:
    """Mean SSIM and mean absolute difference; fills ``slopes`` [3, H, W * C] (or nothing if it is empty)."""
    height, width, channels = image.shape
    margin = MARGIN if padding == "valid" else 0
    if margin and min(height, width) < TAPS:
        raise InputError(
            f"image_ssim: padding 'valid' needs an image of at least {TAPS} x {TAPS}, got {width} x {height}"
        )
    count = max((height - 2 * margin) * (width - 2 * margin) * channels, 1)
    moments = threads.scratch("moments", (5, height, width * channels))
    sums, differences = np.zeros(height), np.zeros(height)
    a, b, each = _rows(image), _rows(target), np.float32(1 / count)
    threads.blocks(height, _ROWS, lambda s, e: blur_moments(s, e, channels, a, b, moments, differences))
    threads.blocks(height, _ROWS, lambda s, e: ssim_rows(s, e, channels, margin, moments, sums, each, slopes))
    value = float(sums.sum() / count) if image.size else 1.0
    return value, float(differences.sum() / max(image.size, 1))


def _no_slopes(image: Array) -> Array:
    return np.empty((0, len(image), image.shape[1] * image.shape[2]), np.float32)


def ssim(x: LossOperands, attrs: Mapping[str, AttrValue], threads: Threads) -> list[Array]:
    """Result of image_ssim."""
    value, _ = _ssim(x.image, x.target, attrs["padding"], _no_slopes(x.image), threads)
    return [np.asarray(value, np.float32)]


def l1_ssim(x: LossOperands, attrs: Mapping[str, AttrValue], threads: Threads) -> L1SsimResults:
    """Results of image_l1_ssim."""
    slopes = np.empty((3, *x.image.shape), np.float32)
    value, difference = _ssim(x.image, x.target, attrs["padding"], _slope_rows(slopes), threads)
    return L1SsimResults(l1=np.asarray(difference, np.float32), ssim=np.asarray(value, np.float32), slopes=slopes)


def _gradient(image: Array, other: Array, slopes: Array, v_ssim: Array, v_l1: float, threads: Threads) -> Array:
    """The gradient in ``image`` of v_ssim times SSIM plus v_l1 times the mean absolute difference."""
    gradient = np.empty_like(image)
    rows, channels = len(image), image.shape[2]
    blurred = threads.scratch("blurred", slopes.shape)
    a, b, out = _rows(image), _rows(other), _rows(gradient)
    weights = (np.float32(v_ssim), np.float32(v_l1 / max(image.size, 1)))
    threads.blocks(rows, _ROWS, lambda s, e: blur_slopes(s, e, channels, slopes, blurred))
    threads.blocks(rows, _ROWS, lambda s, e: ssim_gradient_rows(s, e, a, b, blurred, *weights, out))
    return gradient


def _recomputed(image: Array, other: Array, padding: str, threads: Threads) -> Array:
    """Slopes of SSIM in ``image``, where no forward has kept them."""
    slopes = threads.scratch("slopes", (3, len(image), image.shape[1] * image.shape[2]))
    _ssim(image, other, padding, slopes, threads)
    return slopes


def ssim_backward(
    x: LossBackwardOperands, attrs: Mapping[str, AttrValue], threads: Threads, used: LossGradients
) -> LossGradients:
    """Results of image_ssim_backward; zeros where one is not used."""

    def gradient(first: Array, second: Array) -> Array:
        slopes = _recomputed(first, second, attrs["padding"], threads)
        return _gradient(first, second, slopes, x.v_out, 0.0, threads)

    return LossGradients(
        v_image=gradient(x.image, x.target) if used.v_image else np.zeros_like(x.image),
        v_target=gradient(x.target, x.image) if used.v_target else np.zeros_like(x.image),
    )


def l1_ssim_backward(
    x: L1SsimBackwardOperands, attrs: Mapping[str, AttrValue], threads: Threads, used: LossGradients
) -> LossGradients:
    """Results of image_l1_ssim_backward; zeros where one is not used."""

    def gradient(first: Array, second: Array, slopes: Array) -> Array:
        return _gradient(first, second, slopes, x.v_ssim, float(x.v_l1), threads)

    v_image, v_target = np.zeros_like(x.image), np.zeros_like(x.image)
    if used.v_image:
        v_image = gradient(x.image, x.target, _slope_rows(x.slopes))
    if used.v_target:
        v_target = gradient(x.target, x.image, _recomputed(x.target, x.image, attrs["padding"], threads))
    return LossGradients(v_image, v_target)
