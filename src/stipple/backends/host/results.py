"""Putting results into the buffers that the runtime planned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fill(made: Sequence[np.ndarray], planned: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Each result copied into its planned buffer, or as it is where none is planned."""
    results = []
    for array, buffer in zip(made, planned, strict=True):
        if buffer is not None:
            np.copyto(buffer, array, casting="unsafe")
        results.append(array if buffer is None else buffer)
    return results
