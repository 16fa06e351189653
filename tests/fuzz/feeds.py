"""Random arrays for inputs, parameters and constants: tame ones, ties, and every special value."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np

TINY = 2.0**-149
SPECIAL = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, math.nan, math.inf, -math.inf, 3.4028234663852886e38, -3.4028234663852886e38,
    1e38, 1e20, -1e20, 1e-20, 2.0**-126, 2.0**-130, -TINY, TINY, 16777216.0, 16777217.0, 2147483648.0, -2147483648.0,
    4294967296.0, 255.0, 256.0, -0.99, 88.8, -88.8, 103.5, 100000.0,
)  # fmt: skip
INTEGERS = (0, 1, -1, 2, 3, 255, 256, -128, 46341, 65536, 2**31 - 1, -(2**31), -(2**31) + 1)


def _tame(rng: random.Random) -> float:
    return rng.uniform(-2, 2)


def _positive(rng: random.Random) -> float:
    return rng.uniform(0.05, 3)


def _ties(rng: random.Random) -> float:
    return rng.choice((-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0))


def _special(rng: random.Random) -> float:
    return rng.choice(SPECIAL)


def _mixed(rng: random.Random) -> float:
    return rng.choice(SPECIAL) if rng.random() < 0.3 else rng.uniform(-3, 3)


def _wide(rng: random.Random) -> float:
    return rng.choice((-1, 1)) * 10 ** rng.uniform(-6, 6)


_FLOATS: tuple[tuple[Callable[[random.Random], float], float], ...] = (
    (_tame, 5),
    (_positive, 3),
    (_ties, 3),
    (_mixed, 2),
    (_special, 1),
    (_wide, 1),
)


def array(rng: random.Random, shape: tuple[int, ...], dtype: str, kind: str = "any") -> np.ndarray:
    """A random array. ``kind`` is any, tame (finite, small), unit (0 to 1), or ids:N (indices below N, often all)."""
    count = math.prod(shape)
    if dtype == "bool":
        values: list[float] = [rng.random() < 0.5 for _ in range(count)]
    elif kind.startswith("ids:"):
        values = _ids(rng, count, int(kind[4:]))
    elif dtype == "i32":
        whole = rng.random() < 0.3
        values = [rng.choice(INTEGERS) if whole else rng.randint(-4, 9) for _ in range(count)]
    elif dtype == "u8":
        values = [rng.randint(0, 255) if rng.random() < 0.5 else rng.choice((0, 1, 3, 254, 255)) for _ in range(count)]
    elif kind == "unit":
        values = [rng.random() for _ in range(count)]
    else:
        choices = _FLOATS if kind == "any" else _FLOATS[:3]
        draw = rng.choices([f for f, _ in choices], [w for _, w in choices])[0]
        values = [draw(rng) for _ in range(count)]
    names = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "u8": np.uint8, "bool": np.bool_}
    return np.array(values, dtype=names[dtype]).reshape(shape)


def _ids(rng: random.Random, count: int, rows: int) -> list[float]:
    """Indices; now and then one outside."""
    found: list[float] = [rng.randrange(rows) if rows else 0 for _ in range(count)]
    if count and rng.random() < 0.06:
        found[rng.randrange(count)] = rng.choice((-1, rows, 2**31 - 1, -(2**31)))
    return found
