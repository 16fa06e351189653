"""Graph files: round trips, a new process, and every kind of broken file."""

from __future__ import annotations

import copy
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from stipple import ir
from stipple.errors import FileFormatError
from stipple.ir.__main__ import main
from stipple.ir.serialize import MAX_JSON
from stipple.runtime import Session
from training import training_step


def small_graph() -> ir.Graph:
    graph = ir.Graph("small")
    x = graph.input("x", ["N", 3])
    p = graph.param("p", [3], init=[1, 2, 3])
    y = ir.clamp(x * p + graph.constant([0.5, 1.5, 2.5], "f32"), 0.0)
    graph.output("y", ir.cast(y > 1.0, "f32") * y)
    graph.output("rows", ir.gather(y, graph.constant([0, 0])))
    graph.update(p, p * 0.5)
    return graph


def read_parts(path: Path) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """A file's safetensors header, tensor bytes, and graph document."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    return header, data[8 + size :], json.loads(header["__metadata__"]["stipple"])


def write_parts(path: Path, header: dict[str, Any], body: bytes, document: Any) -> None:
    header = copy.deepcopy(header)
    header["__metadata__"]["stipple"] = document if isinstance(document, str) else json.dumps(document)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def structure(graph: ir.Graph) -> Any:
    nodes = [
        (n.op, [(v.node.id, v.index) for v in n.inputs], [str(v.type) for v in n.outputs], str(dict(n.attrs)))
        for n in graph
    ]
    roots = {k: (v.node.id, v.index) for k, v in {**graph.outputs, **graph.updates}.items()}
    return graph.name, nodes, roots


@pytest.mark.parametrize("build", [small_graph, lambda: training_step()[0]])
def test_round_trip(build: Callable[[], ir.Graph], tmp_path: Path) -> None:
    graph = build()
    ir.save(graph, tmp_path / "g.safetensors")
    loaded = ir.load(tmp_path / "g.safetensors")
    assert structure(loaded) == structure(graph)
    assert loaded.param_values.keys() == graph.param_values.keys()
    for name, array in graph.param_values.items():
        np.testing.assert_array_equal(loaded.param_values[name], array)
    ir.save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "g.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.safetensors", "g.safetensors"]


def test_optimised_graphs_and_current_parameters_round_trip(tmp_path: Path) -> None:
    exe = Session("reference").compile(small_graph())
    exe.run({"x": np.ones((2, 3), np.float32)})
    ir.save(exe.graph, tmp_path / "g", {"p": exe.get_param("p")})
    loaded = ir.load(tmp_path / "g")
    assert loaded.count("fused") == exe.graph.count("fused") > 0
    assert loaded.param_values["p"].tolist() == [0.5, 1, 1.5]


def test_a_training_step_gives_the_same_bits_in_a_new_process(tmp_path: Path) -> None:
    graph, feeds = training_step()
    ir.save(graph, tmp_path / "step.safetensors")
    np.savez(tmp_path / "feeds.npz", **feeds)
    code = """
