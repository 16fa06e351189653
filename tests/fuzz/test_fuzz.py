"""A few hundred random graphs on every device. ``STIPPLE_FUZZ_SEED`` chooses others; ``run.py`` runs thousands."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import session_on
from fuzz import check, splat_ops
from fuzz.check import VARIANTS, Tally, Variant
from fuzz.derivatives import compare
from fuzz.generate import random_program
from fuzz.oracle import KNOWN_OPS
from fuzz.run import SPLATS, fuzz_one
from stipple import ir
from stipple.backends.reference import ReferenceBackend
from stipple.runtime import Kernel, Session

SEED = int(os.environ.get("STIPPLE_FUZZ_SEED", "0"))
ON_HOST = [v for v in VARIANTS if v.device != "gpu"]
ON_GPU = [v for v in VARIANTS if v.device == "gpu"]


def fuzz(first: int, count: int, variants: Sequence[Variant], step: int = 1) -> Tally:
    """Random graphs, or a failure with the smallest graph that is wrong, and how to see it again."""
    tally = Tally()
    devices = ",".join(dict.fromkeys(v.device for v in variants))
    for seed in range(first, first + count * step, step):
        text = fuzz_one(seed, variants, tally)
        if text:
            pytest.fail(
                f"{text}\n\nagain: python tests/fuzz/run.py --seed {seed} --graphs 1 --devices {devices}", pytrace=False
            )
    return tally


@pytest.mark.parametrize("part", range(12))
def test_random_graphs(part: int) -> None:
    tally = fuzz(SEED + 25 * part, 25, ON_HOST)
    # 0.98 over many graphs
    assert tally.sharp > 0.93 * tally.elements, f"spans are too wide to find anything: {tally}"


@pytest.mark.parametrize(("kind", "count"), [(SPLATS - 1, 25), (SPLATS // 2, 80)])
def test_random_splats(kind: int, count: int) -> None:
    """Renders and what is learned from them; small ops alone."""
    first = SEED + 100_000
    tally = fuzz(first - first % SPLATS + kind, count, ON_HOST, SPLATS)
    # 0.92 to 0.97 over many graphs, 0.83 once over these few
    assert tally.clear > 0.75 * tally.rendered > 0, f"spans are too wide to find anything: {tally}"


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
    importlib.import_module("stipple.compat.packing")  # whose ops exist once it is imported
    assert set(ir.REGISTRY) == KNOWN_OPS | splat_ops.ELSEWHERE


def test_every_op_is_drawn() -> None:
    """But for splats, which have graphs of their own."""
    drawn = {node.op for seed in range(1000) for node in random_program(seed).graph.nodes}
    assert drawn == KNOWN_OPS - set(splat_ops.OPS)


def test_one_number_is_one_graph() -> None:
    assert str(random_program(11).graph) == str(random_program(11).graph) != str(random_program(12).graph)


class _Off:
    """A kernel one of whose results is off in the 5th digit, or by one."""

    def __init__(self, kernel: Kernel, result: int = 0, share: float = 1e-5) -> None:
        self.kernel, self.result, self.share = kernel, result, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)

    def __call__(self, *operands: Any) -> Sequence[np.ndarray]:
        made = list(self.kernel(*operands))
        array = made[self.result].copy()
        if array.size:
            array += array * self.share if array.dtype == np.float64 else np.ones_like(array)
        made[self.result] = array
        return made


class _Wrong(ReferenceBackend):
    """The reference, but for one result of one op."""

    def __init__(self, op: str, result: int = 0, share: float = 1e-5) -> None:
        self.op, self.result, self.share = op, result, share

    def kernel(self, node: ir.Node) -> Kernel | None:
        kernel = super().kernel(node)
        return _Off(kernel, self.result, self.share) if node.op == self.op and kernel is not None else kernel


def test_a_wrong_kernel_is_found_and_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Session(_Wrong("tanh"))
    monkeypatch.setattr(check, "session", lambda device: wrong)
    texts = (fuzz_one(seed, VARIANTS[:1], Tally()) for seed in range(100))
    text = next(text for text in texts if "tanh" in text)
    assert "expected" in text
    assert "(2 nodes)" in text, "a source and the wrong op are left"


SPLAT_RESULTS = [
    (op, result)
    for op in (
        "splat_project", "splat_project_backward", "splat_sh", "splat_sh_backward", "splat_bin", "splat_rasterize",
        "splat_rasterize_backward",
    )
    for result in ir.REGISTRY[op].results
]  # fmt: skip


@pytest.mark.parametrize("kind", ["alone", "composite"])
@pytest.mark.parametrize(("op", "result"), SPLAT_RESULTS)
def test_a_wrong_splat_kernel_is_found(op: str, result: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result of every small op: given out as it is, and where it is but a step of a render."""
    number = ir.REGISTRY[op].results.index(result)
    monkeypatch.setattr(check, "session", lambda device: wrong)
    wrong = Session(_Wrong(op, number, 0.01))
    first = SPLATS // 2 if kind == "alone" else SPLATS - 1
    seeds = range(first, first + SPLATS * 150, SPLATS)
    assert any(fuzz_one(seed, VARIANTS[:1], Tally(), shrinks=False) for seed in seeds)
