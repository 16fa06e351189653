"""Rows added by index, in order: in place if the runtime allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stipple.backends.host import checks
from stipple.backends.host.kernel import Dims
from stipple.ir.graph import Node

Array = np.ndarray


@dataclass(frozen=True)
class ScatterKernel:
    """Runs a scatter_add node."""

    node: Node
    name: str = "numpy.scatter_add"
    owns_outputs: bool = False

    def check(self, inputs: Sequence[Array], dims: Dims) -> None:
        checks.check(self.node, inputs, dims)

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array | None], dims: Dims) -> Sequence[Array]:
        base, ids, updates = inputs
        out = np.empty_like(base) if outputs[0] is None else outputs[0]
        if out is not base:
            np.copyto(out, base)
        with np.errstate(all="ignore"):  # infinities and NaN are values here
            np.add.at(out, ids, updates)
        return [out]
