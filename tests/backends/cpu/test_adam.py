"""The CPU's Adam update beside NumPy in float64: rows of any width, rates for each element of a row, hidden rows."""

from __future__ import annotations

import numpy as np
import pytest

from stipple.backends.cpu.adam import After, Before, Rule, update, update_visible
from stipple.backends.cpu.simd import LANES

pytestmark = pytest.mark.every_width

Array = np.ndarray
BETAS, SCALE, EPS = (0.9, 0.999), 3.0, 1e-8


def operands(rows: int, width: int) -> Before:
    rng = np.random.default_rng(rows + width)
    param, grad, m = (rng.normal(size=rows * width).astype(np.float32) for _ in range(3))
    return Before(param, grad, m, rng.uniform(0, 1, rows * width).astype(np.float32))


def rule(rates: Array) -> Rule:
    """What ``rates`` [width] make of a row's elements."""
    width = len(rates)
    period = width if width >= LANES else width * LANES
    shares = [np.float32(s) for b in BETAS for s in (b, 1 - b)]
    repeated = np.resize(rates.astype(np.float32), period + LANES)
    return Rule._make([*shares, np.float32(SCALE), np.float32(EPS), repeated, period, width])


def expected(x: Before, rates: Array, visible: Array) -> After:
    param, grad, m, v = (a.astype(np.float64).reshape(len(visible), -1) for a in x)
    next_m = BETAS[0] * m + (1 - BETAS[0]) * grad
    next_v = BETAS[1] * v + (1 - BETAS[1]) * grad**2
    moved = param - rates * next_m / (np.sqrt(next_v * SCALE) + EPS)
    shown = visible[:, None]
    return After(*(np.where(shown, a, b).ravel() for a, b in ((moved, param), (next_m, m), (next_v, v))))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("width", [1, 3, 4, LANES, 45, 48])
def test_rows_of_any_width(width: int, in_place: bool) -> None:
    rows = 23
    x, rates = operands(rows, width), np.linspace(0.01, 0.1, width)
    wanted = expected(x, rates, np.ones(rows, bool))
    out = After(x.param, x.m, x.v) if in_place else After(*(np.empty_like(x.param) for _ in range(3)))
    for first, last in ((0, 10), (10, rows)):
        update(first, last, x, rule(rates), out)
    for given, value in zip(out, wanted, strict=True):
        np.testing.assert_allclose(given, value, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("width", [1, 3, 48])
def test_hidden_rows_stay_as_they_are(width: int) -> None:
    rows = 40
    x, rates = operands(rows, width), np.linspace(0.01, 0.1, width)
    visible = np.arange(rows) % 7 < 4
    wanted = expected(x, rates, visible)
    out = After(*(np.empty_like(x.param) for _ in range(3)))
    update_visible(0, rows, visible, x, rule(rates), out)
    for given, value, before in zip(out, wanted, (x.param, x.m, x.v), strict=True):
        np.testing.assert_allclose(given, value, rtol=2e-6, atol=2e-6)
        hidden = ~visible
        assert given.reshape(rows, -1)[hidden].tobytes() == before.reshape(rows, -1)[hidden].tobytes()
