"""Arrays that stay on a device between runs: given out, fed again, and never overwritten."""

from __future__ import annotations

import numpy as np
import pytest

from stipple import ir
from stipple.errors import FeedError
from stipple.runtime import DeviceArray, Executable, Session

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def doubling(session: Session) -> Executable:
    """``twice`` = 2 x, ``total`` = its sum, and ``same`` = x itself; the parameter p moves by x in each run."""
    graph = ir.Graph("t")
    x, p = graph.input("x", ["N", 2]), graph.param("p", [2], init=[10.0, 20.0])
    graph.output("twice", x * 2.0)
    graph.output("total", ir.sum(x * 2.0))
    graph.output("same", x)
    graph.output("flat", ir.reshape(x, [x.shape.size]))
    graph.output("p_before", p)
    graph.update(p, p + ir.sum(x, 0))
    return session.compile(graph)


def test_kept_outputs_are_handles_and_the_rest_arrays(any_session: Session) -> None:
    out = doubling(any_session).run({"x": X}, keep=["twice"])
    assert list(out) == ["twice", "total", "same", "flat", "p_before"]
    assert isinstance(out["twice"], DeviceArray)
    assert isinstance(out["total"], np.ndarray)
    assert out["twice"].shape == (3, 2)
    assert out["twice"].dtype is ir.DType.F32
    assert repr(out["twice"]) == f"<f32[3, 2] on {any_session.device}>"
    np.testing.assert_array_equal(out["twice"].numpy(), 2 * X)
    np.testing.assert_array_equal(np.asarray(out["twice"]), 2 * X)
    assert np.asarray(out["twice"], np.float64).dtype == np.float64
    assert out["total"] == 30.0


def test_a_handle_is_fed_to_other_executables(any_session: Session) -> None:
    first, second = doubling(any_session), doubling(any_session)
    handle = first.run({"x": X}, keep=["twice"])["twice"]
    np.testing.assert_array_equal(second.run({"x": handle})["twice"], 4 * X)
    uploaded = any_session.upload(X)
    np.testing.assert_array_equal(second.run({"x": uploaded})["twice"], 2 * X)
    np.testing.assert_array_equal(uploaded.numpy(), X)


def test_handles_outlast_runs(any_session: Session) -> None:
    """Whatever the executable, or another one, computes afterwards, in memory of the same sizes."""
    exe, other = doubling(any_session), doubling(any_session)
    given = any_session.upload(X)
    names = ("twice", "same", "flat", "p_before")
    held = exe.run({"x": given}, keep=names)
    copies = {n: held[n].numpy() for n in names}
    fetched = exe.run({"x": X + 1})
    before = {n: a.copy() for n, a in fetched.items()}
    for k in range(4):
        exe.run({"x": X * k})
        other.run({"x": held["twice"]}, keep=["twice"])
    for name, copy in copies.items():
        np.testing.assert_array_equal(held[name].numpy(), copy, err_msg=name)
    for name, copy in before.items():
        np.testing.assert_array_equal(fetched[name], copy, err_msg=name)
    np.testing.assert_array_equal(given.numpy(), X)


def test_outputs_that_are_feeds_or_parameters_are_copies(any_session: Session) -> None:
    exe = doubling(any_session)
    given = any_session.upload(X)
    held = exe.run({"x": given}, keep=["same", "flat", "p_before"])
    np.testing.assert_array_equal(held["p_before"].numpy(), [10, 20])
    np.testing.assert_array_equal(exe.get_param("p"), [16, 29])
    exe.set_param("p", [1.0, 2.0])
    np.testing.assert_array_equal(held["p_before"].numpy(), [10, 20])
    assert not any_session.backend.overlap(held["flat"].buffer, given.buffer)
    mine = X.copy()
    held["same"] = exe.run({"x": mine}, keep=["same"])["same"]
    mine[:] = 7
    for name in ("same", "flat"):
        np.testing.assert_array_equal(held[name].numpy().ravel(), X.ravel())


def test_an_array_of_what_a_handle_holds_is_read_only(any_session: Session) -> None:
    """It may be the same memory, which outlasts either."""
    graph = ir.Graph("t")
    y = ir.exp(graph.input("x", [3]))
    graph.output("array", y)
    graph.output("handle", y)
    executable = any_session.compile(graph)
    out = executable.run({"x": [0.0, 1.0, 2.0]}, keep=["handle"])
    array, handle = out.pop("array"), out.pop("handle")
    before = array.copy()
    with pytest.raises(ValueError, match="read-only"):
        array[:] = 7
    np.testing.assert_array_equal(handle.numpy(), before)
    del handle
    row = array[None]
    del array
    for _ in range(3):  # would use the memory again if it had come back
        executable.run({"x": [7.0, 7.0, 7.0]}, keep=["handle"])
    np.testing.assert_array_equal(row[0], before)


