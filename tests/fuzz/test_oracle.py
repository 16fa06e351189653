"""The oracle itself: special values by hand, gradients of images by differences, spans that hold what they must."""

from __future__ import annotations

import math
import random

import pytest

from fuzz import images, tensors
from fuzz.elementwise import cast, function_of
from fuzz.spans import ANYTHING, CPU, DOUBLE, GPU, INF, NAN, Precision, Span, exactly, hull
from fuzz.tensors import RefusedError, Tensor, UndecidedError

nan = math.nan
TABLE = [
    ("add", (INF, -INF), nan),
    ("add", (-0.0, 0.0), 0.0),
    ("add", (-0.0, -0.0), -0.0),
    ("add", (3e38, 3e38), INF),
    ("sub", (1.0, 1.0), 0.0),
    ("sub", (0.0, 0.0), 0.0),
    ("mul", (0.0, INF), nan),
    ("mul", (-0.0, 5.0), -0.0),
    ("div", (0.0, 0.0), nan),
    ("div", (1.0, -0.0), -INF),
    ("div", (1.0, INF), 0.0),
    ("reciprocal", (-0.0,), -INF),
    ("pow", (0.0, 0.0), 1.0),
    ("pow", (nan, 0.0), 1.0),
    ("pow", (1.0, nan), 1.0),
    ("pow", (-2.0, 3.0), -8.0),
    ("pow", (-2.0, 0.5), nan),
    ("pow", (-0.0, -1.0), -INF),
    ("pow", (0.0, -2.0), INF),
    ("pow", (-INF, 3.0), -INF),
    ("maximum", (nan, 1.0), nan),
    ("minimum", (1.0, nan), nan),
    ("maximum", (-INF, 1.0), 1.0),
    ("relu", (nan,), nan),
    ("relu", (INF,), INF),
    ("sign", (nan,), nan),
    ("sign", (-INF,), -1.0),
    ("abs", (-0.0,), 0.0),
    ("neg", (0.0,), -0.0),
    ("ceil", (-0.5,), -0.0),
    ("ceil", (0.5,), 1.0),
    ("floor", (-0.5,), -1.0),
    ("floor", (-0.0,), -0.0),
    ("sqrt", (-1.0,), nan),
    ("sqrt", (-0.0,), -0.0),
    ("log", (0.0,), -INF),
    ("log", (-1.0,), nan),
    ("exp", (-INF,), 0.0),
    ("exp", (1000.0,), INF),
    ("sin", (INF,), nan),
    ("cos", (0.0,), 1.0),
    ("tanh", (INF,), 1.0),
    ("sigmoid", (-INF,), 0.0),
    ("softplus", (-INF,), 0.0),
    ("softplus", (INF,), INF),
]


def apply(op: str, spans: tuple[Span, ...], how: Precision = CPU, dtype: str = "f32") -> Span:
    return function_of(op, {}, [dtype] * len(spans), how)(*spans)


def holds(a: Span, value: float) -> bool:
    return a[2] if math.isnan(value) else a[0] <= value <= a[1]


def exact(a: Span, value: float) -> bool:
    """Whether the span holds the value, with its sign, and nothing else."""
    if math.isnan(value):
        return a == NAN
    sign = math.copysign(1, value)
    return not a[2] and a[0] == value == a[1] and sign == math.copysign(1, a[0]) == math.copysign(1, a[1])


@pytest.mark.parametrize(("op", "operands", "wanted"), TABLE)
def test_special_values(op: str, operands: tuple[float, ...], wanted: float) -> None:
    found = apply(op, tuple(exactly(v) for v in operands))
    either_zero = op in ("relu", "sign") and wanted == 0
    near = 0 < abs(wanted) < INF and holds(found, wanted) and not found[2] and found[1] - found[0] < 1e-5
    assert either_zero or near or exact(found, wanted)


@pytest.mark.parametrize("how", [CPU, DOUBLE, GPU])
def test_spans_hold_what_their_members_give(how: Precision) -> None:
    """Any function of members lies in the span of the function: whatever a rounding error made of an operand."""
    rng = random.Random(5)
    ends = (-INF, -1e30, -3.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, INF)
    ops = {
        **dict.fromkeys(
            ("neg", "abs", "sign", "ceil", "floor", "exp", "log", "sqrt", "square", "reciprocal", "sin", "cos"), 1
        ),
        **dict.fromkeys(("tanh", "sigmoid", "softplus", "relu"), 1),
        **dict.fromkeys(("add", "sub", "mul", "div", "pow", "maximum", "minimum"), 2),
    }
    for _ in range(20_000):
        op, count = rng.choice(list(ops.items()))
        spans, members = [], []
        for _ in range(count):
            low, high = sorted(rng.choice(range(len(ends))) for _ in range(2))
            inside = ends[rng.randint(low, high)]
            may = rng.random() < 0.1
            spans.append(how.settled((ends[low], ends[high], may)))
            members.append(nan if may and rng.random() < 0.5 else inside)
        wide = apply(op, tuple(spans), how)
        point = apply(op, tuple(how.settled(exactly(m)) for m in members), how)
        joined = hull(wide, point)
        assert (joined[0], joined[1], joined[2]) == wide, (op, spans, members, wide, point)


