"""What may be written in place: parameters are overwritten only where nothing needs their old value, and never before
all that can fail is over. On every device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from stipple import ir
from stipple.backends.reference import ReferenceBackend
from stipple.errors import DeviceError, InputError
from stipple.ir import Graph, Value
from stipple.runtime import Executable, Session

START = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


def with_params(*names: str) -> tuple[Graph, list[Value]]:
    graph = Graph("t")
    values = [graph.param(n, [3, 2], "f32", START * 10**i) for i, n in enumerate(names)]
    return graph, values


@pytest.fixture
def compiled(any_session: Session) -> Callable[[Graph], Executable]:
    return any_session.compile


def check(exe: Executable, outputs: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    given = exe.run({})
    for name, wanted in outputs.items():
        np.testing.assert_array_equal(given[name], wanted, err_msg=f"output {name}")
    for name, wanted in params.items():
        np.testing.assert_array_equal(exe.get_param(name), wanted, err_msg=f"parameter {name}")


def test_an_output_is_the_value_of_before_the_update(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p,) = with_params("p")
    graph.output("old", p)
    graph.output("flat", ir.reshape(p, [6]))
    graph.update(p, -p)
    exe = compiled(graph)
    check(exe, {"old": START, "flat": START.ravel()}, {"p": -START})
    check(exe, {"old": -START, "flat": -START.ravel()}, {"p": START})


def test_a_parameter_takes_the_old_value_of_another(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p, q) = with_params("p", "q")
    graph.update(p, -p)
    graph.update(q, p)
    check(compiled(graph), {}, {"p": -START, "q": START})


def test_parameters_change_places(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p, q) = with_params("p", "q")
    graph.update(p, q)
    graph.update(q, p)
    exe = compiled(graph)
    check(exe, {}, {"p": 10 * START, "q": START})
    check(exe, {}, {"p": START, "q": 10 * START})


def test_updates_read_each_others_old_values(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p, q) = with_params("p", "q")
    graph.update(p, p + q)
    graph.update(q, q - p)
    check(compiled(graph), {}, {"p": 11 * START, "q": 9 * START})


def test_one_value_goes_to_two_parameters(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p, q, r) = with_params("p", "q", "r")
    nxt = -p
    graph.update(p, nxt)
    graph.update(q, nxt)
    graph.update(r, ir.reshape(ir.reshape(p * 2.0, [6]), [3, 2]))
    exe = compiled(graph)
    check(exe, {}, {"p": -START, "q": -START, "r": 2 * START})
    exe.set_param("p", 3 * START)
    np.testing.assert_array_equal(exe.get_param("q"), -START, err_msg="they share no memory")


def test_rows_are_added_from_the_base_itself(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p,) = with_params("p")
    graph.update(p, ir.scatter_add(p, graph.constant(np.array([1, 2, 0], np.int32)), p))
    check(compiled(graph), {}, {"p": START + START[[2, 0, 1]]})


def test_moments_that_are_the_parameter(compiled: Callable[[Graph], Executable]) -> None:
    """Adam whose operands are one array: each result is of the old one."""
    graph, (p, m) = with_params("p", "m")
    made = ir.adam(p, p, m, p, 0.1, graph.constant(1.0, "f32"), beta1=0.5, beta2=0.5)
    graph.update(p, made.param)
    graph.update(m, made.m)
    graph.output("v", made.v)
    exe = compiled(graph)
    given = exe.run({})
    np.testing.assert_allclose(given["v"], 0.5 * START + 0.5 * START**2, rtol=1e-6)
    np.testing.assert_allclose(exe.get_param("m"), 0.5 * 10 * START + 0.5 * START, rtol=1e-6)


def refused_adam(graph: Graph, p: Value, q: Value) -> None:
    step = graph.input("step", [])
    graph.update(q, q * 2.0)
    graph.update(p, ir.adam(p, p * 3.0, p * 4.0, ir.square(p), 0.1, step).param)


def refused_ids(graph: Graph, p: Value, q: Value) -> None:
    ids = graph.input("ids", [1], "i32")
    graph.update(q, q + 1.0)
    graph.update(p, ir.scatter_add(p, ids, graph.constant(START[:1])))


REFUSED: dict[str, tuple[Callable[[Graph, Value, Value], None], dict[str, Any], dict[str, Any], str]] = {
    "step 0": (refused_adam, {"step": 0.0}, {"step": 1.0}, "adam: step counts from 1, got 0"),
    "bad ids": (
        refused_ids,
        {"ids": np.array([3], np.int32)},
        {"ids": np.array([2], np.int32)},
        "scatter_add: ids must be between 0 and 2, got 3 to 3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_run_changes_no_parameter(case: str, compiled: Callable[[Graph], Executable]) -> None:
    build, bad, good, message = REFUSED[case]
    graph, (p, q) = with_params("p", "q")
    build(graph, p, q)
    exe = compiled(graph)
    for _ in range(2):
        with pytest.raises(InputError, match=message):
            exe.run(bad)
        np.testing.assert_array_equal(exe.get_param("p"), START)
        np.testing.assert_array_equal(exe.get_param("q"), 10 * START)
    exe.run(good)
    assert not np.array_equal(exe.get_param("p"), START)


def test_computed_operands_are_checked_too(compiled: Callable[[Graph], Executable]) -> None:
    """Operands that must be finite, where they come from the graph itself."""
    graph, (p, m, v) = with_params("p", "m", "v")
    made = ir.adam(p, p * 0.5, m, v, graph.input("rate", []) / graph.input("by", []), graph.constant(1.0, "f32"))
    for old, new in zip((p, m, v), made, strict=True):
        graph.update(old, new)
    exe = compiled(graph)
    with pytest.raises(InputError, match="adam: lr must be finite"):
        exe.run({"rate": 1.0, "by": 0.0})
    np.testing.assert_array_equal(exe.get_param("p"), START)
    exe.run({"rate": 1.0, "by": 2.0})
    assert not np.array_equal(exe.get_param("p"), START)


class Short(ReferenceBackend):
    """Runs out of memory at the n-th copy that leaves it."""

    left = 0

    def download(self, buffer: np.ndarray, dtype: ir.DType) -> np.ndarray:
        self.left -= 1
        if self.left == 0:
            raise MemoryError("Unable to allocate 191 MiB.")
        return super().download(buffer, dtype)


@pytest.mark.parametrize("at", [1, 2])
def test_outputs_without_memory_change_no_parameter(at: int) -> None:
    graph, (p, q, m, v) = with_params("p", "q", "m", "v")
    made = ir.adam(p, q, m, v, 0.1, graph.constant(1.0, "f32"))
    for old, new in zip((p, m, v), made, strict=True):
        graph.update(old, new)
    graph.update(q, q + 1.0)
    graph.output("first", q * 2.0)
    graph.output("second", made.param)
    exe = Session(backend := Short()).compile(graph)
    backend.left = at
    message = r"reference: out of memory in the graph's outputs \(Unable to allocate 191 MiB\); use fewer Gaussians"
    with pytest.raises(MemoryError, match=message):
        exe.run({})
    for i, name in enumerate("pqmv"):
        np.testing.assert_array_equal(exe.get_param(name), START * 10**i)
    assert exe.run({})["first"][0, 0] == 20


def test_the_callers_graph_stays_the_callers(compiled: Callable[[Graph], Executable]) -> None:
    """Also where no pass has anything to do."""
    graph = Graph("t")
    x = graph.input("x", [2])
    graph.output("y", ir.exp(x))
    exe = compiled(graph)
    graph.output("z", ir.log(graph.input("w", [2])))
    graph.param("p", [2])
    assert list(exe.run({"x": np.zeros(2, np.float32)})) == ["y"]


def test_outputs_belong_to_the_caller(compiled: Callable[[Graph], Executable]) -> None:
    graph, (p,) = with_params("p")
    graph.output("p", p)
    graph.output("constant", graph.constant(START) + 0.0)
    graph.output("scaled", p * 2.0)
    graph.update(p, p + 1.0)
    exe = compiled(graph)
    first = exe.run({})
    kept = {n: a.copy() for n, a in first.items()}
    for array in exe.run({}).values():
        array[:] = 7
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
    np.testing.assert_array_equal(exe.run({})["constant"], START)
    np.testing.assert_array_equal(exe.get_param("p"), START + 3)


def test_sizes_that_come_out_negative_are_named(compiled: Callable[[Graph], Executable]) -> None:
    graph = Graph("t")
    x = graph.input("x", ["N"])
    graph.output("y", ir.full(graph, [x.shape[0] - 3], 1.0) * 2.0)
    exe = compiled(graph)
    assert exe.run({"x": np.zeros(5, np.float32)})["y"].tolist() == [2, 2]
    with pytest.raises(InputError, match=r"a result of shape \[N \+ -3\] would be \[-1\] with N = 2"):
        exe.run({"x": np.zeros(2, np.float32)})


def test_too_large_arrays_are_one_sentence() -> None:
    graph = Graph("t")
    x = graph.input("x", ["N", "N", "N", "N"])
    flat = ir.reshape(x, [x.shape.size])
    graph.output("y", ir.sum(ir.full(graph, [flat.shape[0], flat.shape[0], flat.shape[0]], 1.0)))
    exe = Session("reference").compile(graph)
    with pytest.raises(MemoryError, match=r"reference: out of memory in full \(node \d+\): an array of \[4096, 4096"):
        exe.run({"x": np.zeros((8, 8, 8, 8), np.float32)})


class Misbehaving(ReferenceBackend):
    """Kernels of exp that break one rule of the protocol."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def kernel(self, node: ir.Node) -> Any:
        inner = super().kernel(node)
        if node.op != "exp" or inner is None:
            return inner
        fault = self.fault

        class Kernel:
            name = "broken"
            owns_outputs = fault != "other buffer"

            def check(self, inputs: Sequence[Any], dims: Mapping[str, int]) -> None:
                pass

            def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any], dims: Mapping[str, int]) -> Any:
                if fault == "operand changed":
                    inputs[0][:] = 0
                made = {
                    "operand returned": inputs[0],
                    "view returned": inputs[0][::-1].copy()[::-1][:],
                    "dtype": inputs[0].astype(np.float32),
                    "shape": inputs[0][:1].copy(),
                }.get(fault, np.exp(inputs[0]))
                return [made, made] if fault == "two results" else [made]

        return Kernel()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("operand changed", "changed its operand 'x'"),
        ("operand returned", "result 'out' shares memory with operand 'x'"),
        ("view returned", "result 'out' is not held as dense f64"),
        ("dtype", "result 'out' is not held as dense f64"),
        ("shape", r"result 'out' has shape \[1\], declared as \[3\]"),
        ("other buffer", "result 'out' is not in the buffer that was planned for it"),
        ("two results", "returned 2 results of 1"),
    ],
)
def test_kernels_that_break_the_protocol_are_found(fault: str, message: str) -> None:
    graph = Graph("t")
    graph.output("y", ir.exp(graph.input("x", [3], "f64")) * 2.0)
    feeds = {"x": np.ones(3)}
    Session(Misbehaving(fault)).compile(graph)
    exe = Session(Misbehaving(fault), debug=True).compile(graph, passes=[])
    with pytest.raises(DeviceError, match=f"reference: kernel broken: {message}; this is a bug in the backend"):
        exe.run(feeds)


class Twice(ReferenceBackend):
    """A kernel that returns one array for two results."""

    def kernel(self, node: ir.Node) -> Any:
        inner = super().kernel(node)
        if node.op != "image_l1_backward" or inner is None:
            return inner

        class Kernel:
            name, owns_outputs = "twice", True

            def check(self, inputs: Sequence[Any], dims: Mapping[str, int]) -> None:
                pass

            def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any], dims: Mapping[str, int]) -> Any:
                made = inner(inputs, outputs, dims)
                return [made[0], made[0]]

        return Kernel()


def test_one_array_for_two_results_is_found() -> None:
    graph = Graph("t")
    a, b = graph.input("a", [2, 2, 1]), graph.input("b", [2, 2, 1])
    for name, value in zip("ab", ir.grad(graph, ir.image_l1(a, b), [a, b]), strict=True):
        graph.output(name, value)
    feeds = {n: np.full((2, 2, 1), i, np.float32) for i, n in enumerate("ab")}
    with pytest.raises(DeviceError, match="results 'v_image' and 'v_target' share memory"):
        Session(Twice(), debug=True).compile(graph).run(feeds)