def test_a_handle_that_is_fed_and_returned_is_shared(any_session: Session) -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3])
    for name in ("array", "handle"):
        graph.output(name, x)
    fed = any_session.upload(np.arange(3, dtype=np.float32))
    out = any_session.compile(graph).run({"x": fed}, keep=["handle"])
    assert out["handle"] is fed
    with pytest.raises(ValueError, match="read-only"):
        out["array"][:] = 7
    np.testing.assert_array_equal(out["array"], fed.numpy())


def test_a_copy_in_used_memory_holds_its_own_values(any_session: Session) -> None:
    """The host may know the values that a buffer held before, from small arrays that are only moved: here indices."""
    moving, copying, picking = ir.Graph("moving"), ir.Graph("copying"), ir.Graph("picking")
    parts = [moving.input(name, [1], "i32") for name in "ab"]
    moving.output("out", ir.cast(ir.concat(parts), "f32"))
    y = copying.input("x", [1, 2], "i32") * 2
    copying.output("y", y)
    copying.output("flat", ir.reshape(y, [2]))
    picking.output("out", ir.gather(picking.input("table", [7]), picking.input("ids", [2], "i32")))
    first, second, third = (any_session.compile(graph) for graph in (moving, copying, picking))
    for k in range(3):
        first.run({"a": [90], "b": [91]})
        out = second.run({"x": [[k, 1]]}, keep=["y", "flat"])
        found = third.run({"table": np.arange(7, dtype=np.float32), "ids": out["flat"]})["out"]
        np.testing.assert_array_equal(found, [2 * k, 2])


def test_one_value_kept_under_two_names_outlasts_either(any_session: Session) -> None:
    graph = ir.Graph("t")
    x = graph.input("x", [3])
    for name in ("one", "other"):
        graph.output(name, x * 2.0)
    graph = ir.passes.PassManager([ir.passes.MergeCommonSubexpressions()]).run(graph)
    executable = any_session.compile(graph)
    out = executable.run({"x": np.arange(3, dtype=np.float32)}, keep=["one", "other"])
    kept = out.pop("other")
    del out
    for _ in range(3):  # would use the memory again if it had come back
        executable.run({"x": np.full(3, 9, np.float32)}, keep=["one"])
    np.testing.assert_array_equal(kept.numpy(), [0, 2, 4])


def test_an_uploaded_array_is_a_copy(any_session: Session) -> None:
    mine = X.copy()
    handle = any_session.upload(mine)
    mine[:] = -1
    np.testing.assert_array_equal(handle.numpy(), X)
    handle.numpy()[:] = -1
    np.testing.assert_array_equal(handle.numpy(), X)
    ids = any_session.upload([1, 2, 3], "i32")
    assert ids.dtype is ir.DType.I32
    np.testing.assert_array_equal(ids.numpy(), [1, 2, 3])
    with pytest.raises(FeedError, match="array: "):
        any_session.upload([0.5], "i32")


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_handle_of_another_session_is_refused(device: str) -> None:
    ours, theirs = Session(device), Session("reference")
    with pytest.raises(FeedError, match=r"feed 'x': the array is in the memory of another session; feed its .numpy()"):
        doubling(ours).run({"x": theirs.upload(X)})


def test_a_handle_must_fit(any_session: Session) -> None:
    exe = doubling(any_session)
    with pytest.raises(FeedError, match=r"feed 'x': expected f32\[N, 2\], got <i32\[3, 2\] on "):
        exe.run({"x": any_session.upload(X.astype(np.int32), "i32")})
    with pytest.raises(FeedError, match=r"feed 'x': expected f32\[N, 2\], got <f32\[6\] on "):
        exe.run({"x": any_session.upload(X.ravel())})
    with pytest.raises(FeedError, match=r"feed 'x': expected shape \[N, 2\].* got \[2, 3\]"):
        exe.run({"x": any_session.upload(X.reshape(2, 3))})
    np.testing.assert_array_equal(exe.get_param("p"), [10, 20])


def test_only_outputs_are_kept(any_session: Session) -> None:
    exe = doubling(any_session)
    for wrong in (["x"], "twice", ["twice", "nothing"]):
        with pytest.raises(FeedError, match=r"keep: expected names of outputs \(twice, total, same, flat, p_before\)"):
            exe.run({"x": X}, keep=wrong)
