"""Colours from spherical harmonics (SH), LANES Gaussians at once, and their gradients (splat_sh).

Kernels process whole vectors of Gaussians; the rest is copied into padded arrays. The
coefficients of a few channels are transposed into buffers on the stack: one vector for each (coefficient, channel).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel, record_type
from stipple.backends.cpu.sh_basis import basis, basis_gradient
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    any_lane,
    broadcast,
    first_lanes,
    gather,
    lane_sum_double,
    load,
    load_columns,
    scatter,
    sqrt,
    stack_floats,
    store,
    store_columns,
    transpose,
    where,
)
from stipple.backends.cpu.threads import Threads
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import ShBackwardOperands, ShBackwardResults, ShOperands, ShResults

Array = np.ndarray
Arrays = Sequence[Array]
Attrs = Mapping[str, AttrValue]
f4 = np.float32
ZERO, ONE, OFFSET, INFINITY = f4(0), f4(1), f4(nx.SH_OFFSET), f4(np.inf)
_BLOCK = 8192
_CHANNELS = 4
"""Channels whose coefficients are on the stack at a time."""
_BASIS_FLOATS = nx.sh_coeff_count(nx.MAX_SH_DEGREE) * LANES
_COEFFICIENT_FLOATS = (nx.sh_coeff_count(nx.MAX_SH_DEGREE) * _CHANNELS + LANES) * LANES
_CHANNEL_FLOATS = _CHANNELS * LANES

Colored = namedtuple("Colored", "means sh radii position degree")
Gradients = namedtuple("Gradients", "colors means sh sums")
_COLORED_TYPE = record_type(Colored, "f4[:,::1]", "f4[:,:,::1]", "i4[:,::1]", "f4[::1]", "i8")
_GRADIENTS_TYPE = record_type(Gradients, "f4[:,::1]", "f4[:,::1]", "f4[:,:,::1]", "f8[::1]")

_SPAN = ("i8", "i8")


@inline
def _visible(x, i):
    rx, ry = load_columns(x.radii, 2 * i, 2)
    return (rx > ZERO) & (ry > ZERO)


@inline
def _direction(x, i):
    """Unit directions from the camera to Gaussians, and one over the distances."""
    mx, my, mz = load_columns(x.means, 3 * i, 3)
    dx, dy, dz = mx - x.position[0], my - x.position[1], mz - x.position[2]
    scale = ONE / sqrt(dx * dx + dy * dy + dz * dz)
    return dx * scale, dy * scale, dz * scale, scale


@inline
def _load_coefficients(x, i, first, count, out):
    """Coefficients of ``count`` channels from ``first`` on, by coefficient and channel, a vector each."""
    channels = x.sh.shape[2]
    row = x.sh.shape[1] * channels
    used = (x.degree + 1) * (x.degree + 1) * channels
    done = 0
    if count == channels:  # contiguous in memory
        while done + LANES <= used:  # unused coefficients are not read
            transpose(x.sh, i * row + done, row, out, done * LANES, LANES)
            done += LANES
        for k in range(done, used):
            store(out, k * LANES, gather(x.sh, i * row + k, row))
        return
    for k in range((x.degree + 1) * (x.degree + 1)):
        for c in range(count):
            store(out, (k * count + c) * LANES, gather(x.sh, i * row + k * channels + first + c, row))


@inline
def _store_coefficients(x, i, first, count, values, out):
    """The inverse of ``_load_coefficients``: stores gradients in the rows of ``out``, zeros for unused coefficients."""
    channels = x.sh.shape[2]
    row = x.sh.shape[1] * channels
    used = (x.degree + 1) * (x.degree + 1) * channels
    done = 0
    if count == channels:
        while done + LANES <= row:
            if done < used:
                for k in range(used, done + LANES):
                    store(values, k * LANES, ZERO)
                transpose(values, done * LANES, LANES, out, i * row + done, row)
            else:
                for lane in range(LANES):
                    store(out, (i + lane) * row + done, ZERO)
            done += LANES
        for k in range(done, row):
            value = broadcast(ZERO)
            if k < used:
                value = load(values, k * LANES)
            scatter(out, i * row + k, row, value)
        return
    for k in range(x.sh.shape[1]):
        for c in range(count):
            value = broadcast(ZERO)
            if k < (x.degree + 1) * (x.degree + 1):
                value = load(values, (k * count + c) * LANES)
            scatter(out, i * row + k * channels + first + c, row, value)


@inline
def _unclamped(x, weights, coefficients, count, c):
    """SH + 0.5 of one channel."""
    value = broadcast(OFFSET)
    for k in range((x.degree + 1) * (x.degree + 1)):
        value = load(weights, k * LANES) * load(coefficients, (k * count + c) * LANES) + value
    return value


@kernel((*_SPAN, _COLORED_TYPE, "f4[:,::1]"))
def sh_block(start, end, x, out):
    """Colours of Gaussians start to end, which are whole vectors."""
    channels = x.sh.shape[2]
    weights, coefficients = stack_floats(_BASIS_FLOATS), stack_floats(_COEFFICIENT_FLOATS)
    for i in range(start, end, LANES):
        visible = _visible(x, i)
        if not any_lane(visible):
            for k in range(channels):
                store(out, i * channels + k * LANES, ZERO)
            continue
        dx, dy, dz, _ = _direction(x, i)
        basis(dx, dy, dz, x.degree, weights)
        for first in range(0, channels, _CHANNELS):
            count = min(_CHANNELS, channels - first)
            _load_coefficients(x, i, first, count, coefficients)
            for c in range(count):
                value = _unclamped(x, weights, coefficients, count, c)
                value = where((value < ZERO) & (value > -INFINITY), ZERO, value)
                scatter(out, i * channels + first + c, channels, where(visible, value, ZERO))


@inline
def _finite(x, i, weights, coefficients):
    """Which Gaussians have a finite colour in all channels."""
    channels = x.sh.shape[2]
    finite = first_lanes(LANES)
    for first in range(0, channels, _CHANNELS):
        count = min(_CHANNELS, channels - first)
        _load_coefficients(x, i, first, count, coefficients)
        for c in range(count):
            finite = finite & (absolute(_unclamped(x, weights, coefficients, count, c)) < INFINITY)
    return finite


@inline
def _channels_backward(x, i, ok, v, weights, coefficients, v_basis):
    """Store the gradients of the coefficients in ``v.sh``, and add those of the basis to ``v_basis``."""
    channels = x.sh.shape[2]
    used = (x.degree + 1) * (x.degree + 1)
    v_color = stack_floats(_CHANNEL_FLOATS)
    for first in range(0, channels, _CHANNELS):
        count = min(_CHANNELS, channels - first)
        if channels > _CHANNELS:  # otherwise they are still loaded
            _load_coefficients(x, i, first, count, coefficients)
        for c in range(count):
            positive = ok & (_unclamped(x, weights, coefficients, count, c) > ZERO)
            store(v_color, c * LANES, where(positive, gather(v.colors, i * channels + first + c, channels), ZERO))
        for k in range(used):
            weight, total = where(ok, load(weights, k * LANES), ZERO), load(v_basis, k * LANES)
            for c in range(count):
                at, v_c = (k * count + c) * LANES, load(v_color, c * LANES)
                total = load(coefficients, at) * v_c + total
                store(coefficients, at, weight * v_c)
            store(v_basis, k * LANES, total)
        _store_coefficients(x, i, first, count, coefficients, v.sh)


@kernel((*_SPAN, _COLORED_TYPE, _GRADIENTS_TYPE))
def sh_backward_block(start, end, x, v):
    """Gradients of Gaussians start to end, which are whole vectors; the means' are summed into ``v.sums`` too."""
    row = x.sh.shape[1] * x.sh.shape[2]
    weights, coefficients = stack_floats(_BASIS_FLOATS), stack_floats(_COEFFICIENT_FLOATS)
    v_basis = stack_floats(_BASIS_FLOATS)
    zero = broadcast(ZERO)
    for i in range(start, end, LANES):
        visible = _visible(x, i)
        if not any_lane(visible):
            for k in range(row):
                store(v.sh, i * row + k * LANES, ZERO)
            store_columns(v.means, 3 * i, (zero, zero, zero))
            continue
        dx, dy, dz, scale = _direction(x, i)
        basis(dx, dy, dz, x.degree, weights)
        for k in range((x.degree + 1) * (x.degree + 1)):
            store(v_basis, k * LANES, ZERO)
        ok = visible & _finite(x, i, weights, coefficients)
        _channels_backward(x, i, ok, v, weights, coefficients, v_basis)
        gx, gy, gz = basis_gradient(dx, dy, dz, x.degree, v_basis)
        along = gx * dx + gy * dy + gz * dz
        gx = where(ok, (gx - dx * along) * scale, ZERO)
        gy = where(ok, (gy - dy * along) * scale, ZERO)
        gz = where(ok, (gz - dz * along) * scale, ZERO)
        store_columns(v.means, 3 * i, (gx, gy, gz))
        v.sums[0] += lane_sum_double(gx)
        v.sums[1] += lane_sum_double(gy)
        v.sums[2] += lane_sum_double(gz)


