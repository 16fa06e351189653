"""Dimensions, shapes and tensor types.

A dimension is an integer polynomial over named symbols: ``16``, ``N``, ``14*N``, ``4*H*W + 3``. Two dimensions are
equal if their polynomials are; a symbol gets its value when a graph runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union, cast

from stipple.errors import GraphError
from stipple.ir.dtype import DType

MAX_RANK = 8
MAX_TERMS = 64
MAX_DEGREE = 16
MAX_SYMBOL = 40
_MAX_MAGNITUDE = 1 << 62
_MAX_TEXT = MAX_TERMS * (20 + MAX_DEGREE * (MAX_SYMBOL + 12))
"""No dimension within the limits above is written with more characters."""

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[0-9]{1,10})?\Z")
_USER_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

DimLike = Union["Dim", int, str]
ShapeLike = Iterable[DimLike]
_Monomial = tuple[str, ...]


class Dim:
    """One dimension: a polynomial with integer coefficients over symbols. Immutable and hashable."""

    __slots__ = ("_terms",)
    _terms: tuple[tuple[_Monomial, int], ...]

    def __init__(self, terms: Mapping[_Monomial, int]) -> None:
        kept = {m: c for m, c in terms.items() if c != 0}
        if any(abs(c) > _MAX_MAGNITUDE for c in kept.values()):
            raise GraphError(f"dimension: coefficient beyond ±{_MAX_MAGNITUDE}")
        if len(kept) > MAX_TERMS or any(len(m) > MAX_DEGREE for m in kept):
            raise GraphError(f"dimension: more than {MAX_TERMS} terms, or more than {MAX_DEGREE} symbols in one")
        ordered = sorted(kept.items(), key=lambda item: (-len(item[0]), item[0]))
        object.__setattr__(self, "_terms", tuple(ordered))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Dim is immutable")

    @staticmethod
    def of(value: DimLike) -> Dim:
        """Dim for an int, a symbol name, or text such as ``"3*N + 4"``."""
        if isinstance(value, Dim):
            return value
        if isinstance(value, bool) or (not isinstance(value, (int, str)) and not hasattr(value, "__index__")):
            raise GraphError(f"dimension: expected an int or a symbol name, got {value!r}")
        if isinstance(value, str):
            return Dim._parse(value)
        return Dim({(): int(value)})

    @staticmethod
    def _parse(text: str) -> Dim:
        if len(text) > _MAX_TEXT:
            raise GraphError(f"dimension: text of {len(text)} characters; no dimension needs more than {_MAX_TEXT}")
        terms: dict[_Monomial, int] = {}
        for part in text.replace("- ", "+ -").split("+"):
            coefficient, symbols = 1, []
            factors = part.strip().split("*")
            if factors[0].startswith("-") and not factors[0][1:2].isdigit():
                coefficient, factors[0] = -1, factors[0][1:]
            for factor in (f.strip() for f in factors):
                if re.fullmatch(r"-?[0-9]{1,19}", factor):
                    coefficient *= int(factor)
                elif _SYMBOL.match(factor):
                    if len(factor.partition(".")[0]) > MAX_SYMBOL:
                        raise GraphError(f"dimension: symbols have at most {MAX_SYMBOL} characters, got {factor!r:.80}")
                    symbols.append(factor)
                else:
                    raise GraphError(f"dimension: expected an int, a symbol or text like '3*N + 4', got {text!r:.80}")
            key = tuple(sorted(symbols))
            terms[key] = terms.get(key, 0) + coefficient
        return Dim(terms)

    @property
    def value(self) -> int | None:
        """The number, or None if the dimension depends on a symbol."""
        if not self._terms:
            return 0
        if len(self._terms) == 1 and self._terms[0][0] == ():
            return self._terms[0][1]
        return None

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(s for monomial, _ in self._terms for s in monomial)

    @property
    def symbol(self) -> str | None:
        """The symbol's name if the dimension is one bare symbol, else None."""
        if len(self._terms) == 1:
            monomial, coefficient = self._terms[0]
            if coefficient == 1 and len(monomial) == 1:
                return monomial[0]
        return None

    def resolve(self, bindings: Mapping[str, int]) -> int:
        """The number for the given symbol values. Raises GraphError for an unbound symbol."""
        total = 0
        for monomial, coefficient in self._terms:
            product = coefficient
            for name in monomial:
                if name not in bindings:
                    raise GraphError(f"dimension {self}: symbol {name} has no value")
                product *= bindings[name]
            total += product
        return total

    def substitute(self, values: Mapping[str, Dim]) -> Dim:
        """The dimension with some symbols replaced."""
        if not self.symbols & values.keys():
            return self
        total = Dim.of(0)
        for monomial, coefficient in self._terms:
            product = Dim.of(coefficient)
            for name in monomial:
                product = product * values.get(name, name)
            total = total + product
        return total

    def __add__(self, other: DimLike) -> Dim:
        terms = dict(self._terms)
        for monomial, coefficient in Dim.of(other)._terms:
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Dim(terms)

    def __mul__(self, other: DimLike) -> Dim:
        terms: dict[_Monomial, int] = {}
        for m1, c1 in self._terms:
            for m2, c2 in Dim.of(other)._terms:
                key = tuple(sorted(m1 + m2))
                terms[key] = terms.get(key, 0) + c1 * c2
        return Dim(terms)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: DimLike) -> Dim:
        return self + -Dim.of(other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: DimLike) -> Dim:
        return Dim.of(other) - self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, str)) and not isinstance(other, bool):
            other = Dim.of(other)
        return isinstance(other, Dim) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)

    def __str__(self) -> str:
        if not self._terms:
            return "0"
        parts = []
        for monomial, coefficient in self._terms:
            if not monomial:
                parts.append(str(coefficient))
            elif coefficient == 1:
                parts.append("*".join(monomial))
            elif coefficient == -1:
                parts.append("-" + "*".join(monomial))
            else:
                parts.append("*".join((str(coefficient), *monomial)))
        return " + ".join(parts)

    def __repr__(self) -> str:
        return f"Dim({str(self)!r})"

    def to_json(self) -> int | str:
        number = self.value
        return str(self) if number is None else number


