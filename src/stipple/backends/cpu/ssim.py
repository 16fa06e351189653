"""Windowed SSIM, alone and with L1, and gradients: LANES elements of a row at a time, on all threads.

The window is separable. For a row of windows, the image's rows are summed with the window's weights into lines of
moments, with zeros beyond their ends; then lines are summed along. Nothing of the image's size is written but what
the backward needs. Sums over the image are taken row by row in float64, in order.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.image import SPAN, load_row, row_difference, rows_of, store_row
from stipple.backends.cpu.simd import (
    LANES,
    broadcast,
    first_lanes,
    fma,
    lane_sum_double,
    load,
    store,
    where,
)
from stipple.backends.cpu.threads import Threads
from stipple.errors import InputError
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.image import (
    L1SsimBackwardOperands,
    L1SsimResults,
    LossBackwardOperands,
    LossGradients,
    LossOperands,
    LossResults,
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

# The kernels' operands. Images are rows [H, W * C], slopes [3, H, W * C].
Pair = namedtuple("Pair", "image other channels")
Similarity = namedtuple("Similarity", "margin scale slopes sums differences")
Gradient = namedtuple("Gradient", "slopes v_ssim v_l1 out")

_IMAGE, _SLOPES, _ROW_SUMS = "f4[:,::1]", "f4[:,:,::1]", "f8[::1]"
_SPAN = ("i8", "i8")
_PAIR_TYPE = record_type(Pair, _IMAGE, _IMAGE, "i8")
_SIMILARITY_TYPE = record_type(Similarity, "i8", "f4", _SLOPES, _ROW_SUMS, _ROW_SUMS)
_GRADIENT_TYPE = record_type(Gradient, _SLOPES, "f4", "f4", _IMAGE)


# --- rows, lines and windows ------------------------------------------------------------------------------
@inline
def _pad(channels):
    """Zeros before and after a line."""
    return MARGIN * channels


@inline
def _line_length(width, channels):
    return (width + LANES - 1) // LANES * LANES + 2 * _pad(channels)


@inline
def _along(lines, i, step):
    """The window's sums along a line around LANES elements from i on; ``step`` is from a pixel to the next."""
    total = WINDOW[MARGIN] * load(lines, i)
    for t in range(1, MARGIN + 1):
        total = fma(load(lines, i - t * step) + load(lines, i + t * step), WINDOW[MARGIN - t], total)
    return total


# --- forward ----------------------------------------------------------------------------------------------
@inline
def _store_moments(x, y, lines):
    """Lines of the window's sums over rows around y: of a, b, a a, b b and a b."""
    height, width = x.image.shape
    length, pad = _line_length(width, x.channels), _pad(x.channels)
    for i in range(0, width, LANES):
        m1 = m2 = m11 = m22 = m12 = broadcast(ZERO)
        for row in range(max(0, y - MARGIN), min(height, y + MARGIN + 1)):
            weight = WINDOW[row - y + MARGIN]
            a, b = load_row(x.image, row * width + i, width - i), load_row(x.other, row * width + i, width - i)
            wa, wb = weight * a, weight * b
            m1, m2, m11, m22, m12 = m1 + wa, m2 + wb, fma(wa, a, m11), fma(wb, b, m22), fma(wa, b, m12)
        at = pad + i
        store(lines, at, m1)
        store(lines, at + length, m2)
        store(lines, at + 2 * length, m11)
        store(lines, at + 3 * length, m22)
        store(lines, at + 4 * length, m12)


@inline
def _compared(lines, at, length, step):
    """SSIM around LANES elements, and its slopes in the mean of a, the mean of a a and the mean of a b."""
    m1, m2 = _along(lines, at, step), _along(lines, at + length, step)
    s11 = _along(lines, at + 2 * length, step) - m1 * m1
    s22 = _along(lines, at + 3 * length, step) - m2 * m2
    s12 = _along(lines, at + 4 * length, step) - m1 * m2
    light, shape = TWO * m1 * m2 + C1, TWO * s12 + C2
    light_norm, shape_norm = m1 * m1 + m2 * m2 + C1, s11 + s22 + C2
    inverse = ONE / (light_norm * shape_norm)
    value = light * shape * inverse
    v12 = TWO * light * inverse
    v11 = -(value * light_norm * inverse)
    v1 = TWO * (m2 * shape * inverse - m1 * value * shape_norm * inverse)
    return value, v1 - TWO * m1 * v11 - m2 * v12, v11, v12


