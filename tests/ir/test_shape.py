"""Dimensions, shapes and dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stipple.errors import GraphError
from stipple.ir import Dim, DType, Shape
from stipple.ir.shape import MAX_DEGREE, MAX_SYMBOL, MAX_TERMS, broadcast_shapes

SYMBOLS = ("N", "H", "W")
polynomials = st.recursive(
    st.one_of(st.integers(-9, 9).map(Dim.of), st.sampled_from(SYMBOLS).map(Dim.of)),
    lambda inner: st.tuples(inner, inner, st.sampled_from("+-*")).map(
        lambda t: {"+": t[0] + t[1], "-": t[0] - t[1], "*": t[0] * t[1]}[t[2]]
    ),
    max_leaves=6,
)
bindings = st.fixed_dictionaries({s: st.integers(0, 50) for s in SYMBOLS})


@given(polynomials, polynomials, bindings)
def test_arithmetic_is_that_of_the_numbers(a: Dim, b: Dim, values: dict[str, int]) -> None:
    x, y = a.resolve(values), b.resolve(values)
    assert (a + b).resolve(values) == x + y
    assert (a - b).resolve(values) == x - y
    assert (a * b).resolve(values) == x * y


@given(polynomials)
def test_text_reads_back(dim: Dim) -> None:
    assert Dim.of(str(dim)) == dim
    assert Dim.of(dim.to_json()) == dim


def test_every_dimension_that_can_be_made_reads_back() -> None:
    """The longest names, the most symbols, the most terms."""
    names = [f"{chr(97 + i)}".ljust(MAX_SYMBOL, "x") for i in range(MAX_DEGREE)]
    product = Dim.of(1)
    for name in names:
        product = product * name
    total = product * (1 << 61)
    for i in range(MAX_TERMS - 1):
        total = total - Dim.of(f"s{i}".ljust(MAX_SYMBOL, "y")) * ((1 << 62) - i)
    assert Dim.of(str(total)) == total


def test_polynomials_have_a_limit() -> None:
    """Products of sums would grow beyond every bound: a file of a few KB must not take minutes."""
    names = [f"s{i}" for i in range(60)]
    long = sum((Dim.of(n) for n in names), Dim.of(0))
    with pytest.raises(GraphError, match="more than 64 terms"):
        Shape([long] * 8).size  # noqa: B018
    with pytest.raises(GraphError, match="more than 64 terms, or more than 16 symbols in one"):
        Dim.of("*".join("N" * 17))
    with pytest.raises(GraphError, match="symbols have at most 40 characters"):
        Dim.of("N" * 41)


def test_equal_polynomials_are_equal() -> None:
    n = Dim.of("N")
    assert n * 3 + n == 4 * n
    assert (n - n).value == 0
    assert hash(n + 1) == hash(1 + n)
    assert n != "M"
    assert n.symbol == "N"
    assert (2 * n).symbol is None


@pytest.mark.parametrize("bad", ["", "3N", "N M", "a-b", "N ** 2", "*", "1.5", "N" * 300, 1.5, True, None, []])
def test_bad_dimensions(bad: object) -> None:
    with pytest.raises(GraphError, match="dimension"):
        Dim.of(bad)  # type: ignore[arg-type]


def test_coefficients_have_a_limit() -> None:
    with pytest.raises(GraphError, match="beyond"):
        Dim.of(1 << 60) * 100


def test_shapes() -> None:
    shape = Shape(["N", 3])
    assert str(shape) == "[N, 3]"
    assert str(shape.size) == "3*N"
    assert shape.static is None
    assert Shape([2, 3]).static == (2, 3)
    assert shape.resolve({"N": 5}) == (5, 3)
    for bad in ([-1], [1] * 9, "N3", 7):
        with pytest.raises(GraphError, match="shape"):
            Shape(bad)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="no value"):
        shape.resolve({})


@given(st.lists(st.integers(1, 3), max_size=4), st.lists(st.integers(1, 3), max_size=4))
def test_broadcasting_is_numpys(a: list[int], b: list[int]) -> None:
    try:
        wanted = np.broadcast_shapes(tuple(a), tuple(b))
    except ValueError:
        wanted = None
    made = broadcast_shapes(Shape(a), Shape(b))
    assert (None if made is None else made.static) == wanted


def test_symbols_broadcast_only_with_themselves_and_one() -> None:
    assert broadcast_shapes(Shape(["N", 1]), Shape([3])) == Shape(["N", 3])
    assert broadcast_shapes(Shape(["N"]), Shape(["M"])) is None
    assert broadcast_shapes(Shape(["N"]), Shape([5])) is None


def test_dtypes() -> None:
    for dtype in DType:
        assert DType.of(dtype.value) is dtype
        assert DType.of(dtype.numpy) is dtype
    with pytest.raises(GraphError, match="expected one of"):
        DType.of(np.complex64)
