"""Functions keep what is small: their relative error is, not the absolute."""

from __future__ import annotations

import numpy as np
import pytest

from stipple import ir
from stipple.runtime import Session

SIZES = np.concatenate([np.logspace(-30, 1.9, 300), [0.1, 0.6249, 0.625, 0.6251]])
CASES = {"softplus": (ir.softplus, lambda x: np.logaddexp(0, x)), "tanh": (ir.tanh, np.tanh)}


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", CASES)
def test_relative_error(name: str, sign: int, session: Session) -> None:
    op, exact = CASES[name]
    x = (sign * SIZES).astype(np.float32)
    graph = ir.Graph("t")
    graph.output("y", op(graph.input("x", x.shape)))
    y = session.compile(graph).run({"x": x})["y"]
    np.testing.assert_allclose(y, exact(x.astype(np.float64)), rtol=1e-5)
