"""One number at a time: functions of C and IEEE 754 that Python's ``math`` raises for, and division by zero."""

from __future__ import annotations

import math

from fuzz.spans import INF


def divide(a: float, b: float) -> float:
    """a / b as IEEE 754 has it."""
    if b != 0 or math.isnan(a):
        return a / b
    if a == 0:
        return math.nan
    return math.copysign(INF, a) * math.copysign(1, b)


def power(a: float, b: float) -> float:
    """C's pow."""
    try:
        return math.pow(a, b)
    except OverflowError:
        odd = b % 2 == 1
        return -INF if a < 0 and odd else INF
    except ValueError:
        if a == 0:  # a pole; odd whole powers of -0 keep the sign
            return math.copysign(INF, a) if b % 2 == 1 else INF
        return math.nan


def exponential(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return INF


def logarithm(x: float) -> float:
    if x == 0:
        return -INF
    return math.log(x) if x > 0 else math.nan


def ceil(x: float) -> float:
    return -floor(-x)


def floor(x: float) -> float:
    return x if x == 0 or x - x != 0 else float(math.floor(x))


def sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    small = math.exp(x)
    return small / (1 + small)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