def test_integers_wrap_and_casts_are_held() -> None:
    most = 2**31 - 1
    assert apply("add", ((most, most, False), (1, 1, False)), dtype="i32") == (-(2**31), -(2**31), False)
    assert apply("sub", ((3, 3, False), (5, 5, False)), dtype="u8") == (254, 254, False)
    assert apply("mul", ((65536, 65536, False), (65536, 65536, False)), dtype="i32") == (0, 0, False)
    for value, wanted in ((3e9, most), (-3e9, -most - 1), (nan, 0), (-0.9, 0), (2.9, 2), (-2.9, -2), (INF, most)):
        assert cast(exactly(value), "f32", "i32", CPU) == (wanted, wanted, False)
    assert cast(exactly(300.0), "f32", "u8", CPU) == (255, 255, False)
    assert cast(exactly(nan), "f32", "bool", CPU) == (1, 1, False)


def test_a_comparison_of_what_is_not_certain_is_either() -> None:
    assert apply("less", ((0.0, 2.0, False), (1.0, 1.0, False))) == (0, 1, False)
    assert apply("less", ((0.0, 0.5, True), (1.0, 1.0, False))) == (0, 1, False)
    assert apply("equal", (NAN, NAN)) == (0, 0, False)
    assert apply("less_equal", ((1.0, 1.0, False), (1.0, 1.0, False))) == (1, 1, False)


def test_sums_hold_every_order() -> None:
    big = [exactly(v) for v in (3e38, 3e38, -3e38, -3e38)]
    assert tensors.total(big, CPU) == ANYTHING
    assert tensors.total(big, DOUBLE)[0] <= 0 <= tensors.total(big, DOUBLE)[1]
    assert tensors.total([exactly(INF), exactly(-INF)], CPU) == NAN
    assert tensors.mean([], CPU) == NAN
    with pytest.raises(RefusedError):
        tensors.reduce("reduce_max", Tensor((0, 2), "f32", []), (0,), False, CPU)


def test_ids_outside_are_refused_and_uncertain_ones_undecided() -> None:
    table = Tensor((2,), "f32", [exactly(1.0), exactly(2.0)])
    with pytest.raises(RefusedError):
        tensors.gather(table, Tensor((), "i32", [(2, 2, False)]))
    with pytest.raises(UndecidedError):
        tensors.gather(table, Tensor((), "i32", [(1, 2, False)]))
    assert tensors.gather(table, Tensor((), "i32", [(0, 1, False)])).spans == [(1.0, 2.0, False)]


@pytest.mark.parametrize("op", ["image_l1", "image_ssim"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_image_gradients_are_differences(op: str, padding: str) -> None:
    shape = (12, 11, 1) if padding == "valid" else (3, 4, 2)
    rng = random.Random(1)
    a, b = ([rng.random() for _ in range(math.prod(shape))] for _ in "ab")

    def loss(a: list[float], b: list[float]) -> float:
        x, y = (Tensor(shape, "f64", [exactly(v) for v in values]) for values in (a, b))
        low, high, _ = images.compute(op, [x, y], {"padding": padding}, DOUBLE)[0].spans[0]
        assert high - low < 1e-12
        return (low + high) / 2

    operands = [Tensor(shape, "f64", [exactly(v) for v in values]) for values in (a, b)]
    made = images.compute(
        f"{op}_backward", [*operands, Tensor((), "f64", [exactly(1.0)])], {"padding": padding}, DOUBLE
    )
    step = 1e-5
    for k in rng.sample(range(len(a)), 5):
        for which, gradient in enumerate(made):
            pair = [list(a), list(b)]
            pair[which][k] += step
            above = loss(*pair)
            pair[which][k] -= 2 * step
            assert gradient.spans[k][0] == pytest.approx((above - loss(*pair)) / (2 * step), abs=1e-8)


def test_both_image_losses_at_once_are_each() -> None:
    rng = random.Random(2)
    a, b = (Tensor((3, 3, 2), "f64", [exactly(rng.random()) for _ in range(18)]) for _ in "ab")
    one = Tensor((), "f64", [exactly(1.0)])
    l1, ssim, slopes = images.compute("image_l1_ssim", [a, b], {"padding": "same"}, DOUBLE)
    assert l1.spans == images.compute("image_l1", [a, b], {}, DOUBLE)[0].spans
    assert ssim.spans == images.compute("image_ssim", [a, b], {"padding": "same"}, DOUBLE)[0].spans
    given = images.compute("image_l1_ssim_backward", [a, b, slopes, one, one], {"padding": "same"}, DOUBLE)
    parts = [
        images.compute(f"{n}_backward", [a, b, one], {"padding": "same"}, DOUBLE) for n in ("image_l1", "image_ssim")
    ]
    for found, first, second in zip(given, *parts, strict=True):
        for x, p, q in zip(found.spans, first.spans, second.spans, strict=True):
            assert x[0] == pytest.approx(p[0] + q[0], abs=1e-12)
