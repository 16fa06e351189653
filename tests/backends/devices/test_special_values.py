"""Every line of docs/values.md on every device: alone, and inside a fused group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stipple import ir
from stipple.errors import GraphError, InputError
from stipple.runtime import Session

INF, NAN = float("inf"), float("nan")
BIG, HUGE = 3e38, 3.4028235e38
Build = Callable[..., ir.Value]


FLOATS: dict[str, tuple[Build, Sequence[tuple[float, ...]]]] = {
    "neg": (lambda x: -x, [(NAN, NAN), (INF, -INF), (-INF, INF), (0.0, -0.0), (-0.0, 0.0), (2.5, -2.5)]),
    "abs": (ir.abs, [(NAN, NAN), (INF, INF), (-INF, INF), (-0.0, 0.0), (0.0, 0.0), (-2.5, 2.5)]),
    "sign": (ir.sign, [(NAN, NAN), (INF, 1), (-INF, -1), (0.0, 0), (-0.0, 0), (-2.5, -1), (1e-30, 1)]),
    "floor": (ir.floor, [(NAN, NAN), (INF, INF), (-INF, -INF), (0.0, 0), (-0.0, 0), (-2.5, -3), (BIG, BIG)]),
    "exp": (ir.exp, [(NAN, NAN), (INF, INF), (-INF, 0), (0.0, 1), (-0.0, 1), (88.7, 3.326e38), (88.8, INF), (1e9, INF),
                     (-120.0, 0), (-BIG, 0), (BIG, INF)]),
    "log": (ir.log, [(NAN, NAN), (INF, INF), (-INF, NAN), (0.0, -INF), (-0.0, -INF), (-1.0, NAN), (1.0, 0),
                     (BIG, 88.596954)]),
    "sqrt": (ir.sqrt, [(NAN, NAN), (INF, INF), (-INF, NAN), (0.0, 0), (-0.0, 0), (-1.0, NAN), (4.0, 2)]),
    "square": (ir.square, [(NAN, NAN), (INF, INF), (-INF, INF), (0.0, 0), (1e30, INF), (-1e30, INF), (-2.0, 4)]),
    "reciprocal": (ir.reciprocal, [(NAN, NAN), (INF, 0.0), (-INF, -0.0), (0.0, INF), (-0.0, -INF), (-4.0, -0.25)]),
    "sin": (ir.sin, [(NAN, NAN), (INF, NAN), (-INF, NAN), (0.0, 0), (-0.0, 0)]),
    "cos": (ir.cos, [(NAN, NAN), (INF, NAN), (-INF, NAN), (0.0, 1), (-0.0, 1)]),
    "tanh": (ir.tanh, [(NAN, NAN), (INF, 1), (-INF, -1), (0.0, 0), (-0.0, 0), (100.0, 1), (-BIG, -1)]),
    "sigmoid": (ir.sigmoid, [(NAN, NAN), (INF, 1), (-INF, 0), (0.0, 0.5), (-0.0, 0.5), (200.0, 1), (-200.0, 0),
                             (BIG, 1), (-BIG, 0)]),
    "softplus": (ir.softplus, [(NAN, NAN), (INF, INF), (-INF, 0), (0.0, 0.6931472), (-0.0, 0.6931472), (200.0, 200),
                               (-200.0, 0), (BIG, BIG), (-BIG, 0)]),
    "relu": (ir.relu, [(NAN, NAN), (-NAN, NAN), (INF, INF), (-INF, 0), (0.0, 0), (-0.0, 0), (-BIG, 0), (BIG, BIG)]),
    "clamp": (lambda x: ir.clamp(x, -0.5, 0.8), [(NAN, NAN), (INF, 0.8), (-INF, -0.5), (0.0, 0), (BIG, 0.8)]),
    "clamp from below": (lambda x: ir.clamp(x, low=0.0), [(NAN, NAN), (INF, INF), (-INF, 0), (HUGE, HUGE), (-1.0, 0)]),
    "clamp from above": (lambda x: ir.clamp(x, high=0.0), [(NAN, NAN), (INF, 0), (-INF, -INF), (-BIG, -BIG), (1.0, 0)]),
    "clamp by nothing": (ir.clamp, [(NAN, NAN), (INF, INF), (-INF, -INF), (HUGE, HUGE), (-HUGE, -HUGE), (0.0, 0)]),
    "clamp at the largest": (lambda x: ir.clamp(x, -3.4e38, 3.4e38), [(HUGE, 3.4e38), (-INF, -3.4e38), (NAN, NAN)]),
    "add": (lambda a, b: a + b, [(NAN, 1.0, NAN), (1.0, NAN, NAN), (INF, INF, INF), (INF, -INF, NAN), (INF, 1.0, INF),
                                 (-0.0, 0.0, 0.0), (BIG, BIG, INF)]),
    "sub": (lambda a, b: a - b, [(NAN, 1.0, NAN), (1.0, NAN, NAN), (INF, INF, NAN), (INF, -INF, INF), (1.0, INF, -INF),
                                 (-BIG, BIG, -INF)]),
    "sub itself": (lambda x: x - x, [(NAN, NAN), (INF, NAN), (-INF, NAN), (BIG, 0), (0.0, 0)]),
    "mul": (lambda a, b: a * b, [(NAN, 0.0, NAN), (0.0, NAN, NAN), (INF, 0.0, NAN), (-0.0, INF, NAN), (INF, -2.0, -INF),
                                 (BIG, -10.0, -INF), (0.0, BIG, 0)]),
    "div": (lambda a, b: a / b, [(NAN, 1.0, NAN), (1.0, NAN, NAN), (INF, INF, NAN), (0.0, 0.0, NAN), (1.0, 0.0, INF),
                                 (1.0, -0.0, -INF), (-1.0, 0.0, -INF), (INF, 2.0, INF), (2.0, INF, 0), (INF, 0.0, INF),
                                 (0.0, 5.0, 0), (0.0, INF, 0)]),
    "div by itself": (lambda x: x / x, [(NAN, NAN), (INF, NAN), (-INF, NAN), (0.0, NAN), (-0.0, NAN), (3.0, 1)]),
    "maximum": (ir.maximum, [(NAN, 1.0, NAN), (1.0, NAN, NAN), (NAN, NAN, NAN), (NAN, INF, NAN), (-INF, NAN, NAN),
                             (INF, 1.0, INF), (-INF, 1.0, 1), (-INF, -INF, -INF), (0.0, -0.0, 0)]),
    "minimum": (ir.minimum, [(NAN, 1.0, NAN), (1.0, NAN, NAN), (NAN, NAN, NAN), (NAN, -INF, NAN), (INF, NAN, NAN),
                             (INF, 1.0, 1), (-INF, 1.0, -INF), (INF, INF, INF), (0.0, -0.0, 0)]),
    "pow": (lambda a, b: a**b, [
        (NAN, 0.0, 1), (NAN, -0.0, 1), (1.0, NAN, 1), (1.0, INF, 1), (1.0, -INF, 1), (NAN, 1.0, NAN), (2.0, NAN, NAN),
        (-1.0, INF, 1), (-1.0, -INF, 1), (0.0, 0.0, 1), (-0.0, 0.0, 1), (INF, 0.0, 1), (-3.0, 0.0, 1), (0.0, 2.0, 0),
        (0.0, 0.5, 0), (-0.0, 2.0, 0), (-0.0, 0.5, 0), (0.0, -1.0, INF), (0.0, -0.5, INF), (-0.0, -2.0, INF),
        (-0.0, -1.0, -INF), (0.0, INF, 0), (0.0, -INF, INF), (INF, 2.0, INF), (INF, 0.5, INF), (INF, -1.0, 0),
        (-INF, 2.0, INF), (-INF, 3.0, -INF), (-INF, 0.5, INF), (-INF, -3.0, 0), (2.0, INF, INF), (2.0, -INF, 0),
        (0.5, INF, 0), (0.5, -INF, INF), (-2.0, INF, INF), (-0.5, INF, 0), (INF, INF, INF), (INF, -INF, 0),
        (-2.0, 2.0, 4), (-2.0, 3.0, -8), (-2.0, -1.0, -0.5), (-2.0, 0.5, NAN), (-1.0, 1e30, 1), (-1.0, 0.5, NAN),
        (10.0, 39.0, INF), (-10.0, 39.0, -INF), (10.0, -60.0, 0), (2.0, 10.0, 1024), (9.0, 0.5, 3), (5.0, 1.0, 5),
    ]),
}  # fmt: skip
"""By name: how it is built, and rows of its operands and the result, all f32."""

TRUTHS: dict[str, tuple[Build, Sequence[tuple[float | bool, ...]]]] = {
    "less": (ir.less, [(NAN, 1.0, False), (1.0, NAN, False), (NAN, NAN, False), (-INF, INF, True), (INF, INF, False),
                       (BIG, INF, True), (-0.0, 0.0, False), (1.0, 2.0, True)]),
    "less_equal": (ir.less_equal, [(NAN, 1.0, False), (1.0, NAN, False), (NAN, NAN, False), (INF, INF, True),
                                   (INF, 1.0, False), (0.0, -0.0, True)]),
    "equal": (ir.equal, [(NAN, 1.0, False), (NAN, NAN, False), (INF, INF, True), (INF, -INF, False), (0.0, -0.0, True),
                         (1.0, 2.0, False)]),
    "equal to itself": (lambda x: ir.equal(x, x), [(NAN, False), (INF, True), (0.0, True)]),
    "isfinite": (ir.isfinite, [(NAN, False), (-NAN, False), (INF, False), (-INF, False), (-0.0, True), (HUGE, True)]),
}  # fmt: skip
"""The same where results are truth values."""

CASTS: Sequence[tuple[str, str, Sequence[float | bool], Sequence[float | bool]]] = [
    ("f32", "i32", [3e9, -3e9, 2.0**31, -(2.0**31), 2147483520.0, INF, -INF, NAN, 2.9, -2.9, -0.0],
     [2147483647, -2147483648, 2147483647, -2147483648, 2147483520, 2147483647, -2147483648, 0, 2, -2, 0]),
    ("f32", "u8", [-1.0, -INF, 255.9, 256.0, 1e30, INF, NAN, 2.9, -0.5], [0, 0, 255, 255, 255, 255, 0, 2, 0]),
    ("f32", "bool", [0.0, -0.0, NAN, INF, -INF, 0.25, -3.0], [False, False, True, True, True, True, True]),
    ("i32", "u8", [-5, 0, 255, 256, 2147483647, -2147483648], [0, 0, 255, 255, 255, 0]),
    ("i32", "f32", [-5, 2147483647, -2147483648], [-5, 2147483648.0, -2147483648.0]),
    ("i32", "bool", [-5, 0, 256], [True, False, True]),
    ("u8", "i32", [0, 3, 255], [0, 3, 255]),
    ("u8", "f32", [0, 3, 255], [0, 3, 255]),
    ("u8", "bool", [0, 3, 255], [False, True, True]),
    ("bool", "f32", [True, False], [1, 0]),
    ("bool", "i32", [True, False], [1, 0]),
    ("bool", "u8", [True, False], [1, 0]),
]  # fmt: skip
"""From, to, values, results."""

LARGEST = 2147483647
INTEGERS: Sequence[tuple[str, str, Build, Sequence[tuple[int | bool, ...]]]] = [
    ("add", "i32", lambda a, b: a + b, [(LARGEST, 1, -LARGEST - 1), (-5, 3, -2)]),
    ("sub", "i32", lambda a, b: a - b, [(-LARGEST - 1, 1, LARGEST), (3, 5, -2)]),
    ("mul", "i32", lambda a, b: a * b, [(65536, 65536, 0), (65536, 32768, -LARGEST - 1), (-3, 5, -15)]),
    ("maximum", "i32", ir.maximum, [(-LARGEST - 1, LARGEST, LARGEST), (-3, -5, -3)]),
    ("minimum", "i32", ir.minimum, [(-LARGEST - 1, LARGEST, -LARGEST - 1), (-3, -5, -5)]),
    ("less", "i32", ir.less, [(-LARGEST - 1, LARGEST, True), (16777217, 16777216, False), (3, 3, False)]),
    ("less_equal", "i32", ir.less_equal, [(3, 3, True), (16777217, 16777216, False)]),
    ("equal", "i32", ir.equal, [(16777217, 16777216, False), (-1, -1, True)]),
    ("add", "u8", lambda a, b: a + b, [(250, 10, 4), (255, 255, 254), (3, 4, 7)]),
    ("sub", "u8", lambda a, b: a - b, [(3, 5, 254), (0, 255, 1), (5, 3, 2)]),
    ("mul", "u8", lambda a, b: a * b, [(16, 16, 0), (255, 255, 1), (20, 13, 4), (3, 5, 15)]),
    ("maximum", "u8", ir.maximum, [(200, 100, 200), (0, 255, 255)]),
    ("minimum", "u8", ir.minimum, [(200, 100, 100), (0, 255, 0)]),
    ("less", "u8", ir.less, [(100, 200, True), (200, 100, False), (7, 7, False)]),
    ("less_equal", "u8", ir.less_equal, [(100, 200, True), (200, 100, False), (7, 7, True)]),
    ("equal", "u8", ir.equal, [(255, 255, True), (0, 255, False)]),
    ("equal", "bool", ir.equal, [(True, True, True), (True, False, False), (False, False, True)]),
    ("logical_and", "bool", ir.logical_and, [(True, True, True), (True, False, False), (False, False, False)]),
    ("logical_or", "bool", ir.logical_or, [(True, True, True), (True, False, True), (False, False, False)]),
    ("logical_not", "bool", ir.logical_not, [(True, False), (False, True)]),
]
"""Op, dtype, how it is built, rows of operands and result."""


def computed(session: Session, build: Build, operands: Sequence[np.ndarray], dtype: str, together: bool) -> np.ndarray:
    """What a device makes of operands: by the op alone, or by a group of which the op is the middle."""
    graph = ir.Graph("t")
    values = [graph.input(f"x{i}", ["N"], dtype) for i in range(len(operands))]
    feeds = {f"x{i}": a.astype(ir.DType.of(dtype).numpy) for i, a in enumerate(operands)}
    if not together:
        graph.output("out", build(*values))
        return session.compile(graph, passes=[]).run(feeds)["out"]
    result = build(*(_unchanged(v, feeds) for v in values))
    graph.output("out", _unchanged(result, feeds))
    executable = session.compile(graph)
    assert [d.op for d in executable.dispatch] == ["fused"]
    return executable.run(feeds)["out"]


def _unchanged(x: ir.Value, feeds: dict[str, np.ndarray]) -> ir.Value:
    """The same value, by an op that no compiler can leave out: times a one, or a falsehood, that is fed."""
    graph, name = x.graph, f"same_{x.dtype.value}"
    other = graph.inputs[name] if name in graph.inputs else graph.input(name, [1], x.dtype)
    feeds[name] = np.array([x.dtype is not ir.DType.BOOL], x.dtype.numpy)
    return ir.logical_or(x, other) if x.dtype is ir.DType.BOOL else x * other


both_ways = pytest.mark.parametrize("together", [False, True], ids=["alone", "fused"])


@both_ways
@pytest.mark.parametrize("name", FLOATS)
def test_floats(name: str, together: bool, any_session: Session) -> None:
    build, rows = FLOATS[name]
    *operands, wanted = np.array(rows, np.float32).T
    given = computed(any_session, build, operands, "f32", together)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, wanted, rtol=1e-4, err_msg=str(rows))


@pytest.mark.parametrize("name", ["neg", "abs", "reciprocal", "add"])
def test_signs_of_zeros(name: str, any_session: Session) -> None:
    """Where the page names them."""
    build, rows = FLOATS[name]
    *operands, wanted = np.array(rows, np.float32).T
    given = computed(any_session, build, operands, "f32", False)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(given[zeros]), np.signbit(wanted[zeros]))


@both_ways
@pytest.mark.parametrize("name", TRUTHS)
def test_truths(name: str, together: bool, any_session: Session) -> None:
    build, rows = TRUTHS[name]
    operands = list(np.array([row[:-1] for row in rows], np.float32).T)
    given = computed(any_session, build, operands, "f32", together)
    assert given.dtype == bool
    assert given.tolist() == [row[-1] for row in rows]


@both_ways
@pytest.mark.parametrize(("source", "target", "values", "wanted"), CASTS, ids=[f"{c[0]} to {c[1]}" for c in CASTS])
def test_casts(
    source: str, target: str, values: list[float], wanted: list[float], together: bool, any_session: Session
) -> None:
    operand = np.array(values, ir.DType.of(source).numpy)
    given = computed(any_session, lambda x: ir.cast(x, target), [operand], source, together)
    assert given.dtype == ir.DType.of(target).numpy
    assert given.tolist() == wanted


@both_ways
@pytest.mark.parametrize(("op", "dtype", "build", "rows"), INTEGERS, ids=[f"{c[0]} {c[1]}" for c in INTEGERS])
def test_integers_and_truths(
    op: str, dtype: str, build: Build, rows: Sequence[tuple[int, ...]], together: bool, any_session: Session
) -> None:
    made = ir.DType.of(dtype)
    operands = [np.array(column, made.numpy) for column in list(zip(*rows, strict=True))[:-1]]
    given = computed(any_session, build, operands, dtype, together)
    assert given.tolist() == [row[-1] for row in rows]


def test_where_takes_what_is_chosen_and_nothing_else(any_session: Session) -> None:
    def build(a: ir.Value, b: ir.Value) -> ir.Value:
        return ir.where(a > 0.0, a, b)

    rows = [(1.0, NAN, 1), (-1.0, NAN, NAN), (INF, NAN, INF), (NAN, 2.0, 2), (-INF, 3.0, 3), (0.0, -INF, -INF)]
    *operands, wanted = np.array(rows, np.float32).T
    for together in (False, True):
        np.testing.assert_array_equal(computed(any_session, build, operands, "f32", together), wanted)


REDUCTIONS: Sequence[tuple[str, Sequence[float], float]] = [
    ("sum", [1, NAN, 2], NAN), ("sum", [INF, 1, 2], INF), ("sum", [INF, -INF, 1], NAN), ("sum", [BIG, BIG, 0], INF),
    ("sum", [], 0), ("mean", [1, NAN], NAN), ("mean", [INF, 1], INF), ("mean", [-INF, INF], NAN), ("mean", [], NAN),
    ("reduce_max", [1, NAN, 2], NAN), ("reduce_max", [NAN, 1], NAN), ("reduce_max", [INF, NAN], NAN),
    ("reduce_max", [-INF, -INF], -INF), ("reduce_max", [-INF, -3], -3), ("reduce_max", [INF, 1], INF),
    ("reduce_max", [-HUGE, -INF], -HUGE), ("reduce_min", [1, NAN, 2], NAN), ("reduce_min", [1, NAN], NAN),
    ("reduce_min", [-INF, NAN], NAN), ("reduce_min", [INF, INF], INF), ("reduce_min", [INF, 3], 3),
    ("reduce_min", [-INF, 1], -INF), ("reduce_min", [HUGE, INF], HUGE),
]  # fmt: skip


@pytest.mark.parametrize("length", ["short", "long"])
@pytest.mark.parametrize(("op", "values", "wanted"), REDUCTIONS, ids=[f"{r[0]} {r[1]}" for r in REDUCTIONS])
def test_reductions(op: str, values: Sequence[float], wanted: float, length: str, any_session: Session) -> None:
    """Few elements to one, and many, in which the values stand at the end."""
    if length == "long":
        neutral = {"sum": 0.0, "mean": None, "reduce_max": values[0], "reduce_min": values[0]}[op] if values else None
        if neutral is None:
            return
        values = [neutral] * 9_000 + list(values)
    graph = ir.Graph("t")
    x = graph.input("x", ["N", 2])
    graph.output("out", getattr(ir, op)(x, 0))
    column = np.array(values, np.float32)
    given = any_session.compile(graph, passes=[]).run({"x": np.stack([column, np.ones_like(column)], 1)})["out"]
    np.testing.assert_allclose(given[0], np.float32(wanted), rtol=1e-6)
    if op != "sum" and values:
        assert given[1] == 1, "the other column is left alone"


@pytest.mark.parametrize("op", ["reduce_max", "reduce_min"])
def test_extremes_of_nothing(op: str, any_session: Session) -> None:
    graph = ir.Graph("t")
    graph.output("out", getattr(ir, op)(graph.input("x", ["N", 2]), 0))
    with pytest.raises(InputError, match=f"{op}: no element along an axis of"):
        any_session.compile(graph).run({"x": np.zeros((0, 2), np.float32)})


@pytest.mark.parametrize("inner", [3, 2000])
def test_products(inner: int, any_session: Session) -> None:
    graph = ir.Graph("t")
    a, b = graph.input("a", ["M", "K"]), graph.input("b", ["K", 1])
    graph.output("out", a @ b)
    rows = np.zeros((6, inner), np.float32)
    rows[:, -3:] = [[1, NAN, 1], [INF, 1, 1], [INF, -INF, 1], [1, 1, INF], [BIG, BIG, BIG], [1, 1, 1]]
    executable = any_session.compile(graph, passes=[])
    column = np.ones((inner, 1), np.float32)
    given = executable.run({"a": rows, "b": column})["out"][:, 0]
    np.testing.assert_array_equal(given, [NAN, INF, NAN, INF, INF, 3])
    column[-1] = 0
    assert np.isnan(executable.run({"a": rows, "b": column})["out"][3, 0]), "infinity times 0"
    of_nothing = executable.run({"a": np.zeros((2, 0), np.float32), "b": np.zeros((0, 1), np.float32)})["out"]
    np.testing.assert_array_equal(of_nothing, np.zeros((2, 1)))


def test_sums_by_index(any_session: Session) -> None:
    graph = ir.Graph("t")
    base, updates = graph.input("base", [4]), graph.input("updates", [4])
    graph.output("out", ir.scatter_add(base, graph.constant(np.array([0, 1, 1, 2], np.int32)), updates))
    feeds = {"base": np.array([1, 2, -INF, NAN], np.float32), "updates": np.array([NAN, INF, 1, INF], np.float32)}
    given = any_session.compile(graph, passes=[]).run(feeds)["out"]
    np.testing.assert_array_equal(given, [NAN, INF, NAN, NAN])


GRADIENTS: dict[str, tuple[Build, Sequence[float], Sequence[float]]] = {
    "abs": (ir.abs, [-2, 0, -0.0, 2], [-1, 0, 0, 1]),
    "relu": (ir.relu, [-2, 0, -0.0, 2], [0, 0, 0, 1]),
    "sign": (ir.sign, [-2, 0, 2], [0, 0, 0]),
    "floor": (ir.floor, [-2.5, 0, 2.5], [0, 0, 0]),
    "comparison": (lambda x: ir.cast(x < 1.0, "f32"), [-2, 1, 2], [0, 0, 0]),
    "maximum": (lambda x: ir.maximum(x, 1.0), [0, 1, 2], [0, 0.5, 1]),
    "minimum": (lambda x: ir.minimum(x, 1.0), [0, 1, 2], [1, 0.5, 0]),
    "maximum of itself": (lambda x: ir.maximum(x, x), [0, 1, 2], [1, 1, 1]),
    "reduce_max": (ir.reduce_max, [3, 1, 3, 2], [0.5, 0, 0.5, 0]),
    "reduce_min": (ir.reduce_min, [1, 1, 3, 1], [1 / 3, 1 / 3, 0, 1 / 3]),
    "clamp": (lambda x: ir.clamp(x, -1.0, 1.0), [-2, -1, 0, 1, 2, INF], [0, 1, 1, 1, 0, 0]),
    "clamp by nothing": (ir.clamp, [-2, 0, HUGE], [1, 1, 1]),
    "pow 0": (lambda x: x**0.0, [-2, 0, 2, INF], [0, 0, 0, 0]),
    "pow 1": (lambda x: x**1.0, [-2, 0, 2], [1, 1, 1]),
    "pow 2": (lambda x: x**2.0, [-2, 0, 2], [-4, 0, 4]),
    "pow 0.5": (lambda x: x**0.5, [0, 4], [INF, 0.25]),
    "pow in the exponent": (lambda x: x.graph.constant(np.float32([-2, 0, 1, 2])) ** x, [2, 2, 2, 1],
                            [0, 0, 0, 1.3862944]),
    "sqrt": (ir.sqrt, [0, 4], [INF, 0.25]),
    "log": (ir.log, [0, 4], [INF, 0.25]),
    "reciprocal": (ir.reciprocal, [0, 2], [-INF, -0.25]),
}  # fmt: skip
"""By name: how it is built, the operand, and the gradient of the results' sum."""


