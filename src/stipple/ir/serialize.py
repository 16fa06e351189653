"""Graphs in files: one safetensors file, the graph as versioned JSON in its metadata.

The JSON lists the nodes in order with their operands, attributes and types; constants and parameters are the
file's tensors. Loading builds the graph again through the same checks as building it by hand, compares every
stored type with the inferred one, and runs no code from the file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from stipple.errors import FileFormatError, GraphError
from stipple.files import atomic_write
from stipple.ir.attributes import AttrValue
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import lookup
from stipple.ir.verify import verify

FORMAT = "stipple-graph"
VERSION = 1
_KEY = "stipple"
MAX_JSON = 16 << 20
MAX_NODES = 200_000


# --- saving -----------------------------------------------------------------------------------------------
def save(graph: Graph, path: str | os.PathLike[str], params: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a graph, its constants and its parameters' values to one file.

    ``params`` replaces the stored initial values (for example by an executable's current ones). The file is written
    under a temporary name and renamed, so that an interrupted save leaves the old file intact.
    """
    if params is not None and not isinstance(params, Mapping):
        raise GraphError(f"save: params: expected a dict of arrays by name, got {type(params).__name__}")
    values = {**graph.param_values, **(params or {})}
    unknown = values.keys() - graph.params.keys()
    if unknown:
        raise GraphError(f"save: the graph has no parameter {', '.join(sorted(unknown))}")
    tensors = {f"param/{name}": graph.checked_init(name, value) for name, value in values.items()}
    nodes = [_node_json(node, tensors) for node in graph.nodes]
    document = {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "nodes": nodes,
        "outputs": {k: [v.node.id, v.index] for k, v in graph.outputs.items()},
        "updates": {k: [v.node.id, v.index] for k, v in graph.updates.items()},
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    with atomic_write(path) as file:
        file.write(safetensors_save(tensors, metadata={_KEY: text}))


def _node_json(node: Node, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for attr in node.definition.attrs:
        value = node.attrs[attr.name]
        if attr.kind == "array":
            attrs[attr.name] = f"constant/{node.id}"
            tensors[f"constant/{node.id}"] = np.array(value, order="C")  # ascontiguousarray turns scalars into vectors
        else:
            attrs[attr.name] = attr.to_json(value)
    return {
        "op": node.op,
        "in": [[v.node.id, v.index] for v in node.inputs],
        "attrs": attrs,
        "out": [[v.dtype.value, v.shape.to_json()] for v in node.outputs],
    }


# --- loading ----------------------------------------------------------------------------------------------
def load(path: str | os.PathLike[str]) -> Graph:
    """Read a graph. Raises FileFormatError, naming the file and what is wrong, for anything but a complete, valid graph
    of a known version; OSError if the file cannot be read."""
    if not isinstance(path, (str, os.PathLike)):
        raise GraphError(f"load: path: expected a path, got {type(path).__name__}")
    name = os.fspath(path)
    document, tensors = _read(name)
    try:
        graph = _build(document, tensors)
        verify(graph)
    except (GraphError, KeyError, TypeError, ValueError, IndexError, RecursionError, OverflowError) as error:
        detail = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise FileFormatError(f"{name}: not a valid graph: {detail}") from None
    return graph


def _read(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    mode = os.stat(name).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for somebody to write
        raise FileFormatError(f"{name}: expected a file, found a pipe or a device")
    with open(name, "rb") as file:
        data = file.read()  # not mapped: a file that is truncated while it is read must not crash the process
    try:
        tensors = safetensors_load(data)
        text = _metadata(data).get(_KEY)
    except (SafetensorError, TypeError, AttributeError, ValueError, KeyError, RecursionError) as error:
        raise FileFormatError(f"{name}: not a safetensors file that NumPy can hold: {error}") from None
    if text is None:
        raise FileFormatError(f"{name}: holds no Stipple graph (no {_KEY!r} entry in its metadata)")
    if len(text) > MAX_JSON:
        raise FileFormatError(f"{name}: the graph's JSON is longer than {MAX_JSON} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{name}: the graph's JSON cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(f"{name}: its metadata is not of the format {FORMAT!r}")
    if type(document.get("version")) is not int or document["version"] != VERSION:
        raise FileFormatError(
            f"{name}: graph version {document.get('version')!r}; this Stipple reads version {VERSION}"
        )
    return document, tensors


def _metadata(data: bytes) -> dict[str, str]:
    """The texts in a safetensors file's header."""
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return found


def _build(document: dict[str, Any], tensors: dict[str, np.ndarray]) -> Graph:
    graph = Graph(document["name"])
    unused = set(tensors)
    nodes = document["nodes"]
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        raise GraphError(f"nodes: expected a list of at most {MAX_NODES}")
    for i, entry in enumerate(nodes):
        try:
            _add_node(graph, entry, tensors, unused)
        except GraphError as error:
            raise GraphError(f"node {i}: {error}") from None
    for name in sorted(unused):
        if name.startswith("param/"):
            _set_param(graph, name, tensors[name])
            unused.discard(name)
    if unused:
        raise GraphError(f"tensors that no node uses: {', '.join(sorted(unused)[:5])}")
    for name, reference in _table(document, "outputs"):
        graph.output(name, _value(graph, reference))
    for name, reference in _table(document, "updates"):
        if name not in graph.params:
            raise GraphError(f"updates: no parameter {name!r}")
        graph.update(graph.params[name], _value(graph, reference))
    return graph


def _table(document: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    table = document[key]
    if not isinstance(table, dict):
        raise GraphError(f"{key}: expected an object")
    return list(table.items())


def _add_node(graph: Graph, entry: Any, tensors: dict[str, np.ndarray], unused: set[str]) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("op"), str):
        raise GraphError("expected an object with an op")
    definition = lookup(entry["op"])
    attrs: dict[str, AttrValue] = dict(_object(entry, "attrs"))
    for attr in definition.attrs:
        if attr.kind == "array" and attr.name in attrs:
            key = attrs[attr.name]
            if not isinstance(key, str) or key not in tensors:
                raise GraphError(f"{attr.name}: no tensor {key!r} in the file")
            attrs[attr.name] = tensors[key]
            unused.discard(key)
    operands = [_value(graph, r) for r in _list(entry, "in")]
    if definition.source:
        if operands:
            raise GraphError(f"{definition.name}: takes no operands")
        canonical = definition.normalise_attrs(attrs)
        build = graph.input if definition.name == "input" else graph.param
        outputs: tuple[Value, ...] = (build(canonical["name"], canonical["shape"], canonical["dtype"]),)
    else:
        outputs = graph.add(definition.name, operands, attrs).outputs
    stored = [tuple(t) if isinstance(t, list) else t for t in _list(entry, "out")]
    inferred = [(v.dtype.value, v.shape.to_json()) for v in outputs]
    if stored != inferred:
        raise GraphError(f"{definition.name}: stored types {stored} are not the inferred {inferred}")


def _object(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key)
    if not isinstance(value, dict):
        raise GraphError(f"{key}: expected an object")
    return value


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list):
        raise GraphError(f"{key}: expected a list")
    return value


def _value(graph: Graph, reference: Any) -> Value:
    """The value that ``[node, index]`` names; it must already exist, so a file cannot make a cycle."""
    pair = reference if isinstance(reference, list) else []
    if len(pair) != 2 or not all(type(p) is int and p >= 0 for p in pair):
        raise GraphError(f"expected a [node, result] pair, got {reference!r}")
    if pair[0] >= len(graph.nodes) or pair[1] >= len(graph.nodes[pair[0]].outputs):
        raise GraphError(f"uses result {pair[1]} of node {pair[0]}, which does not exist before it")
    return graph.nodes[pair[0]].outputs[pair[1]]


def _set_param(graph: Graph, key: str, tensor: np.ndarray) -> None:
    name = key.removeprefix("param/")
    value = graph.params.get(name)
    if value is None:
        raise GraphError(f"a tensor {key!r}, but no such parameter")
    if tensor.dtype != value.dtype.numpy:
        raise GraphError(f"parameter {name!r}: expected dtype {value.dtype.value}, got {tensor.dtype}")
    graph.set_init(name, tensor)