@kernel((*_SPAN, _PAIR_TYPE, _SIMILARITY_TYPE))
def ssim_rows(start, end, x, out):
    """Sums of absolute differences and of SSIM over rows start to end, and, if there is an array for them, SSIM's
    slopes times ``scale``. Only windows centred at least ``margin`` pixels inside the image count."""
    height, width = x.image.shape
    length, pad = _line_length(width, x.channels), _pad(x.channels)
    lines = np.zeros(5 * length, np.float32)
    first, last = out.margin * x.channels, width - out.margin * x.channels
    plane = height * width
    for y in range(start, end):
        out.differences[y], out.sums[y] = row_difference(x.image, x.other, y), 0.0
        if out.margin <= y < height - out.margin:
            _store_moments(x, y, lines)
            for start_column in range(0, width, SPAN):
                total = broadcast(ZERO)
                for i in range(start_column, min(start_column + SPAN, width), LANES):
                    inside = first_lanes(last - i) & ~first_lanes(first - i)
                    value, v1, v11, v12 = _compared(lines, pad + i, length, x.channels)
                    total = total + where(inside, value, ZERO)
                    if len(out.slopes):
                        at = y * width + i
                        store_row(out.slopes, at, where(inside, out.scale * v1, ZERO), width - i)
                        store_row(out.slopes, at + plane, where(inside, out.scale * v11, ZERO), width - i)
                        store_row(out.slopes, at + 2 * plane, where(inside, out.scale * v12, ZERO), width - i)
                out.sums[y] += lane_sum_double(total)
        else:
            for q in range(len(out.slopes)):
                out.slopes[q, y, :] = ZERO


def _windows(image: Array, padding: str) -> tuple[int, int]:
    """The margin without centres of windows, and the number of windows that count."""
    height, width, channels = image.shape
    margin = MARGIN if padding == "valid" else 0
    if margin and min(height, width) < TAPS:
        raise InputError(
            f"image_ssim: padding 'valid' needs an image of at least {TAPS} x {TAPS}, got {width} x {height}"
        )
    return margin, max((height - 2 * margin) * (width - 2 * margin) * channels, 1)


def _ssim(x: Pair, windows: tuple[int, int], slopes: Array, threads: Threads) -> tuple[float, float]:
    """Mean SSIM and mean absolute difference; fills ``slopes`` [3, H, W * C] (or nothing if it is empty)."""
    margin, count = windows
    height = len(x.image)
    out = Similarity(margin, np.float32(1 / count), slopes, np.zeros(height), np.zeros(height))
    threads.blocks(height, _ROWS, lambda start, end: ssim_rows(start, end, x, out))
    value = float(out.sums.sum() / count) if x.image.size else 1.0
    return value, float(out.differences.sum() / max(x.image.size, 1))


def _slope_rows(slopes: Array) -> Array:
    """[3, H, W, C] as three times rows [H, W * C]."""
    _, height, width, channels = slopes.shape
    return slopes.reshape(3, height, width * channels)


def _no_slopes(x: Pair) -> Array:
    return np.empty((0, *x.image.shape), np.float32)


# --- backward ---------------------------------------------------------------------------------------------
@inline
def _store_slope_sums(g, y, channels, lines):
    """Lines of the window's sums over the slopes' rows around y."""
    _, height, width = g.slopes.shape
    length, pad, plane = _line_length(width, channels), _pad(channels), height * width
    for i in range(0, width, LANES):
        s1 = s11 = s12 = broadcast(ZERO)
        for row in range(max(0, y - MARGIN), min(height, y + MARGIN + 1)):
            weight, at = WINDOW[row - y + MARGIN], row * width + i
            s1 = fma(load_row(g.slopes, at, width - i), weight, s1)
            s11 = fma(load_row(g.slopes, at + plane, width - i), weight, s11)
            s12 = fma(load_row(g.slopes, at + 2 * plane, width - i), weight, s12)
        store(lines, pad + i, s1)
        store(lines, pad + i + length, s11)
        store(lines, pad + i + 2 * length, s12)