@both_ways
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, together: bool, any_session: Session) -> None:
    build, values, wanted = GRADIENTS[name]
    graph = ir.Graph("t")
    x = graph.input("x", [len(values)])
    graph.output("v", ir.grad(graph, ir.sum(build(x)), [x])[0])
    given = any_session.compile(graph, passes=None if together else []).run({"x": np.array(values, np.float32)})["v"]
    np.testing.assert_allclose(given, np.array(wanted, np.float32), rtol=1e-4)


def test_arithmetic_and_order_need_numbers() -> None:
    graph = ir.Graph("t")
    a, b = graph.input("a", [2], "bool"), graph.input("b", [2], "bool")
    for build in (ir.maximum, ir.minimum, ir.less, ir.less_equal, lambda a, b: a + b, lambda a, b: a - b):
        with pytest.raises(GraphError):
            build(a, b)


@pytest.mark.parametrize(
    ("dtype", "number"), [("i32", 0.5), ("u8", 300), ("u8", -1), ("bool", 1), ("i32", 2**31), ("i32", NAN)]
)
def test_numbers_that_a_dtype_does_not_have(dtype: str, number: float) -> None:
    graph = ir.Graph("t")
    with pytest.raises(GraphError):
        _ = graph.input("x", [2], dtype) + number


def test_whole_numbers_join_integers(any_session: Session) -> None:
    graph = ir.Graph("t")
    graph.output("out", graph.input("x", [2], "i32") * 2.0)
    assert any_session.compile(graph).run({"x": np.array([3, -4], np.int32)})["out"].tolist() == [6, -8]
