"""Sets of values that a right device may compute: what the oracle calculates with.

One element of a tensor is a *span* ``(low, high, nan)``: every value from ``low`` to ``high``, and NaN too if ``nan``.
A value that is known exactly has ``low == high``; ``NAN`` holds no number at all. Zeros are ordered: [-0.0, 0.0] holds
both, [0.0, 0.0] only the positive one. Integers and bools are spans of ints.

A span that contains what every right device gives lets a test be exact about all that is certain (an addition of two
known floats has one right result, NaN and infinity included) and no stricter than possible about what is not: what a
rounding error decides (which way a comparison falls, what a cancellation leaves) is in the span as a whole.

A span that was computed is one object wherever the value is copied to: where both operands of a comparison or a
difference are that object, they are equal on every device, however wide the span.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import c_float
from dataclasses import dataclass

Span = tuple[float, float, bool]
Spans = list[Span]

INF = math.inf
NAN: Span = (INF, -INF, True)
ANYTHING: Span = (-INF, INF, True)
ZEROS: Span = (-0.0, 0.0, False)
FALSE: Span = (0, 0, False)
TRUE: Span = (1, 1, False)
EITHER: Span = (0, 1, False)

INT_LIMITS = {"i32": (-(2**31), 2**31 - 1), "u8": (0, 255), "bool": (0, 1)}


def as_float32(x: float) -> float:
    """The float32 that is nearest."""
    return c_float(x).value


def exactly(x: float) -> Span:
    """The span of one float."""
    return NAN if math.isnan(x) else (x, x, False)


def before(a: float, b: float) -> bool:
    """Whether a comes before b, with -0 before 0."""
    return a < b or (a == b == 0 and math.copysign(1, a) < math.copysign(1, b))


def lowest(values: Sequence[float]) -> float:
    found = values[0]
    for v in values[1:]:
        if before(v, found):
            found = v
    return found


def highest(values: Sequence[float]) -> float:
    found = values[0]
    for v in values[1:]:
        if before(found, v):
            found = v
    return found


def same(a: Span, b: Span) -> bool:
    """Whether two spans stand for one computed value. ``ANYTHING`` and ``ZEROS`` stand for many."""
    return a is b and a is not ANYTHING and a is not ZEROS and a is not EITHER


def hull(a: Span, b: Span) -> Span:
    """What is in either."""
    if a == b:
        same_zero = a[0] != 0 or math.copysign(1, a[0]) == math.copysign(1, b[0])
        if same_zero and (a[1] != 0 or math.copysign(1, a[1]) == math.copysign(1, b[1])):
            return a
    if a[0] > a[1]:
        return (b[0], b[1], a[2] or b[2])
    if b[0] > b[1]:
        return (a[0], a[1], a[2] or b[2])
    return (lowest((a[0], b[0])), highest((a[1], b[1])), a[2] or b[2])


def hull_of(spans: Sequence[Span]) -> Span:
    found = spans[0]
    for span in spans[1:]:
        found = hull(found, span)
    return found


def zero_possible(a: Span) -> bool:
    return a[0] <= 0 <= a[1]


def infinity_possible(a: Span) -> bool:
    return a[0] <= a[1] and (a[0] == -INF or a[1] == INF)


@dataclass(frozen=True)
class Precision:
    """How exactly a kind of device computes floats of one dtype.

    ``unit`` is half the gap between 1 and the next number. Results of ops that IEEE 754 rounds correctly are allowed
    ``basic`` units of error beyond that rounding, others ``curves`` units; ``sums`` is how many roundings a sum may
    gather at most. ``extra`` says that a result may have more digits than its dtype, ``zeros`` that the sign of a zero
    counts. A result below ``tiny`` may be flushed to zero; on a GPU it may be taken for any other such number.
    """

    unit: float
    tiny: float
    largest: float
    curves: float
    basic: float = 0.0
    division: float = 0.0
    sums: int = 64
    extra: bool = False
    zeros: bool = True
    gpu: bool = False

    @property
    def single(self) -> bool:
        """Whether results are float32."""
        return self.unit > 1e-10

    def rounded(self, low: float, high: float, nan: bool = False, units: float = 0.0, error: float = 0.0) -> Span:
        """The span of a result that lies from low to high before rounding, with so many units of relative error and
        some absolute error."""
        if low > high:
            return NAN
        if units or error:
            gap = units * self.unit
            floor = self.tiny * self.unit * units  # among subnormal numbers, gaps are all the same
            if low not in (INF, -INF) and (low != 0 or error):
                low = low - gap * abs(low) - error - floor
            if high not in (INF, -INF) and (high != 0 or error):
                high = high + gap * abs(high) + error + floor
        if self.single:
            near, far = as_float32(low), as_float32(high)
            if self.extra:  # between the exact result and the rounded one, but never beyond the largest number
                near = -INF if near == -INF else min(near, max(low, -self.largest))
                far = INF if far == INF else max(far, min(high, self.largest))
            low, high = near, far
        tiny = self.tiny
        if self.gpu:  # which subnormal number it is, a GPU need not tell: logarithms of all of them may be the same
            low = -tiny if -tiny < low < 0 else low
            high = tiny if 0 < high < tiny else high
        if low != 0 and -tiny < high < 0:
            high = -0.0
        if high != 0 and 0 < low < tiny:
            low = 0.0
        if not self.zeros:
            if low == 0:
                low = -0.0
            if high == 0:
                high = 0.0
        return (low, high, nan)

    def settled(self, a: Span) -> Span:
        """A value as the device may read it: a GPU may take subnormal numbers for 0, and a zero's sign away."""
        if not self.gpu or a[0] > a[1]:
            return a
        made = self.rounded(a[0], a[1], a[2])
        return a if made == a and a[0] != 0 != a[1] else made


DOUBLE = Precision(unit=2.0**-53, tiny=2.0**-1022, largest=1.7976931348623157e308, curves=6)
HELD_IN_DOUBLE = DOUBLE
"""float32 on the reference: held in float64, rounded only when it leaves."""
CPU = Precision(unit=2.0**-24, tiny=2.0**-126, largest=3.4028234663852886e38, curves=8)
GPU = Precision(
    unit=2.0**-24,
    tiny=2.0**-126,
    largest=3.4028234663852886e38,
    curves=16,
    basic=0.5,
    division=5.0,
    extra=True,
    zeros=False,
    gpu=True,
)
