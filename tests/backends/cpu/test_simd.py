"""The vectors beside NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from stipple.backends.cpu.compile import OPTIONS
from stipple.backends.cpu.simd import (
    LANES,
    absolute,
    add_sums,
    all_finite,
    all_lanes,
    any_lane,
    broadcast,
    ceil,
    copysign,
    dot,
    exp2,
    first_lanes,
    floor,
    fma,
    fma_each,
    gather,
    lane_columns,
    lane_numbers,
    lane_rows,
    lane_sum,
    lane_sum_double,
    load,
    load_columns,
    load_columns_lanes,
    load_lanes,
    load_planes,
    load_scalar,
    log2,
    maximum,
    minimum,
    prefetch,
    reciprocal,
    repeat_scalars,
    rint,
    scatter,
    set_lanes,
    shift_lanes,
    sqrt,
    stack_floats,
    store,
    store_columns,
    store_columns_lanes,
    store_lanes,
    store_planes,
    store_scalar,
    store_sums,
    transpose,
    where,
    zeros,
)

# NumPy warns about the special values that it is given here.
pytestmark = [pytest.mark.every_width, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

Array = np.ndarray
f4 = np.float32
compiled: Any = njit(**OPTIONS)
COUNT = 16 * 20
LAST = LANES - 1
SPECIAL = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5], np.float32)


def numbers(seed: int) -> Array:
    """Floats of both signs and many sizes, special ones among them."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=COUNT) * 10.0 ** rng.integers(-3, 4, COUNT)).astype(np.float32)
    x[rng.choice(COUNT, 60, replace=False)] = rng.choice(SPECIAL, 60)
    return x


def rounded_once(a: Array, b: Array, c: Array) -> Array:
    """a * b + c as float64 makes it, rounded to float32 (float64 holds the product exactly)."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def same(made: Array, expected: Any, ulps: int = 0) -> None:
    """Equal up to some units in the last place, NaN beside NaN."""
    expected = np.broadcast_to(np.asarray(expected, made.dtype), made.shape)
    if not ulps:
        np.testing.assert_array_equal(made, expected)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(made[~finite], expected[~finite])
    np.testing.assert_allclose(made[finite], expected[finite], rtol=ulps * 1.2e-7, atol=1e-30)


# --- operators --------------------------------------------------------------------------------------------
@compiled
def arithmetic(a, b, out):
    for i in range(0, len(a), LANES):
        x, y = load(a, i), load(b, i)
        store(out[0], i, x + y)
        store(out[1], i, x - y)
        store(out[2], i, x * y)
        store(out[3], i, x / y)
        store(out[4], i, -x)
        store(out[5], i, minimum(x, y))
        store(out[6], i, maximum(x, y))
        store(out[7], i, absolute(x))
        store(out[8], i, fma(x, y, x))
        store(out[9], i, copysign(x, y))
        store(out[10], i, f4(2) - x)
        store(out[11], i, x / f4(3))
        store(out[12], i, 2 * x)
        total = broadcast(f4(1))
        total += x
        total -= f4(3)
        total *= y
        store(out[13], i, total)


def test_arithmetic() -> None:
    a, b = numbers(1), numbers(2)
    out = np.empty((14, COUNT), np.float32)
    arithmetic(a, b, out)
    expected = [a + b, a - b, a * b, a / b, -a]
    expected += [np.where(a < b, a, b), np.where(a > b, a, b), np.abs(a)]
    expected += [rounded_once(a, b, a), np.copysign(a, b), 2 - a, a / f4(3), 2 * a]
    for made, wanted in zip(out, expected, strict=False):
        same(made, wanted)
    same(out[13], ((1 + a) - 3) * b, ulps=2)


@compiled
def contracted(a, b, c, out):
    for i in range(0, len(a), LANES):
        store(out, i, load(a, i) * load(b, i) + load(c, i))


def test_contraction() -> None:
    """A product and a sum are one operation, or are rounded twice: within a unit of each other's terms."""
    a, b, c = (np.random.default_rng(k).normal(size=COUNT).astype(np.float32) for k in range(3))
    out = np.empty_like(a)
    contracted(a, b, c, out)
    exact = a.astype(np.float64) * b + c
    assert np.max(np.abs(out - exact) / (np.abs(a * b) + np.abs(c))) < 1.2e-7


