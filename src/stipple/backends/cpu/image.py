"""Images as rows of numbers, LANES at a time; their mean absolute difference and its gradients."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping

import numpy as np

from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    broadcast,
    first_lanes,
    lane_sum_double,
    load,
    load_lanes,
    store,
    store_lanes,
    where,
)
from stipple.backends.cpu.threads import Threads
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.image import LossBackwardOperands, LossGradients, LossOperands, LossResults

Array = np.ndarray
f4 = np.float32
ZERO = f4(0)
SPAN = 32 * LANES
"""Elements of a row that are summed in float32 before they are added in float64."""
_ROWS = 16

L1Gradient = namedtuple("L1Gradient", "scale v_image v_target")

_SPAN = ("i8", "i8")
_IMAGE = "f4[:,::1]"


def rows_of(image: Array) -> Array:
    """[H, W, C] as rows [H, W * C]."""
    height, width, channels = image.shape
    return image.reshape(height, width * channels)


@inline
def load_row(array, i, count):
    """LANES elements from i on; zeros after the first ``count``."""
    if count >= LANES:
        return load(array, i)
    return load_lanes(array, i, first_lanes(count))


@inline
def store_row(array, i, value, count):
    """The first ``count`` lanes, to element i and those after it."""
    if count >= LANES:
        store(array, i, value)
    else:
        store_lanes(array, i, value, first_lanes(count))


@inline
def row_difference(image, target, y):
    """Sum of a row's absolute differences."""
    width, row = image.shape[1], 0.0
    for start in range(0, width, SPAN):
        total = broadcast(ZERO)
        for i in range(start, min(start + SPAN, width), LANES):
            at, count = y * width + i, width - i
            total = total + absolute(load_row(image, at, count) - load_row(target, at, count))
        row += lane_sum_double(total)
    return row


@kernel((*_SPAN, _IMAGE, _IMAGE, "f8[::1]"))
def l1_rows(start, end, image, target, sums):
    """Sum of absolute differences of each row."""
    for y in range(start, end):
        sums[y] = row_difference(image, target, y)


@kernel((*_SPAN, _IMAGE, _IMAGE, record_type(L1Gradient, "f4", _IMAGE, _IMAGE)))
def l1_rows_backward(start, end, image, target, out):
    """Sign of each difference times ``scale``."""
    width = image.shape[1]
    for y in range(start, end):
        for i in range(0, width, LANES):
            at, count = y * width + i, width - i
            a, b = load_row(image, at, count), load_row(target, at, count)
            v = where(a > b, out.scale, where(a < b, -out.scale, ZERO))
            store_row(out.v_image, at, v, count)
            store_row(out.v_target, at, -v, count)


def l1(x: LossOperands, attrs: Mapping[str, AttrValue], threads: Threads, out: LossResults) -> None:
    """Result of image_l1."""
    image, target = rows_of(x.image), rows_of(x.target)
    sums = np.zeros(len(image))
    threads.blocks(len(sums), _ROWS, lambda start, end: l1_rows(start, end, image, target, sums))
    out.loss[()] = sums.sum() / max(image.size, 1)


def l1_backward(x: LossBackwardOperands, attrs: Mapping[str, AttrValue], threads: Threads, out: LossGradients) -> None:
    """Results of image_l1_backward."""
    image, target = rows_of(x.image), rows_of(x.target)
    scale = np.float32(float(x.v_out) / max(image.size, 1))
    gradient = L1Gradient(scale, rows_of(out.v_image), rows_of(out.v_target))
    threads.blocks(len(image), _ROWS, lambda start, end: l1_rows_backward(start, end, image, target, gradient))
