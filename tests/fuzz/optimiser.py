"""Adam on spans: Kingma and Ba's algorithm, line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fuzz.elementwise import add, div, mul, sqrt, square, sub
from fuzz.spans import ANYTHING, Precision, Span, hull
from fuzz.tensors import RefusedError, Tensor, UndecidedError

_TAME = 1e15


def adam(x: Sequence[Tensor], attrs: Mapping[str, Any], how: Precision) -> list[Tensor]:
    """Results of adam, or with a mask of adam_visible. ``lr`` is a number or has the shape of a row."""
    param, grad, m, v, lr, step = x[:6]
    for name, tensor in (("lr", lr), ("step", step)):
        for low, high, nan in tensor.spans:
            if low > high or (low == high and math.isinf(low)):
                raise RefusedError(f"{name} is not finite")
            if nan or math.isinf(low) or math.isinf(high):
                raise UndecidedError(name)
    low, high, _ = step.spans[0]
    if high < 1:
        raise RefusedError("step")
    if low < 1:
        raise UndecidedError("step")
    loose = replace(how, basic=how.basic + 2, division=how.division + 2)
    width = max(1, len(lr.spans))
    rows = math.prod(param.shape[1:])
    made: list[list[Span]] = [[], [], []]
    for i in range(len(param.spans)):
        old = param.spans[i], m.spans[i], v.spans[i]
        mask = x[6].spans[i // rows] if len(x) == 7 else (1, 1, False)
        new = old
        if mask[1]:
            new = _update(*old, grad.spans[i], lr.spans[i % width], step.spans[0], attrs, loose)
            if not mask[0]:
                new = tuple(hull(a, b) for a, b in zip(old, new, strict=True))
        for k in range(3):
            made[k].append(new[k])
    return [Tensor(param.shape, param.dtype, spans) for spans in made]


def _update(
    param: Span, m: Span, v: Span, grad: Span, lr: Span, step: Span, attrs: Mapping[str, Any], how: Precision
) -> tuple[Span, ...]:
    def wild(s: Span) -> bool:
        return s[0] <= s[1] and max(-s[0], s[1]) > _TAME

    if how.single and any(wild(s) for s in (param, m, v, grad, lr)):
        return (ANYTHING,) * 3  # what overflows on the way depends on the order of factors

    def number(x: float) -> Span:
        return how.rounded(x, x)

    beta1, beta2 = attrs["beta1"], attrs["beta2"]
    next_m = add(mul(number(beta1), m, how), mul(number(1 - beta1), grad, how), how)
    next_v = add(mul(number(beta2), v, how), mul(number(1 - beta2), square(grad, how), how), how)
    factor1, factor2 = ((1 - beta ** step[0], 1 - beta ** step[1], False) for beta in (beta1, beta2))
    top = mul(lr, div(next_m, _around(factor1), how), how)
    bottom = add(sqrt(div(next_v, _around(factor2), how), how), number(attrs["eps"]), how)
    return sub(param, div(top, bottom, how), how), next_m, next_v


def _around(factor: Span) -> Span:
    """1 - beta^step loses digits where beta is close to 1: a few units of float64's rounding of the power."""
    gap = 4 * 2.0**-53
    return (max(factor[0] - gap, factor[0] * 0.5), factor[1] + gap, False)