# --- ops --------------------------------------------------------------------------------------------------
def sh(x: ShOperands, attrs: Attrs, threads: Threads, out: ShResults) -> None:
    """Results of splat_sh."""
    position = _position(x.viewmat)

    def run(start: int, end: int, means: Array, coefficients: Array, radii: Array, colors: Array) -> None:
        sh_block(start, end, Colored(means, coefficients, radii, position, attrs["sh_degree"]), colors)

    _by_vectors(run, (x.means, x.sh, x.radii), (out.colors,), threads)


def sh_backward(x: ShBackwardOperands, attrs: Attrs, threads: Threads, out: ShBackwardResults) -> None:
    """Gradients of splat_sh."""
    position = _position(x.viewmat)
    sums = np.zeros((len(x.means) // _BLOCK + 2, 3))  # one row per block, and one for the remaining Gaussians

    def run(
        start: int,
        end: int,
        means: Array,
        coefficients: Array,
        radii: Array,
        v_colors: Array,
        v_means: Array,
        v_sh: Array,
    ) -> None:
        part = sums[start // _BLOCK if means is x.means else -1]
        v = Gradients(v_colors, v_means, v_sh, part)
        sh_backward_block(start, end, Colored(means, coefficients, radii, position, attrs["sh_degree"]), v)

    _by_vectors(run, (x.means, x.sh, x.radii, x.v_colors), (out.v_means, out.v_sh), threads)
    out.v_viewmat[:] = _viewmat_gradient(x.viewmat, -sums.sum(axis=0))


def _by_vectors(run: Callable[..., None], inputs: Arrays, outputs: Arrays, threads: Threads) -> None:
    """Call ``run(start, end, *inputs, *outputs)`` for blocks of whole vectors of rows, and for the remaining rows in
    separate arrays, padded with zeros (invisible Gaussians) to a whole vector."""
    count = len(inputs[0])
    whole = count - count % LANES
    threads.blocks(whole, _BLOCK, lambda start, end: run(start, end, *inputs, *outputs))
    if whole == count:
        return
    padded = [np.zeros((LANES, *a.shape[1:]), a.dtype) for a in (*inputs, *outputs)]
    for rows, a in zip(padded, inputs, strict=False):
        rows[: count - whole] = a[whole:]
    run(0, LANES, *padded)
    for rows, a in zip(padded[len(inputs) :], outputs, strict=True):
        a[whole:] = rows[: count - whole]


def _position(viewmat: Array) -> Array:
    """The camera's centre in the world."""
    wide = viewmat.astype(np.float64)
    return np.asarray(-wide[:3, :3].T @ wide[:3, 3], np.float32)


def _viewmat_gradient(viewmat: Array, v_position: Array) -> Array:
    """The gradient of a viewmat from that of the camera's centre -R^T t."""
    v_viewmat = np.zeros((4, 4), np.float32)
    v_viewmat[:3, :3] = -np.outer(viewmat[:3, 3].astype(np.float64), v_position)
    v_viewmat[:3, 3] = -viewmat[:3, :3].astype(np.float64) @ v_position
    return v_viewmat