def is_generated(symbol: str) -> bool:
    """Whether a symbol was made by a node, for a size known only after it has run."""
    return "." in symbol


def check_user_symbol(name: str) -> None:
    """Raise GraphError unless ``name`` may be used as a symbol by a caller (no dot: those are generated)."""
    if not _USER_SYMBOL.match(name):
        raise GraphError(f"dimension: symbol names are letters, digits and _, got {name!r}")


class Shape(tuple[Dim, ...]):
    """An immutable sequence of dimensions."""

    __slots__ = ()

    def __new__(cls, dims: ShapeLike = ()) -> Shape:
        if isinstance(dims, str):
            raise GraphError(f"shape: expected a sequence of dimensions, got the text {dims!r}")
        try:
            result = tuple(Dim.of(d) for d in dims)
        except TypeError:
            raise GraphError(f"shape: expected a sequence of dimensions, got {dims!r}") from None
        if len(result) > MAX_RANK:
            raise GraphError(f"shape: at most {MAX_RANK} dimensions, got {len(result)}")
        for dim in result:
            number = dim.value
            if number is not None and number < 0:
                raise GraphError(f"shape: dimensions are not negative, got {number}")
        return super().__new__(cls, result)

    @property
    def rank(self) -> int:
        return len(self)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        total = Dim.of(1)
        for dim in self:
            total = total * dim
        return total

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(s for d in self for s in d.symbols)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape as ints, or None if it depends on a symbol."""
        numbers = tuple(d.value for d in self)
        return None if None in numbers else cast("tuple[int, ...]", numbers)

    def resolve(self, bindings: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(d.resolve(bindings) for d in self)

    def substitute(self, values: Mapping[str, Dim]) -> Shape:
        """The shape with some symbols replaced."""
        return Shape(d.substitute(values) for d in self) if self.symbols & values.keys() else self

    def to_json(self) -> list[int | str]:
        return [d.to_json() for d in self]

    def __str__(self) -> str:
        return "[" + ", ".join(str(d) for d in self) + "]"

    def __repr__(self) -> str:
        return f"Shape({self!s})"

    def __iter__(self) -> Iterator[Dim]:
        return super().__iter__()


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype.value}{self.shape}"

    def may_follow(self, earlier: TensorType) -> bool:
        """Whether a parameter of the type ``earlier`` may take a value of this type: its symbolic dimensions are
        free."""
        return (
            self.dtype is earlier.dtype
            and self.shape.rank == earlier.shape.rank
            and all(new == old or old.symbol is not None for new, old in zip(self.shape, earlier.shape, strict=True))
        )


def broadcast_shapes(first: Shape, second: Shape) -> Shape | None:
    """The shape both broadcast to under NumPy's rule, or None.

    Symbols must agree: ``N`` with ``N`` or with 1, never with ``M`` or 5, because they may differ at run time.
    """
    rank = max(first.rank, second.rank)
    one = Dim.of(1)
    dims: list[Dim] = []
    for i in range(rank):
        a = first[i - rank + first.rank] if i >= rank - first.rank else one
        b = second[i - rank + second.rank] if i >= rank - second.rank else one
        if b in (a, 1):
            dims.append(a)
        elif a == 1:
            dims.append(b)
        else:
            return None
    return Shape(dims)
