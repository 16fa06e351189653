"""A few hundred random graphs on every device. ``STIPPLE_FUZZ_SEED`` chooses others; ``run.py`` runs thousands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import session_on
from fuzz import check
from fuzz.check import VARIANTS, Tally, Variant
from fuzz.derivatives import compare
from fuzz.oracle import KNOWN_OPS
from fuzz.run import fuzz_one
from fuzz.splats import ELSEWHERE
from stipple import ir
from stipple.backends.reference import ReferenceBackend
from stipple.runtime import Kernel, Session

SEED = int(os.environ.get("STIPPLE_FUZZ_SEED", "0"))
ON_HOST = [v for v in VARIANTS if v.device != "gpu"]
ON_GPU = [v for v in VARIANTS if v.device == "gpu"]


def fuzz(first: int, count: int, variants: Sequence[Variant]) -> Tally:
    """Random graphs, or a failure with the smallest graph that is wrong, and how to see it again."""
    tally = Tally()
    devices = ",".join(dict.fromkeys(v.device for v in variants))
    for seed in range(first, first + count):
        text = fuzz_one(seed, variants, tally)
        if text:
            pytest.fail(
                f"{text}\n\nagain: python tests/fuzz/run.py --seed {seed} --graphs 1 --devices {devices}", pytrace=False
            )
    return tally


@pytest.mark.parametrize("part", range(12))
def test_random_graphs(part: int) -> None:
    tally = fuzz(SEED + 25 * part, 25, ON_HOST)
    assert tally.sharp > 0.93 * tally.elements, f"spans are too wide to find anything: {tally}"


@pytest.mark.parametrize("part", range(4))
def test_random_graphs_on_the_gpu(part: int) -> None:
    session_on("gpu")
    fuzz(SEED + 7000 + 8 * part, 8, ON_GPU)


def test_gradients_are_differences() -> None:
    found = [compare(seed) for seed in range(SEED, SEED + 400)]
    wrong = [seed for seed, c in enumerate(found, SEED) if c is not None and not c.agrees]
    assert not wrong, f"seeds {wrong}: {[(c.gradient, c.difference) for c in found if c is not None and not c.agrees]}"
    assert sum(c is not None and c.difference is not None for c in found) > 150


def test_the_oracle_knows_every_op() -> None:
    """Whoever adds an op writes it for the oracle too."""
    assert set(ir.REGISTRY) == KNOWN_OPS | ELSEWHERE


def test_one_number_is_one_graph() -> None:
    from fuzz.generate import random_program

    assert str(random_program(11).graph) == str(random_program(11).graph) != str(random_program(12).graph)


class _Off:
    """A kernel whose results are off in the 5th digit."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)

    def __call__(self, *operands: Any) -> Sequence[np.ndarray]:
        made = self.kernel(*operands)
        made[0][...] *= 1.00001
        return made


class _Wrong(ReferenceBackend):
    """The reference, but for its hyperbolic tangent."""

    def kernel(self, node: ir.Node) -> Kernel | None:
        kernel = super().kernel(node)
        return _Off(kernel) if node.op == "tanh" and kernel is not None else kernel


def test_a_wrong_kernel_is_found_and_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Session(_Wrong())
    monkeypatch.setattr(check, "session", lambda device: wrong)
    texts = (fuzz_one(seed, VARIANTS[:1], Tally()) for seed in range(100))
    text = next(text for text in texts if "tanh" in text)
    assert "expected" in text
    assert "(2 nodes)" in text, "a source and the wrong op are left"
