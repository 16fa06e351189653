"""Elementwise ops on spans, from the ops' documentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fuzz import scalar
from fuzz.spans import (
    EITHER,
    FALSE,
    INF,
    INT_LIMITS,
    NAN,
    TRUE,
    Precision,
    Span,
    as_float32,
    highest,
    hull,
    infinity_possible,
    lowest,
    same,
    zero_possible,
)

_EXACT_INTEGERS = 2.0**53


def _corners(values: list[float], nan: bool, how: Precision, units: float = 0.0) -> Span:
    """The span of a function that is monotone in each operand, from its values at the corners."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return NAN
    return how.rounded(lowest(known), highest(known), nan, units)


# --- one operand ------------------------------------------------------------------------------------------
def _curve(
    function: Callable[[float], float],
    low: float,
    high: float,
    nan: bool,
    how: Precision,
    units: float,
    error: float = 0.0,
) -> Span:
    """The span of a function that rises from low to high; Python's own may be off in the last digit."""
    ends = function(low), function(high)
    return how.rounded(lowest(ends), highest(ends), nan, units, error)


def neg(a: Span, how: Precision) -> Span:
    return how.settled((-a[1], -a[0], a[2])) if a[0] <= a[1] else NAN


def magnitude(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    if a[0] >= 0 and math.copysign(1, a[0]) > 0:
        return a
    if a[1] <= 0 and math.copysign(1, a[1]) < 0:
        return (-a[1], -a[0], a[2])
    return (0.0, max(-a[0], a[1]), a[2])


def sign(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    low = -1.0 if a[0] < 0 else (1.0 if a[0] > 0 else -0.0)
    high = 1.0 if a[1] > 0 else (-1.0 if a[1] < 0 else 0.0)
    return (low, high, a[2])


def ceil(a: Span, how: Precision) -> Span:
    return (scalar.ceil(a[0]), scalar.ceil(a[1]), a[2]) if a[0] <= a[1] else NAN


def floor(a: Span, how: Precision) -> Span:
    return (scalar.floor(a[0]), scalar.floor(a[1]), a[2]) if a[0] <= a[1] else NAN


def exp(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    units = how.curves
    if how.gpu:
        units += 4 * min(max(abs(a[0]), abs(a[1])), 200.0)
    return _curve(scalar.exponential, a[0], a[1], a[2], how, units)


def log(a: Span, how: Precision) -> Span:
    nan = a[2] or a[0] < 0
    if a[0] > a[1] or a[1] < 0:
        return NAN
    error = 2.0**-21 if how.gpu else 0.0
    return _curve(scalar.logarithm, max(a[0], 0.0), a[1], nan, how, how.curves, error)


def sqrt(a: Span, how: Precision) -> Span:
    nan = a[2] or a[0] < 0
    if a[0] > a[1] or a[1] < 0:
        return NAN
    low = -0.0 if a[0] < 0 else math.sqrt(a[0])
    return how.rounded(low, math.sqrt(a[1]), nan, how.division)


def square(a: Span, how: Precision) -> Span:
    m = magnitude(a, how)
    return NAN if m[0] > m[1] else how.rounded(m[0] * m[0], m[1] * m[1], m[2], how.basic)


def reciprocal(a: Span, how: Precision) -> Span:
    return div((1.0, 1.0, False), a, how)


def _wave(a: Span, how: Precision, function: Callable[[float], float], peak: float) -> Span:
    """Sine or cosine; ``peak`` is where its largest value is."""
    if a[0] > a[1]:
        return NAN
    nan = a[2] or infinity_possible(a)
    if a[0] == a[1] and math.isinf(a[0]):
        return NAN
    if infinity_possible(a) or a[1] - a[0] > 6.2 or (how.gpu and max(-a[0], a[1]) > 8192):
        return (-1.0, 1.0, nan)
    ends = sorted((function(a[0]), function(a[1])))
    turn = 2 * math.pi
    low, high = ends
    slack = (a[1] - a[0]) * 1e-9 + max(abs(a[0]), abs(a[1])) * 1e-15
    if math.floor((a[1] + slack - peak) / turn) > math.floor((a[0] - slack - peak) / turn) and a[0] != a[1]:
        high = 1.0
    if math.floor((a[1] + slack - peak) / turn - 0.5) > math.floor((a[0] - slack - peak) / turn - 0.5) and a[0] != a[1]:
        low = -1.0
    if a[0] == a[1] == 0:
        return how.rounded(function(a[0]), function(a[1]), nan)
    got = how.rounded(low, high, nan, how.curves, 3e-7 if how.gpu else 0.0)
    return (max(got[0], -1.0 - 1e-6), min(got[1], 1.0 + 1e-6), nan) if how.gpu else got


def sin(a: Span, how: Precision) -> Span:
    return _wave(a, how, math.sin, math.pi / 2)


def cos(a: Span, how: Precision) -> Span:
    return _wave(a, how, math.cos, 0.0)


def tanh(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    error = 2.0**-20 if how.gpu else 0.0
    return _curve(math.tanh, a[0], a[1], a[2], how, how.curves, error)


def sigmoid(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    units = how.curves
    if how.gpu:
        units += 4 * min(max(-a[0], 0.0), 200.0)
    return _curve(scalar.sigmoid, a[0], a[1], a[2], how, units)


def softplus(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    error = 2.0**-21 if how.gpu else 0.0
    return _curve(scalar.softplus, a[0], a[1], a[2], how, how.curves, error)


def relu(a: Span, how: Precision) -> Span:
    if a[0] > a[1]:
        return NAN
    if a[0] > 0:
        return a
    return (-0.0, a[1] if a[1] > 0 else 0.0, a[2])


# --- two operands -----------------------------------------------------------------------------------------
def add(a: Span, b: Span, how: Precision) -> Span:
    if a[0] > a[1] or b[0] > b[1]:
        return NAN
    nan = a[2] or b[2] or (a[0] == -INF and b[1] == INF) or (a[1] == INF and b[0] == -INF)
    return _corners([a[0] + b[0], a[1] + b[1]], nan, how, how.basic)


def sub(a: Span, b: Span, how: Precision) -> Span:
    if b[0] > b[1]:
        return NAN
    if same(a, b):
        unknown = a[2] or infinity_possible(a)
        return NAN if a[0] == a[1] and infinity_possible(a) else how.rounded(0.0, 0.0, unknown)
    return add(a, (-b[1], -b[0], b[2]), how)


def mul(a: Span, b: Span, how: Precision) -> Span:
    if a[0] > a[1] or b[0] > b[1]:
        return NAN
    nan = a[2] or b[2] or (zero_possible(a) and infinity_possible(b)) or (zero_possible(b) and infinity_possible(a))
    products = [x * y for x in a[:2] for y in b[:2]]
    if any(math.isnan(p) for p in products) and (a[0] != a[1] or b[0] != b[1]):
        products = [
            p if not math.isnan(p) else s for p in products for s in (-0.0, 0.0)
        ]  # 0 times what grows without end
    return _corners(products, nan, how, how.basic)


def div(a: Span, b: Span, how: Precision) -> Span:
    if a[0] > a[1] or b[0] > b[1]:
        return NAN
    nan = a[2] or b[2] or (zero_possible(a) and zero_possible(b)) or (infinity_possible(a) and infinity_possible(b))
    if b[0] <= 0 <= b[1] and b[0] != b[1]:
        positive = b[0] == 0 and math.copysign(1, b[0]) > 0
        negative = b[1] == 0 and math.copysign(1, b[1]) < 0
        if not (positive or negative):
            return (-INF, INF, nan)
    elif b[0] == b[1] == 0 and math.copysign(1, b[0]) != math.copysign(1, b[1]):
        return NAN if a[0] == a[1] == 0 else (-INF, INF, nan)
    quotients = [q for x in a[:2] for y in b[:2] for q in _quotients(x, y, a[0] != a[1], b[0] != b[1])]
    return _corners(quotients, nan, how, how.division)


def _quotients(x: float, y: float, x_varies: bool, y_varies: bool) -> list[float]:
    """x / y at a corner; where that is NaN, what it is close by."""
    found = scalar.divide(x, y)
    if not math.isnan(found):
        return [found]
    sign = math.copysign(1, x) * math.copysign(1, y)
    steep, flat = (y_varies, x_varies) if math.isinf(x) else (x_varies, y_varies)
    return [math.nan] + [sign * INF] * steep + [-0.0, 0.0] * flat


def power(a: Span, b: Span, how: Precision) -> Span:
    if b[0] == b[1] == 0 and not b[2]:
        return (1.0, 1.0, False)
    if a[0] == a[1] == 1 and not a[2]:
        return (1.0, 1.0, False)
    found = _power_of_numbers(a, b, how)
    if (a[2] or a[0] > a[1]) and zero_possible(b):  # NaN to the power 0
        found = hull(found, (1.0, 1.0, False))
    if (b[2] or b[0] > b[1]) and a[0] <= 1 <= a[1]:
        found = hull(found, (1.0, 1.0, False))
    return (found[0], found[1], found[2] or a[2] or b[2])


def _power_of_numbers(a: Span, b: Span, how: Precision) -> Span:
    if a[0] > a[1] or b[0] > b[1]:
        return NAN
    whole = b[0] == b[1] and (math.isinf(b[0]) or b[0] == math.floor(b[0]))
    parts = []
    if a[1] > 0 or math.copysign(1, a[1]) > 0:
        parts.append(_power_of_positive(max(a[0], 0.0), a[1], b, how))
    if a[0] < 0 or math.copysign(1, a[0]) < 0:
        m = _power_of_positive(abs(min(a[1], -0.0)), -a[0], b, how)
        if whole and b[0] % 2 == 1:
            parts.append((-m[1], -m[0], m[2]))
        elif whole:
            parts.append(m)
        else:  # no result but at 0 and -infinity, unless the power may be whole
            edges = a[0] == -INF or a[1] >= -0.0 or b[0] != b[1]
            parts.append((-m[1] if b[0] != b[1] else m[0], m[1], True) if edges else NAN)
    found = parts[0]
    for part in parts[1:]:
        found = hull(found, part)
    return found


def _power_of_positive(low: float, high: float, b: Span, how: Precision) -> Span:
    low, high = abs(low), abs(high)
    values = [scalar.power(x, y) for x in (low, high) for y in b[:2]]
    if low <= 1 <= high or zero_possible(b):  # between the corners everything is monotone, but 1 may not be a corner
        values.append(1.0)
    units = how.curves
    if how.gpu:
        size = max(abs(math.log2(x)) if 0 < x < INF else 150.0 for x in (low, high))
        units += 8 * min(max(abs(b[0]), abs(b[1])), 1e5) * max(1.0, size)
    return _corners(values, False, how, min(units, 1e7))


def maximum(a: Span, b: Span, how: Precision) -> Span:
    if a[0] > a[1] or b[0] > b[1]:
        return NAN
    for one, other in ((a, b), (b, a)):
        if one is other or (one[0] > other[1] and not other[2]):
            return how.settled(one)
    return how.settled((*_either_zero(max(a[0], b[0]), max(a[1], b[1])), a[2] or b[2]))


def minimum(a: Span, b: Span, how: Precision) -> Span:
    if a[0] > a[1] or b[0] > b[1]:
        return NAN
    for one, other in ((a, b), (b, a)):
        if one is other or (one[1] < other[0] and not other[2]):
            return how.settled(one)
    return how.settled((*_either_zero(min(a[0], b[0]), min(a[1], b[1])), a[2] or b[2]))


def _either_zero(low: float, high: float) -> tuple[float, float]:
    """-0 and 0 are equal, and either may be taken for the larger one."""
    return (-0.0 if low == 0 else low, 0.0 if high == 0 else high)


def clamp(a: Span, low: float, high: float, how: Precision) -> Span:
    if how.single:
        low, high = as_float32(low), as_float32(high)
    if a[0] > a[1]:
        return NAN
    low_end, high_end = (min(max(v, low), high) for v in a[:2])
    return how.settled((*_either_zero(low_end, high_end), a[2]))


# --- truth ------------------------------------------------------------------------------------------------
def _truth(certain: bool, possible: bool) -> Span:
    if certain:
        return TRUE
    return EITHER if possible else FALSE


def less(a: Span, b: Span) -> Span:
    if same(a, b):
        return FALSE
    some = a[0] <= a[1] and b[0] <= b[1]
    return _truth(some and not (a[2] or b[2]) and a[1] < b[0], some and a[0] < b[1])


def less_equal(a: Span, b: Span) -> Span:
    if same(a, b):
        return _truth(a[0] <= a[1] and not a[2], a[0] <= a[1])
    some = a[0] <= a[1] and b[0] <= b[1]
    return _truth(some and not (a[2] or b[2]) and a[1] <= b[0], some and a[0] <= b[1])


def equal(a: Span, b: Span) -> Span:
    some = a[0] <= a[1] and b[0] <= b[1]
    certain = same(a, b) or a[0] == a[1] == b[0] == b[1]
    return _truth(some and certain and not (a[2] or b[2]), some and a[0] <= b[1] and b[0] <= a[1])


def isfinite(a: Span) -> Span:
    if a[0] > a[1]:
        return FALSE
    finite = a[0] > -INF and a[1] < INF
    return _truth(finite and not a[2], finite or a[0] != a[1])


def where(condition: Span, a: Span, b: Span) -> Span:
    if condition[0] == condition[1]:
        return a if condition[0] else b
    return hull(a, b)


_LOGIC: dict[str, Callable[..., Span]] = {
    "logical_and": lambda a, b: (min(a[0], b[0]), min(a[1], b[1]), False),
    "logical_or": lambda a, b: (max(a[0], b[0]), max(a[1], b[1]), False),
    "logical_not": lambda a: (1 - a[1], 1 - a[0], False),
    "less": less,
    "less_equal": less_equal,
    "equal": equal,
    "isfinite": isfinite,
    "where": where,
}


# --- integers ---------------------------------------------------------------------------------------------
def wrapped(low: int, high: int, dtype: str) -> Span:
    """Integers that went round."""
    least, most = INT_LIMITS[dtype]
    size = most - least + 1
    if high - low >= size:
        return (least, most, False)
    low, high = ((v - least) % size + least for v in (low, high))
    return (low, high, False) if low <= high else (least, most, False)


_INTEGER: dict[str, Callable[[Span, Span], list[float]]] = {
    "add": lambda a, b: [a[0] + b[0], a[1] + b[1]],
    "sub": lambda a, b: [a[0] - b[1], a[1] - b[0]],
    "mul": lambda a, b: [x * y for x in a[:2] for y in b[:2]],
    "maximum": lambda a, b: [max(a[0], b[0]), max(a[1], b[1])],
    "minimum": lambda a, b: [min(a[0], b[0]), min(a[1], b[1])],
}


# --- casts ------------------------------------------------------------------------------------------------
def cast(a: Span, source: str, target: str, how: Precision) -> Span:
    """Between floats the nearest value; to integers towards zero and held at the ends, NaN is 0; to bool not 0."""
    if target == "bool":
        return _is_not_zero(a)
    if target in INT_LIMITS:
        return _to_integer(a, target)
    if source in INT_LIMITS:
        return how.rounded(float(a[0]), float(a[1]))
    return how.rounded(*a)


def _is_not_zero(a: Span) -> Span:
    if a[0] > a[1]:
        return TRUE
    zero = a[0] <= 0 <= a[1]
    return _truth(not zero, not (a[0] == a[1] == 0) or a[2])


def _to_integer(a: Span, target: str) -> Span:
    least, most = INT_LIMITS[target]
    if a[0] > a[1]:
        return (0, 0, False)
    low, high = (int(min(max(v, least), most)) for v in a[:2])
    return (min(low, 0), max(high, 0), False) if a[2] else (low, high, False)


_ONE: dict[str, Callable[[Span, Precision], Span]] = {
    "neg": neg,
    "abs": magnitude,
    "sign": sign,
    "ceil": ceil,
    "floor": floor,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "square": square,
    "reciprocal": reciprocal,
    "sin": sin,
    "cos": cos,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "relu": relu,
}
_TWO: dict[str, Callable[[Span, Span, Precision], Span]] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "pow": power,
    "maximum": maximum,
    "minimum": minimum,
}
OPS = frozenset({*_ONE, *_TWO, *_LOGIC, "clamp", "cast"})


def function_of(op: str, attrs: Mapping[str, Any], dtypes: list[str], how: Precision) -> Callable[..., Span]:
    """What an op does to one span of each operand. ``dtypes`` are the operands', ``how`` is the result's precision."""
    if op in _LOGIC:
        return _LOGIC[op]
    if op == "cast":
        target = attrs["dtype"].value
        return lambda a: cast(a, dtypes[0], target, how)
    if op == "clamp":
        return lambda a: clamp(a, attrs["low"], attrs["high"], how)
    if op in _ONE:
        one = _ONE[op]
        return lambda a: one(a, how)
    if dtypes[0] in INT_LIMITS:
        whole = _INTEGER[op]

        def integer(a: Span, b: Span) -> Span:
            found = whole(a, b)
            return wrapped(int(min(found)), int(max(found)), dtypes[0])

        return integer
    two = _TWO[op]
    return lambda a, b: two(a, b, how)