@compiled
def comparisons(a, b, out, found):
    for i in range(0, len(a), LANES):
        x, y = load(a, i), load(b, i)
        store(out[0], i, where(x < y, 1, 0))
        store(out[1], i, where(x <= y, 1, 0))
        store(out[2], i, where(x > y, 1, 0))
        store(out[3], i, where(x >= y, 1, 0))
        store(out[4], i, where(x == y, 1, 0))
        store(out[5], i, where(x != y, 1, 0))
        store(out[6], i, where((x < y) & (x > f4(0)), x, y))
        store(out[7], i, where((x < y) | (x > f4(0)), x, f4(5)))
        store(out[8], i, where(~(x < y), f4(-1), y))
        chosen = x > f4(0.5)
        chosen &= y > f4(0.5)
        k = i // LANES
        found[0, k], found[1, k], found[2, k] = any_lane(chosen), all_lanes(chosen), set_lanes(chosen)


def test_comparisons() -> None:
    a, b = numbers(3), numbers(4)
    a[LANES : 2 * LANES] = b[LANES : 2 * LANES] = 1
    a[2 * LANES : 3 * LANES] = 0
    a[5::7] = b[5::7]
    out, found = np.empty((9, COUNT), np.float32), np.empty((3, COUNT // LANES), np.int64)
    comparisons(a, b, out, found)
    for made, wanted in zip(out, [a < b, a <= b, a > b, a >= b, a == b, a != b], strict=False):
        same(made, wanted)
    same(out[6], np.where((a < b) & (a > 0), a, b))
    same(out[7], np.where((a < b) | (a > 0), a, 5))
    same(out[8], np.where(~(a < b), -1, b))
    chosen = ((a > 0.5) & (b > 0.5)).reshape(-1, LANES)
    np.testing.assert_array_equal(found, [chosen.any(axis=1), chosen.all(axis=1), chosen.sum(axis=1)])
    assert 0 < found[0].sum() < len(chosen)
    assert found[1].any()


@compiled
def poison(a, out):
    for i in range(0, len(a), LANES):
        x = load(a, i)
        inside = (x >= f4(-126)) & (x < f4(128))
        store(out, i, where(inside & (exp2(x) > f4(1.5)), exp2(x), f4(-1)))


def test_masks_let_nothing_undefined_through() -> None:
    a = numbers(5)
    out = np.empty_like(a)
    poison(a, out)
    inside = (a >= -126) & (a < 128)
    powers = np.exp2(np.where(inside, a, 0).astype(np.float64))
    np.testing.assert_allclose(out, np.where(inside & (powers > 1.5), powers, -1), rtol=2e-6)


# --- functions --------------------------------------------------------------------------------------------
@compiled
def functions(a, out):
    for i in range(0, len(a), LANES):
        x = load(a, i)
        store(out[0], i, exp2(x))
        store(out[1], i, log2(exp2(x)))
        store(out[2], i, sqrt(absolute(x)))
        store(out[3], i, floor(x))
        store(out[4], i, ceil(x))
        store(out[5], i, rint(x))
        store(out[6], i, reciprocal(x))


def test_functions() -> None:
    x = np.linspace(-125, 125, 16 * 20_000).astype(np.float32)
    x[x == 0] = 1
    out = np.empty((7, len(x)), np.float32)
    functions(x, out)
    exact = np.exp2(x.astype(np.float64))
    assert np.max(np.abs(out[0] - exact) / exact) <= 4e-7
    assert np.max(np.abs(out[1] - np.log2(out[0].astype(np.float64)))) <= 8e-6
    near = np.abs(x) < 1
    assert np.max(np.abs(out[1] - np.log2(out[0].astype(np.float64)))[near]) <= 2e-7
    same(out[2], np.sqrt(np.abs(x)))
    same(out[3], np.floor(x))
    same(out[4], np.ceil(x))
    same(out[5], np.rint(x))
    assert np.max(np.abs(out[6] * x.astype(np.float64) - 1)) <= 3e-7
    sizes = np.logspace(-37, 37, 16 * 1000).astype(np.float32)
    out = np.empty((7, len(sizes)), np.float32)
    functions(sizes, out)
    assert np.max(np.abs(out[6] * sizes.astype(np.float64) - 1)) <= 3e-7


# --- memory -----------------------------------------------------------------------------------------------
@compiled
def copies(a, out, count):
    for i in range(0, count, LANES):
        lanes = first_lanes(count - i)
        store_lanes(out, i, load_lanes(a, i, lanes) + 1, lanes)


@compiled
def rows(a, three, part, count):
    buffer = stack_floats(128)
    for i in range(0, len(a) // 3, LANES):
        prefetch(a, 3 * i)
        x, y, z = load_columns(a, 3 * i, 3)
        store_columns(three, 3 * i, (z, x, y))
        lanes = first_lanes(count - i)
        x, y, z = load_columns_lanes(a, 3 * i, 3, lanes)
        store_columns_lanes(part, 3 * i, (x + f4(1), 7, z), lanes)
        store(buffer, 0, x)


@compiled
def strided(a, out, step):
    for i in range(0, len(a) // step, LANES):
        scatter(out, step * i, step, gather(a, step * i, step) * 2)


def test_memory() -> None:
    for count in range(2 * LANES + 2):
        for dtype in (np.float32, np.int32, np.uint8, np.float64, np.int64, np.bool_):
            a = np.random.default_rng(count).integers(0, 2 if dtype is np.bool_ else 90, count).astype(dtype)
            out = np.full(count + LANES, -1, np.float32)
            copies(a, out, count)
            same(out[:count], a.astype(np.float32) + 1)
            same(out[count:], -1)
    for dtype in (np.float32, np.int32, np.uint8, np.float64):
        made = np.full(3 * LANES, 9, dtype)
        copies(np.arange(3 * LANES, dtype=np.float32) + f4(0.5), made, LANES + 1)
        wanted = (np.arange(LANES + 1) + 1.5).astype(dtype)
        np.testing.assert_array_equal(made, [*wanted, *[9] * (2 * LANES - 1)])
    table = np.random.default_rng(0).normal(size=(3 * LANES, 3)).astype(np.float32)
    for count in range(3 * LANES + 1):
        three, part = np.zeros_like(table), np.full_like(table, -5)
        rows(table.reshape(-1), three.reshape(-1), part.reshape(-1), count)
        np.testing.assert_array_equal(three, table[:, [2, 0, 1]])
        expected = np.column_stack([table[:, 0] + 1, np.full(len(table), 7), table[:, 2]])
        expected[count:] = -5
        np.testing.assert_array_equal(part, expected.astype(np.float32))
    for dtype in (np.float32, np.int32):
        numbered, doubled = np.arange(6 * LANES, dtype=dtype), np.full(6 * LANES, -1, dtype)
        strided(numbered, doubled, 3)
        np.testing.assert_array_equal(doubled, np.where(numbered % 3 == 0, 2 * numbered, -1))


@compiled
def wide_rows(a, out):
    for i in range(0, len(a) // 8, LANES):
        c0, c1, c2, c3, c4, c5, c6, c7 = load_columns(a, 8 * i, 8)
        store_columns(out, 8 * i, (c7, c6, c5, c4, c3, c2, c1, c0))


def test_wide_rows() -> None:
    table = np.arange(8 * 2 * LANES, dtype=np.float32).reshape(-1, 8)
    out = np.zeros_like(table)
    wide_rows(table.reshape(-1), out.reshape(-1))
    np.testing.assert_array_equal(out, table[:, ::-1])


@compiled
def scalars(a, out):
    for i in range(len(a)):
        store_scalar(out, i, load_scalar(a, i) + 1)


def test_scalars() -> None:
    for dtype in (np.float32, np.int32, np.uint8):
        a = np.arange(10, dtype=dtype)
        out = np.zeros(10, dtype)
        scalars(a, out)
        np.testing.assert_array_equal(out, a + 1)


# --- lanes and sums ---------------------------------------------------------------------------------------
@compiled
def lanes_and_sums(a, out, sums, totals):
    store(out[0], 0, lane_numbers())
    store(out[1], 0, lane_columns(4))
    store(out[2], 0, lane_rows(4))
    x, y = load(a, 0), load(a, LANES)
    store(out[3], 0, shift_lanes(x, y, 1))
    store(out[4], 0, shift_lanes(x, y, LAST))
    store_sums(sums, 0, (x, y, x + y, x - y, x * x))
    totals[0], totals[1] = lane_sum(x), lane_sum_double(y)


@compiled
def more_sums(a, sums):
    x, y = load(a, 0), load(a, LANES)
    add_sums(sums, 0, (x, y, x + y, x - y, x * x))


def test_lanes_and_sums() -> None:
    a = np.random.default_rng(1).normal(size=2 * LANES).astype(np.float32)
    x, y = a[:LANES].astype(np.float64), a[LANES:].astype(np.float64)
    out, sums, totals = np.empty((5, LANES), np.float32), np.full(24, -7, np.float32), np.empty(2)
    lanes_and_sums(a, out, sums, totals)
    lanes = np.arange(LANES)
    same(out[:3], [lanes, lanes % 4, lanes // 4])
    same(out[3], a[1 : LANES + 1])
    same(out[4], a[LANES - 1 : 2 * LANES - 1])
    np.testing.assert_allclose(sums[:5], [x.sum(), y.sum(), (x + y).sum(), (x - y).sum(), (x * x).sum()], atol=1e-5)
    same(sums[5:], -7)
    once = sums.copy()
    more_sums(a, sums)
    same(sums[:5], 2 * once[:5])
    same(sums[5:], -7)
    np.testing.assert_allclose(totals, [x.sum(), y.sum()], atol=1e-5)
    np.testing.assert_allclose(totals[1], y.sum(), rtol=1e-14)


@compiled
def planes(a, out, sums):
    like = (0, 0, 0)
    first = load_planes(a, 0, LANES, like)
    store_planes(out, 0, LANES, fma_each(load(a, LANES), first, zeros(like)))
    store(out, 3 * LANES, dot(first, repeat_scalars(a, 1, like)))
    store(out, 4 * LANES, where(all_finite(first), 1, 0))


def test_planes() -> None:
    a = np.random.default_rng(1).normal(size=3 * LANES).astype(np.float32)
    out = np.empty(5 * LANES, np.float32)
    a[2], a[LANES + 1], a[2 * LANES + 3] = np.nan, np.inf, -np.inf
    planes(a, out, np.empty(3, np.float32))
    rows = a.reshape(3, LANES)
    same(out[: 3 * LANES].reshape(3, LANES), rows * rows[1])
    scalars = a[1:4].astype(np.float64)
    np.testing.assert_allclose(out[3 * LANES : 4 * LANES], scalars @ rows.astype(np.float64), rtol=1e-5)
    same(out[4 * LANES :], np.isfinite(rows).all(axis=0))


@compiled
def transposed(a, out, step, target_step):
    transpose(a, 1, step, out, 2, target_step)


def test_transposition() -> None:
    step, target_step = 3 * LANES, 2 * LANES
    a, out = np.arange(step * LANES + 1, dtype=np.float32), np.zeros(target_step * LANES + 2, np.float32)
    transposed(a, out, step, target_step)
    source = a[1:].reshape(LANES, step)[:, :LANES]
    np.testing.assert_array_equal(out[2:].reshape(LANES, target_step)[:, :LANES], source.T)
