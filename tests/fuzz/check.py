"""Running one graph on one device and holding it to the oracle."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from conftest import open_session
from fuzz import splat_ops
from fuzz.oracle import (
    ON_CPU,
    ON_GPU,
    REFERENCE,
    REFERENCE_FOLDING,
    Machine,
    Run,
    evaluate,
    from_array,
    rounded_to_float32,
)
from fuzz.scenario import Round
from fuzz.spans import before
from fuzz.tensors import Tensor
from stipple import ir
from stipple.errors import FeedError, InputError, LimitWarning, UnsupportedOpError
from stipple.ir.passes import Pass
from stipple.runtime import Executable, Session


class MismatchError(Exception):
    """A device did what the oracle does not allow."""


@dataclass(frozen=True)
class Variant:
    """One way to run a graph."""

    name: str
    device: str
    machine: Machine
    passes: Sequence[Pass] | None = None
    stored: bool = False


VARIANTS = (
    Variant("reference, no passes", "reference", REFERENCE, ()),
    Variant("reference", "reference", REFERENCE_FOLDING),
    Variant("reference, saved and loaded", "reference", REFERENCE, (), stored=True),
    Variant("cpu, no passes", "cpu", ON_CPU, ()),
    Variant("cpu", "cpu", ON_CPU),
    Variant("gpu, no passes", "gpu", ON_GPU, ()),
    Variant("gpu", "gpu", ON_GPU),
)


@lru_cache(maxsize=8)
def session(device: str) -> Session | str:
    """The session of a device, or why there is none."""
    return Session("reference", debug=True) if device == "reference" else open_session(device)


@dataclass
class Tally:
    """How much was compared, and how narrow the spans were: a fuzzer that lets everything pass finds nothing."""

    graphs: int = 0
    rounds: int = 0
    refused: int = 0
    unsupported: int = 0
    elements: int = 0
    sharp: int = 0
    rendered: int = 0
    clear: int = 0
    ops: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        share = self.sharp / max(1, self.elements)
        return (
            f"{self.graphs} graphs, {self.rounds} runs ({self.refused} refused as they should, {self.unsupported} "
            f"graphs a device does not take), {self.elements} values compared, {share:.1%} of them to 1e-4 or "
            f"closer; and {self.rendered} of splats, {self.clear / max(1, self.rendered):.1%} of them to 1e-2 or closer"
        )


def expectations(graph: ir.Graph, rounds: Sequence[Round], machine: Machine) -> list[Run]:
    """What each round must give; fewer where what happens after one is not certain."""
    made: list[Run] = []
    params: dict[str, Tensor] = {}
    for given in rounds:
        params = {**params, **_tensors(graph.params, given.params, machine)}
        run = evaluate(graph, _tensors(graph.inputs, given.feeds, machine), params, machine)
        made.append(run)
        if run.must_fail:
            continue
        if run.may_fail:
            break
        params = run.params
    return made


def _tensors(values: Mapping[str, ir.Value], arrays: Mapping[str, np.ndarray], machine: Machine) -> dict[str, Tensor]:
    return {n: from_array(arrays[n], v.dtype.value, machine) for n, v in values.items() if n in arrays}


def check(graph: ir.Graph, rounds: Sequence[Round], variants: Sequence[Variant], tally: Tally | None = None) -> None:
    """Run a graph in every way given. Raises MismatchError."""
    tally = Tally() if tally is None else tally
    tally.graphs += 1
    for node in graph.nodes:
        tally.ops[node.op] = tally.ops.get(node.op, 0) + 1
    expected: dict[str, list[Run]] = {}
    for variant in variants:
        executable = compiled(graph, variant)
        if executable is None:
            tally.unsupported += 1
            continue
        machine = variant.machine
        if machine.name not in expected:
            expected[machine.name] = expectations(graph, rounds, machine)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LimitWarning)  # limits are among what is tried
            _Trial(graph, executable, variant, tally).run(rounds, expected[machine.name])


def compiled(graph: ir.Graph, variant: Variant) -> Executable | None:
    """The graph on a variant's device; None if the device may refuse it and does."""
    found = session(variant.device)
    assert isinstance(found, Session), found
    if variant.stored:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.safetensors"
            ir.save(graph, path)
            loaded = ir.load(path)
        if str(loaded) != str(graph):
            raise MismatchError(f"{variant.name}: the graph was loaded as\n{loaded}")
        graph = loaded
    try:
        return found.compile(graph, variant.passes)
    except UnsupportedOpError as error:
        if not may_be_unsupported(graph, variant.device):
            raise MismatchError(f"{variant.name}: {error}") from None
        return None
    except Exception as error:
        raise MismatchError(f"{variant.name}: compile raised {type(error).__name__}: {error}") from error


def may_be_unsupported(graph: ir.Graph, device: str) -> bool:
    """Whether a device may lack a kernel: the CPU and GPUs have no f64, GPUs no arithmetic of u8."""
    for node in graph.nodes:
        dtypes = {v.dtype.value for v in (*node.inputs, *node.outputs)}
        if device != "reference" and "f64" in dtypes:
            return True
        if device == "gpu" and "u8" in dtypes and node.op in ("add", "sub", "mul", "maximum", "minimum", "fused"):
            return True
    return False


