"""The graph: nodes in order of creation, each with one or more values.

A node may only use values that exist when it is added, so a graph is acyclic and its node list is a valid
order of execution. Every node is checked in full when it is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stipple.errors import GraphError
from stipple.ir.attributes import AttrValue
from stipple.ir.dtype import DType
from stipple.ir.numbers import as_dtype, numbers_of
from stipple.ir.op import OpDef, lookup
from stipple.ir.printing import to_text
from stipple.ir.shape import Dim, Shape, ShapeLike, TensorType, check_user_symbol

Scalar = int | float | bool
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-/]{0,199}\Z")


class Value:
    """One output of a node: a typed edge of the graph.

    Arithmetic and comparison operators build elementwise nodes; numbers and NumPy arrays become constants of the
    value's dtype, which must be able to represent them (``i32 * 0.5`` is an error). ``==`` compares identity: use
    :func:`stipple.ir.equal` for an elementwise comparison.
    """

    __slots__ = ("index", "node", "type")

    __array_ufunc__ = None  # ``array * value`` is this class's __rmul__, not NumPy's loop over elements

    def __init__(self, node: Node, index: int, type_: TensorType) -> None:
        self.node = node
        self.index = index
        self.type = type_

    @property
    def graph(self) -> Graph:
        return self.node.graph

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def name(self) -> str:
        """The name in printed graphs: inputs and parameters have their own, other values a number."""
        given = self.node.attrs.get("name") if self.node.definition.source else None
        if isinstance(given, str):
            return given
        return str(self.node.id) if len(self.node.outputs) == 1 else f"{self.node.id}.{self.index}"

    def __repr__(self) -> str:
        return f"<%{self.name}: {self.type} from {self.node.op}>"

    def _binary(self, op: str, other: Operandish, swapped: bool = False) -> Value:
        rhs = self.graph.lift(other, self.dtype)
        pair = (rhs, self) if swapped else (self, rhs)
        return self.graph.add(op, pair).outputs[0]

    def __add__(self, other: Operandish) -> Value:
        return self._binary("add", other)

    def __radd__(self, other: Operandish) -> Value:
        return self._binary("add", other, swapped=True)

    def __sub__(self, other: Operandish) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: Operandish) -> Value:
        return self._binary("sub", other, swapped=True)

    def __mul__(self, other: Operandish) -> Value:
        return self._binary("mul", other)

    def __rmul__(self, other: Operandish) -> Value:
        return self._binary("mul", other, swapped=True)

    def __truediv__(self, other: Operandish) -> Value:
        return self._binary("div", other)

    def __rtruediv__(self, other: Operandish) -> Value:
        return self._binary("div", other, swapped=True)

    def __pow__(self, other: Operandish) -> Value:
        return self._binary("pow", other)

    def __rpow__(self, other: Operandish) -> Value:
        return self._binary("pow", other, swapped=True)

    def __matmul__(self, other: Operandish) -> Value:
        return self._binary("matmul", other)

    def __rmatmul__(self, other: Operandish) -> Value:
        return self._binary("matmul", other, swapped=True)

    def __neg__(self) -> Value:
        return self.graph.add("neg", [self]).outputs[0]

    def __abs__(self) -> Value:
        return self.graph.add("abs", [self]).outputs[0]

    def __lt__(self, other: Operandish) -> Value:
        return self._binary("less", other)

    def __le__(self, other: Operandish) -> Value:
        return self._binary("less_equal", other)

    def __gt__(self, other: Operandish) -> Value:
        return self._binary("less", other, swapped=True)

    def __ge__(self, other: Operandish) -> Value:
        return self._binary("less_equal", other, swapped=True)

    def __bool__(self) -> bool:
        raise GraphError("a graph value has no truth value while the graph is built; use ir.where")


Operandish = Value | int | float | bool | np.generic | np.ndarray
"""The other operand of a binary op: another value, or numbers that are converted to its dtype."""


class Node:
    """One operation: an op, its operands, its attributes, and the values it produces."""

    __slots__ = ("attrs", "definition", "graph", "id", "inputs", "outputs")

    def __init__(
        self,
        graph: Graph,
        id_: int,
        definition: OpDef,
        inputs: tuple[Value, ...],
        attrs: Mapping[str, AttrValue],
        types: Sequence[TensorType],
    ) -> None:
        self.graph = graph
        self.id = id_
        self.definition = definition
        self.inputs = inputs
        self.attrs = attrs
        self.outputs = tuple(Value(self, i, t) for i, t in enumerate(types))

    @property
    def op(self) -> str:
        return self.definition.name

    @property
    def operands(self) -> Any:
        """The inputs by name, as the op's record; those of a variadic op as a tuple."""
        return self.definition.named_operands(self.inputs)

    @property
    def results(self) -> Any:
        """The outputs by name, as the op's record."""
        return self.definition.result_record(*self.outputs)

    def result(self, name: str) -> Value:
        """The output with this name."""
        try:
            return self.outputs[self.definition.results.index(name)]
        except ValueError:
            known = ", ".join(self.definition.results)
            raise GraphError(f"{self.op}: no result {name!r}; it has: {known}") from None

    def used(self) -> Any:
        """Which of its outputs another node or the graph's roots use, as the record of its results."""
        read = {v for n in self.graph.nodes for v in n.inputs} | set(self.graph.roots)
        return self.definition.result_record(*(v in read for v in self.outputs))

    def __repr__(self) -> str:
        return f"<node {self.id}: {self.op}>"