import sys, numpy as np, stipple.ir as ir
from stipple.runtime import Session
exe = Session("reference").compile(ir.load(sys.argv[1]))
feeds = dict(np.load(sys.argv[2]))
losses = [exe.run({**feeds, "step": float(i)})["loss"] for i in (1, 2, 3)]
np.savez(sys.argv[3], losses=losses, **{n: exe.get_param(n) for n in exe.graph.params})
"""
    files = [str(tmp_path / n) for n in ("step.safetensors", "feeds.npz", "out.npz")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=120)
    exe = Session("reference").compile(graph)
    losses = [exe.run({**feeds, "step": float(i)})["loss"] for i in (1, 2, 3)]
    assert losses[2] < losses[0]
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["losses"], losses)
        for name in graph.params:
            np.testing.assert_array_equal(out[name], exe.get_param(name))


def test_saving_leaves_the_old_file_whole_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g"
    ir.save(small_graph(), path)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        ir.save(small_graph(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["g"]


# --- broken files -----------------------------------------------------------------------------------------
def _set(*keys: Any) -> Callable[[Any, Any], None]:
    def change(document: Any, value: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


BROKEN: dict[str, tuple[Callable[[Any, Any], None], Any, str]] = {
    "version": (_set("version"), 99, "graph version 99; this Stipple reads version 1"),
    "true version": (_set("version"), True, "graph version True; this Stipple reads version 1"),
    "format": (_set("format"), "onnx", "not of the format"),
    "cycle": (_set("nodes", 2, "in"), [[5, 0], [1, 0]], "does not exist before it"),
    "itself": (_set("nodes", 2, "in"), [[2, 0], [1, 0]], "does not exist before it"),
    "result index": (_set("nodes", 2, "in"), [[0, 7], [1, 0]], "does not exist before it"),
    "negative": (_set("nodes", 2, "in"), [[-1, 0], [1, 0]], r"expected a \[node, result\] pair"),
    "boolean": (_set("nodes", 2, "in"), [[True, 0], [1, 0]], r"expected a \[node, result\] pair"),
    "op": (_set("nodes", 2, "op"), "system", "no op is called 'system'"),
    "op type": (_set("nodes", 2, "op"), 5, "expected an object with an op"),
    "stored type": (_set("nodes", 2, "out"), [["f32", ["N", 4]]], "are not the inferred"),
    "dtype": (_set("nodes", 0, "attrs", "dtype"), "f16", "dtype: expected"),
    "attribute": (_set("nodes", 0, "attrs", "shape"), "N3", "shape: expected"),
    "unknown attribute": (_set("nodes", 2, "attrs"), {"axis": 3}, "no attribute 'axis'"),
    "tensor name": (_set("nodes", 3, "attrs", "value"), "constant/99", "no tensor 'constant/99'"),
    "tensor type": (_set("nodes", 3, "attrs", "value"), [1, 2], "no tensor"),
    "output": (_set("outputs"), {"y": [99, 0]}, "does not exist"),
    "outputs type": (_set("outputs"), [], "outputs: expected an object"),
    "update": (_set("updates"), {"q": [1, 0]}, "no parameter 'q'"),
    "nodes type": (_set("nodes"), {}, "expected a list"),
    "name": (_set("name"), "a\nb", "graph name"),
    "huge dimension": (_set("nodes", 0, "attrs", "shape"), [1 << 80], "dimension"),
    "nested": (_set("nodes", 0, "attrs", "shape"), [[["N"]]], "shape: expected"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_changed_document_is_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "g"
    ir.save(small_graph(), path)
    header, body, document = read_parts(path)
    change, value, message = BROKEN[case]
    change(document, value)
    write_parts(path, header, body, document)
    with pytest.raises(FileFormatError, match=message) as caught:
        ir.load(path)
    assert str(path) in str(caught.value)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g"
    ir.save(small_graph(), path)
    header, body, document = read_parts(path)
    del document["updates"]
    write_parts(path, header, body, document)
    with pytest.raises(FileFormatError, match="missing 'updates'"):
        ir.load(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g"
    for data, message in (
        (b"", "not a safetensors file"),
        (b"PK\x03\x04 not this", "not a safetensors file"),
        (struct.pack("<Q", 1 << 62), "not a safetensors file"),
        (save_tensors({"a": np.zeros(3)}), "holds no Stipple graph"),
        (save_tensors({"a": np.zeros(3)}, {"stipple": "{"}), "JSON cannot be read"),
        (save_tensors({"a": np.zeros(3)}, {"stipple": "[" * 100_000}), "JSON cannot be read"),
        (save_tensors({"a": np.zeros(3)}, {"stipple": "[]"}), "not of the format"),
    ):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            ir.load(path)
    ir.save(small_graph(), path)
    path.write_bytes(path.read_bytes() + b"more than the header says")
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        ir.load(path)
    path.write_bytes(save_tensors({"a": np.zeros(3)}, {"stipple": " " * (MAX_JSON + 1)}))
    with pytest.raises(FileFormatError, match="longer than"):
        ir.load(path)
    with pytest.raises(FileNotFoundError):
        ir.load(tmp_path / "nothing")
    with pytest.raises(OSError, match="directory"):
        ir.load(tmp_path)


def test_tensors_nobody_uses_and_wrong_parameters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g"
    document = {
        "format": "stipple-graph",
        "version": 1,
        "name": "g",
        "nodes": [],
        "outputs": {},
        "updates": {},
    }
    for tensors, message in (
        ({"stray": np.zeros(1)}, "tensors that no node uses: stray"),
        ({"param/p": np.zeros(1)}, "no such parameter"),
    ):
        path.write_bytes(save_tensors(tensors, {"stipple": json.dumps(document)}))
        with pytest.raises(FileFormatError, match=message):
            ir.load(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g"
    ir.save(small_graph(), path)
    data = path.read_bytes()
    for length in [*range(0, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            ir.load(path)


def load_or_refuse(path: Path) -> None:
    """Loading either works or raises the one error, with little memory."""
    tracemalloc.start()
    try:
        ir.verify(ir.load(path))
    except FileFormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 4000), st.integers(0, 40))
def test_fuzzed_bytes(tmp_path: Path, noise: bytes, position: int, drop: int) -> None:
    path = tmp_path / "g"
    ir.save(small_graph(), path)
    data = path.read_bytes()
    position %= len(data)
    path.write_bytes(data[:position] + noise + data[position + drop :])
    load_or_refuse(path)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_fuzzed_documents(tmp_path: Path, data: st.DataObject) -> None:
    """Any part of the document replaced by any JSON value, or by another part of it."""
    path = tmp_path / "g"
    ir.save(small_graph(), path)
    header, body, document = read_parts(path)
    spots: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            spots.append((value, key))
            collect(inner)

    collect(document)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(spots))
        other_holder, other_key = data.draw(st.sampled_from(spots))
        other = copy.deepcopy(other_holder[other_key]) if data.draw(st.booleans()) else data.draw(json_values)
        holder[key] = other
    write_parts(path, header, body, document)
    load_or_refuse(path)


# --- the command ------------------------------------------------------------------------------------------
def test_show_prints_a_saved_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.safetensors"
    ir.save(training_step()[0], path)
    out = subprocess.run(
        [sys.executable, "-m", "stipple.ir", "show", str(path)],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    assert "splat_render(" in out
    assert "updates" in out
    assert main(["show", str(path), "--dot"]) == 0
    assert capsys.readouterr().out.startswith("digraph")
    path.write_bytes(b"nonsense")
    assert main(["show", str(path)]) == 1
    assert "not a safetensors file" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "missing")]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="expected a file, found a pipe or a device"):
        ir.load(tmp_path / "pipe")