def draws_splats(graph: ir.Graph) -> bool:
    return any(n.op in splat_ops.OPS for n in graph.nodes)


class _Trial:
    def __init__(self, graph: ir.Graph, executable: Executable, variant: Variant, tally: Tally) -> None:
        self.graph = graph
        self.executable = executable
        self.variant = variant
        self.tally = tally
        self.held: list[tuple[str, np.ndarray, np.ndarray]] = []

    def fail(self, message: str) -> None:
        raise MismatchError(f"{self.variant.name}: {message}")

    def run(self, rounds: Sequence[Round], expected: Sequence[Run]) -> None:
        for number, (given, wanted) in enumerate(zip(rounds, expected, strict=False)):
            where = f"run {number}"
            for name, array in given.params.items():
                mine = array.copy()
                self.executable.set_param(name, mine)
                scribble(mine)
            self.tally.rounds += 1
            if wanted.must_fail or wanted.may_fail:
                raised = self._refused(where, given, wanted)
                if wanted.may_fail and not wanted.must_fail and not raised:
                    break
                continue
            outputs = self._outputs(where, given)
            self._compare_all(where, "output", outputs, wanted.outputs)
            params = {n: self.executable.get_param(n) for n in self.graph.params}
            self._compare_all(where, "parameter", params, wanted.params)
            for array in params.values():
                scribble(array)
            for k, name in enumerate(sorted(outputs)):
                array = outputs[name]
                if (k + number) % 2:
                    self.held.append((f"output {name!r} of {where}", array, array.copy()))
                else:
                    scribble(array)
            for what, array, copy in self.held:
                if array.tobytes() != copy.tobytes():
                    self.fail(f"{what} changed by {where}")

    def _outputs(self, where: str, given: Round) -> dict[str, np.ndarray]:
        mine = {n: a.copy() for n, a in given.feeds.items() if n in self.graph.inputs}
        try:
            outputs = self.executable.run(mine)
        except Exception as error:
            raise MismatchError(f"{self.variant.name}: {where} raised {type(error).__name__}: {error}") from error
        for name, array in mine.items():
            if array.tobytes() != given.feeds[name].tobytes():
                self.fail(f"{where} changed the feed {name!r}")
            scribble(array)
        return outputs

    def _refused(self, where: str, given: Round, wanted: Run) -> bool:
        """A run that must, or may, be refused; parameters then are what they were, to the bit."""
        earlier = {n: self.executable.get_param(n) for n in self.graph.params}
        raised = False
        try:
            self.executable.run({n: a for n, a in given.feeds.items() if n in self.graph.inputs})
        except (InputError, FeedError):
            raised = True
            self.tally.refused += 1
        except Exception as error:
            raise MismatchError(f"{self.variant.name}: {where} raised {type(error).__name__}: {error}") from error
        if wanted.must_fail and not raised:
            self.fail(f"{where}: no InputError, though {wanted.must_fail}")
        if raised:
            for name, array in earlier.items():
                now = self.executable.get_param(name)
                if now.tobytes() != array.tobytes():
                    self.fail(f"{where} was refused, and changed the parameter {name!r} from {array} to {now}")
        return raised

    def _compare_all(
        self, where: str, what: str, given: Mapping[str, np.ndarray], wanted: Mapping[str, Tensor]
    ) -> None:
        if given.keys() != wanted.keys():
            self.fail(f"{where}: {what}s {sorted(given)}, expected {sorted(wanted)}")
        for name, array in given.items():
            self._compare(f"{where}: {what} {name!r}", array, wanted[name])

    def _compare(self, what: str, array: np.ndarray, wanted: Tensor) -> None:
        dtype = ir.DType.of(wanted.dtype).numpy
        if array.dtype != dtype or array.shape != wanted.shape:
            self.fail(f"{what}: {array.dtype}{list(array.shape)}, expected {wanted.dtype}{list(wanted.shape)}")
        how = self.variant.machine.precision(wanted.dtype)
        single = wanted.dtype == "f32"
        renders = draws_splats(self.graph)
        self.tally.rendered += len(wanted.spans) * renders
        self.tally.elements += len(wanted.spans) * (not renders)
        for at, (value, span) in enumerate(zip(array.reshape(-1).tolist(), wanted.spans, strict=True)):
            low, high, nan = rounded_to_float32(span) if single else span
            if low > high or (low == high and not nan) or (not nan and high - low <= 1e-4 * max(abs(low), abs(high))):
                self.tally.sharp += not renders
            self.tally.clear += renders and low <= high and high - low <= 1e-2 * (1 + abs(low)) and not nan
            if math.isnan(value):
                right = nan
            elif how.zeros or not single:
                right = low <= high and not before(value, low) and not before(high, value)
            else:
                right = low <= value <= high
            if not right:
                index = [int(i) for i in np.unravel_index(at, array.shape)]
                expected = f"{low!r} to {high!r}" if low != high else f"{low!r}"
                expected = ("NaN" if low > high else expected + " or NaN") if nan else expected
                self.fail(f"{what}: element {index} is {value!r}, expected {expected}\n{array}")


def scribble(array: np.ndarray) -> None:
    """Overwrite an array that nobody should be looking at any more."""
    if array.flags.writeable:
        array.fill(True if array.dtype == np.bool_ else 77)