class Graph:
    """A tensor program. Built by adding nodes; run by :class:`stipple.runtime.Session`.

    ``inputs`` are fed on every run, ``params`` live in the executable, ``outputs`` are what a run returns,
    and ``updates`` map each parameter to its next value.
    """

    def __init__(self, name: str = "graph") -> None:
        if not isinstance(name, str) or not _NAME.match(name):
            raise GraphError(f"graph name: letters, digits and _.-/ expected, got {name!r}")
        self.name = name
        self.nodes: list[Node] = []
        self.inputs: dict[str, Value] = {}
        self.params: dict[str, Value] = {}
        self.param_values: dict[str, np.ndarray] = {}
        self.outputs: dict[str, Value] = {}
        self.updates: dict[str, Value] = {}
        self._fresh = 0

    # --- building -----------------------------------------------------------------------------------------
    def add(self, op: str, inputs: Iterable[Value] = (), attrs: Mapping[str, AttrValue] | None = None) -> Node:
        """Add a node. Raises GraphError, naming the op and the argument, if an operand or attribute is invalid."""
        definition = lookup(op)
        if definition.source:
            raise GraphError(f"{op}: created by Graph.{op}(), not by Graph.add()")
        return self._append(definition, inputs, attrs or {})

    def _append(self, definition: OpDef, inputs: Iterable[Value], attrs: Mapping[str, AttrValue]) -> Node:
        if isinstance(inputs, Value):
            raise GraphError(f"{definition.name}: inputs: expected a list of graph values, got a single one")
        operands = tuple(inputs)
        for i, value in enumerate(operands):
            where = f"{definition.name}: operand {i}"
            if not isinstance(value, Value):
                raise GraphError(f"{where}: expected a graph value, got {type(value).__name__}")
            if value.graph is not self:
                raise GraphError(f"{where}: belongs to the graph {value.graph.name!r}, not to {self.name!r}")
        canonical = definition.normalise_attrs(attrs)
        mark = self._fresh
        try:
            types = definition.infer_types([v.type for v in operands], canonical, self.fresh_dim)
        except GraphError:
            self._fresh = mark
            raise
        node = Node(self, len(self.nodes), definition, operands, MappingProxyType(canonical), types)
        self.nodes.append(node)
        return node

    def fresh_dim(self, base: str) -> Dim:
        """A new symbol for a dimension that is known only after a node has run."""
        self._fresh += 1
        return Dim.of(f"{base}.{self._fresh}")

    def input(self, name: str, shape: ShapeLike, dtype: DType | str = DType.F32) -> Value:
        """A value that is fed on every run."""
        value = self._source("input", name, shape, dtype)
        self.inputs[name] = value
        return value

    def param(
        self, name: str, shape: ShapeLike, dtype: DType | str = DType.F32, init: ArrayLike | None = None
    ) -> Value:
        """A value that the executable keeps between runs; its initial value ``init`` is stored with the graph."""
        value = self._source("param", name, shape, dtype)
        self.params[name] = value
        if init is not None:
            self.set_init(name, init)
        return value

    def set_init(self, name: str, init: ArrayLike) -> None:
        """Set a parameter's initial value. It must match the parameter's type."""
        array = self.checked_init(name, init)
        array.setflags(write=False)
        self.param_values[name] = array

    def checked_init(self, name: str, init: ArrayLike) -> np.ndarray:
        """A value as an array of a parameter's type; raises GraphError that says what was expected."""
        if name not in self.params:
            raise GraphError(f"param {name!r}: the graph has no such parameter")
        type_ = self.params[name].type
        try:
            array = as_dtype(init, type_.dtype)
        except ValueError as error:
            raise GraphError(f"param {name!r}: init: {type_.dtype.value}: {error}") from None
        fits = array.ndim == type_.shape.rank and all(
            d.value is None or d.value == n for d, n in zip(type_.shape, array.shape, strict=True)
        )
        if not fits:
            raise GraphError(f"param {name!r}: init: expected shape {type_.shape}, got {list(array.shape)}")
        return array

    def _source(self, op: str, name: str, shape: ShapeLike, dtype: DType | str) -> Value:
        if not isinstance(name, str) or not _NAME.match(name):
            raise GraphError(f"{op}: name: letters, digits and _.-/ expected, got {name!r}")
        if name in self.inputs or name in self.params:
            raise GraphError(f"{op}: the name {name!r} is taken")
        dims = Shape(shape)
        for symbol in dims.symbols:
            check_user_symbol(symbol)
        for dim in dims:
            if dim.value is None and dim.symbol is None:
                raise GraphError(f"{op}: {name!r}: dimensions are ints or plain symbols, got {dim}")
        attrs = {"name": name, "shape": dims, "dtype": DType.of(dtype)}
        return self._append(lookup(op), (), attrs).outputs[0]

    def constant(self, value: ArrayLike, dtype: DType | str | None = None) -> Value:
        """A value stored in the graph. Without ``dtype``, NumPy's choice; float64 stays f64."""
        try:
            given = numbers_of(value)
            chosen = DType.of(dtype if dtype is not None else np.int32 if given.dtype == np.int64 else given.dtype)
            array = as_dtype(given, chosen)
        except ValueError as error:
            raise GraphError(f"constant: {error}") from None
        return self.add("constant", (), {"value": array}).outputs[0]

    def lift(self, value: Operandish, dtype: DType) -> Value:
        """The value itself, or a constant of ``dtype`` for numbers, which the dtype must be able to represent."""
        if isinstance(value, Value):
            return value
        if not isinstance(value, (bool, int, float, np.generic, np.ndarray)):
            raise GraphError(f"expected a graph value or a number, got {type(value).__name__}")
        try:
            return self.add("constant", (), {"value": as_dtype(value, dtype)}).outputs[0]
        except ValueError as error:
            raise GraphError(
                f"a number used with {dtype.value}: {error}; cast the value, or use another number"
            ) from None

    def output(self, name: str, value: Value) -> Value:
        """Make a value one of the graph's results under a name. Each name can be written once."""
        if not isinstance(name, str) or not _NAME.match(name):
            raise GraphError(f"output: name: letters, digits and _.-/ expected, got {name!r}")
        if name in self.outputs:
            raise GraphError(f"output: {name!r} is already written by %{self.outputs[name].name}")
        self._own(value, f"output {name!r}")
        self.outputs[name] = value
        return value

    def update(self, param: Value, value: Value) -> None:
        """After each run, ``param`` takes the value ``value``. Each parameter can be updated once.

        Symbolic dimensions of ``param`` may have another size in ``value``: a graph can change how many rows
        its parameters have.
        """
        self._own(value, "update")
        self._own(param, "update")
        name = param.name
        if self.params.get(name) is not param:
            raise GraphError(f"update: %{name} is not a parameter of the graph")
        if name in self.updates:
            raise GraphError(f"update: parameter {name!r} is already written by %{self.updates[name].name}")
        if not value.type.may_follow(param.type):
            raise GraphError(f"update: parameter {name!r}: expected {param.type}, got {value.type}")
        self.updates[name] = value

    def _own(self, value: Value, where: str) -> None:
        if not isinstance(value, Value):
            raise GraphError(f"{where}: expected a graph value, got {type(value).__name__}")
        if value.graph is not self:
            raise GraphError(f"{where}: the value belongs to another graph")

    # --- reading ------------------------------------------------------------------------------------------
    @property
    def roots(self) -> list[Value]:
        """What a run must produce: outputs, then updates."""
        return [*self.outputs.values(), *self.updates.values()]

    def live_nodes(self) -> set[int]:
        """Ids of the nodes that some root depends on."""
        live: set[int] = {v.node.id for v in self.roots}
        for node in reversed(self.nodes):
            if node.id in live:
                live.update(v.node.id for v in node.inputs)
        return live

    def uses(self) -> dict[Value, list[Node]]:
        """The nodes that use each value (a node appears once per operand)."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return found

    def count(self, op: str) -> int:
        """How many nodes have this op."""
        return sum(node.op == op for node in self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<graph {self.name!r}: {len(self.nodes)} nodes>"

    def __str__(self) -> str:
        return to_text(self)