@kernel((*_SPAN, _PAIR_TYPE, _GRADIENT_TYPE))
def gradient_rows(start, end, x, g):
    """Rows start to end of the gradient in ``x.image``: v_ssim times SSIM's, and v_l1 times differences' signs."""
    width = x.image.shape[1]
    length, pad, step = _line_length(width, x.channels), _pad(x.channels), x.channels
    lines = np.zeros(3 * length, np.float32)
    for y in range(start, end):
        _store_slope_sums(g, y, x.channels, lines)
        for i in range(0, width, LANES):
            at, count = y * width + i, width - i
            a, b = load_row(x.image, at, count), load_row(x.other, at, count)
            s1, s11 = _along(lines, pad + i, step), _along(lines, pad + i + length, step)
            s12 = _along(lines, pad + i + 2 * length, step)
            sign = where(a > b, g.v_l1, where(a < b, -g.v_l1, ZERO))
            store_row(g.out, at, g.v_ssim * (s1 + TWO * a * s11 + b * s12) + sign, count)


def _pair(image: Array, other: Array) -> Pair:
    return Pair(rows_of(image), rows_of(other), image.shape[2])


def _gradient(x: Pair, slopes: Array, v_ssim: Array, v_l1: Array, out: Array, threads: Threads) -> None:
    """The gradient in ``x.image`` of v_ssim times SSIM plus v_l1 times the mean absolute difference."""
    g = Gradient(slopes, f4(v_ssim), f4(float(v_l1) / max(x.image.size, 1)), rows_of(out))
    threads.blocks(len(x.image), _ROWS, lambda start, end: gradient_rows(start, end, x, g))


def _recomputed(x: Pair, windows: tuple[int, int], threads: Threads) -> Array:
    """Slopes of SSIM in ``x.image``, where no forward has kept them."""
    slopes = threads.scratch("slopes", (3, *x.image.shape))
    _ssim(x, windows, slopes, threads)
    return slopes


# --- ops --------------------------------------------------------------------------------------------------
def ssim(x: LossOperands, attrs: Mapping[str, AttrValue], threads: Threads, out: LossResults) -> None:
    """Result of image_ssim."""
    pair = _pair(x.image, x.target)
    out.loss[()], _ = _ssim(pair, _windows(x.image, attrs["padding"]), _no_slopes(pair), threads)


def l1_ssim(x: LossOperands, attrs: Mapping[str, AttrValue], threads: Threads, out: L1SsimResults) -> None:
    """Results of image_l1_ssim."""
    windows = _windows(x.image, attrs["padding"])
    out.ssim[()], out.l1[()] = _ssim(_pair(x.image, x.target), windows, _slope_rows(out.slopes), threads)


def ssim_backward(
    x: LossBackwardOperands, attrs: Mapping[str, AttrValue], threads: Threads, out: LossGradients
) -> None:
    """Results of image_ssim_backward, without one that ``out`` has no array for."""
    no_l1 = np.zeros((), np.float32)
    pairs = _pair(x.image, x.target), _pair(x.target, x.image)
    for pair, gradient in zip(pairs, out, strict=True):
        if gradient is not None:
            slopes = _recomputed(pair, _windows(x.image, attrs["padding"]), threads)
            _gradient(pair, slopes, x.v_out, no_l1, gradient, threads)


def l1_ssim_backward(
    x: L1SsimBackwardOperands, attrs: Mapping[str, AttrValue], threads: Threads, out: LossGradients
) -> None:
    """Results of image_l1_ssim_backward, without one that ``out`` has no array for."""
    if out.v_image is not None:
        _gradient(_pair(x.image, x.target), _slope_rows(x.slopes), x.v_ssim, x.v_l1, out.v_image, threads)
    if out.v_target is not None:
        pair = _pair(x.target, x.image)
        slopes = _recomputed(pair, _windows(x.image, attrs["padding"]), threads)
        _gradient(pair, slopes, x.v_ssim, x.v_l1, out.v_target, threads)
