"""Random graphs: every op family, several dtypes, views of views, symbolic sizes, parameters that read each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fuzz import feeds
from stipple import ir
from stipple.errors import GraphError
from stipple.ir.passes import FuseElementwise
from stipple.ir.shape import ShapeLike, broadcast_shapes

UNARY = (
    "neg", "abs", "sign", "ceil", "floor", "exp", "log", "sqrt", "square", "reciprocal", "sin", "cos", "tanh",
    "sigmoid", "softplus", "relu",
)  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "pow", "maximum", "minimum")
INTEGER = ("add", "sub", "mul", "maximum", "minimum")
COMPARE = ("less", "less_equal", "equal")
SYMBOLS = ("N", "M")
MOST_ELEMENTS = 400


@dataclass
class Program:
    """A graph, and what kind of values each of its inputs and parameters takes (see ``feeds.array``)."""

    graph: ir.Graph
    kinds: dict[str, str] = field(default_factory=dict)


class Generator:
    """Builds one random graph; the same ``rng`` builds the same one."""

    def __init__(self, rng: random.Random, calm: bool) -> None:
        self.rng = rng
        self.graph = ir.Graph("fuzz")
        self.program = Program(self.graph)
        self.pool: list[ir.Value] = []
        self.calm = calm
        self.float = "f64" if rng.random() < 0.12 else "f32"
        self.symbols = rng.choice(((), ("N",), ("N",), SYMBOLS))

    # --- choosing -----------------------------------------------------------------------------------------
    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def values(self, fits: Callable[[ir.Value], bool]) -> list[ir.Value]:
        return [v for v in self.pool if fits(v)]

    def value(self, fits: Callable[[ir.Value], bool], instead: ir.Value | None = None) -> ir.Value:
        """A value that fits; late ones more often, so that chains grow. Raises UnfitError if there is none."""
        found = self.values(fits)
        if not found:
            if instead is None:
                raise UnfitError
            return instead
        if self.chance(0.5):
            found = found[-4:]
        return self.rng.choice(found)

    def any_value(self, rank: int = 0) -> ir.Value:
        return self.value(lambda v: v.shape.rank >= rank)

    def a_float(self, rank: int = 0) -> ir.Value:
        return self.value(lambda v: v.dtype.value == self.float and v.shape.rank >= rank)

    def partner(self, x: ir.Value) -> ir.Value:
        """A value that broadcasts with x."""
        if self.chance(0.1) and x.dtype.value != "bool":
            numbers = (0.0, 1.0, 2.0, -1.0, 0.5, -0.0) if x.dtype.is_float else (0, 1, 2)
            return self.graph.constant(self.rng.choice(numbers), x.dtype)
        return self.value(lambda v: v.dtype is x.dtype and joins(v, x))

    def dim(self) -> int | str:
        if self.symbols and self.chance(0.55):
            return self.rng.choice(self.symbols)
        return self.rng.choice((1, 2, 2, 3, 3, 4))

    def shape(self) -> list[int | str]:
        rank = self.rng.choices((0, 1, 2, 3), (2, 4, 6, 2))[0]
        dims = [self.dim() for _ in range(rank)]
        while sum(isinstance(d, str) for d in dims) > 2:
            dims.remove(next(d for d in dims if isinstance(d, str)))
        return dims

    def dtype(self) -> str:
        return self.rng.choices((self.float, "i32", "u8", "bool"), (10, 2, 1, 2))[0]

    # --- sources ------------------------------------------------------------------------------------------
    def source(self, name: str, shape: ShapeLike, dtype: str, kind: str, param: bool = False) -> ir.Value:
        build = self.graph.param if param else self.graph.input
        made = build(name, shape, dtype)
        self.program.kinds[name] = kind
        self.pool.append(made)
        return made

    def sources(self) -> None:
        kind = "tame" if self.calm else "any"
        shapes = [self.shape() for _ in range(3)]
        for k in range(self.rng.randint(1, 3)):
            shape = self.rng.choice(shapes) if self.chance(0.7) else self.shape()
            self.source(f"x{k}", shape, self.float if k == 0 else self.dtype(), kind)
        for k in range(self.rng.randint(0, 4)):
            shape = self.rng.choice(shapes) if self.chance(0.85) else self.shape()
            dtype = self.float if self.chance(0.85) else self.dtype()
            self.source(f"p{k}", shape, dtype, kind, param=True)
        for symbol in self.symbols:
            if not any(symbol in v.shape.symbols for v in self.pool):
                self.source(f"size_{symbol}", [symbol], self.float, kind)

    # --- nodes --------------------------------------------------------------------------------------------
    def unary(self) -> ir.Value:
        return one(self.graph, self.rng.choice(UNARY), self.a_float())

    def binary(self) -> ir.Value:
        x = self.a_float() if self.chance(0.85) else self.value(lambda v: v.dtype.is_int)
        y = self.partner(x)
        pair = [x, y] if self.chance(0.5) else [y, x]
        return one(self.graph, self.rng.choice(BINARY if x.dtype.is_float else INTEGER), *pair)

    def truth(self) -> ir.Value:
        kind = self.rng.random()
        if kind < 0.6:
            x = self.any_value()
            ops = COMPARE if x.dtype.value != "bool" else ("equal",)
            return one(self.graph, self.rng.choice(ops), x, self.partner(x))
        if kind < 0.75:
            return ir.isfinite(self.a_float())
        x = self.value(lambda v: v.dtype.value == "bool")
        if kind > 0.93:
            return ir.logical_not(x)
        return one(self.graph, self.rng.choice(("logical_and", "logical_or")), x, self.partner(x))

    def where(self) -> ir.Value:
        condition = self.value(lambda v: v.dtype.value == "bool")
        a = self.value(lambda v: joins(v, condition))
        return one(self.graph, "where", condition, a, self.partner(a))

    def clamp(self) -> ir.Value:
        low, high = sorted(self.rng.choice((-1.0, 0.0, 0.3, 1.0, -2.5, 7.0)) for _ in range(2))
        if self.chance(0.2):
            low = float("-inf")
        if self.chance(0.2):
            high = float("inf")
        return ir.clamp(self.a_float(), low, high)

    def cast(self) -> ir.Value:
        targets = [self.float, "i32", "u8", "bool"]
        if self.float == "f64":
            targets.append("f32")
        return ir.cast(self.any_value(), self.rng.choice(targets))

    def neutral(self) -> ir.Value:
        """Arithmetic that a pass may simplify."""
        x = self.a_float()
        options: tuple[Callable[[], ir.Value], ...] = (
            lambda: x + 0.0,
            lambda: 0.0 + x,
            lambda: x - 0.0,
            lambda: x + -0.0,
            lambda: x * 1.0,
            lambda: 1.0 * x,
            lambda: x / 1.0,
            lambda: x**1.0,
            lambda: x**2.0,
            lambda: x**0.0,
            lambda: ir.neg(ir.neg(x)),
            lambda: x * 0.0,
            lambda: x - x,
            lambda: x / x,
            lambda: ir.sum(x, []),
            lambda: ir.mean(x, []),
            lambda: ir.concat([x], 0) if x.shape.rank else x * 1.0,
            lambda: ir.transpose(ir.transpose(x)),
            lambda: x + self.graph.constant([0.0] * 3, x.dtype),
        )
        return self.rng.choice(options)()

    def view(self) -> ir.Value:
        x = self.any_value()
        if self.chance(0.25):
            return ir.stop_gradient(x)
        dims = list(x.shape)
        options: list[Sequence[ir.Dim | int]] = [[x.shape.size], [1, *dims], [*dims, 1], [x.shape.size, 1]]
        if len(dims) >= 2:
            options += [[dims[0] * dims[1], *dims[2:]], [dims[1], dims[0], *dims[2:]]]
        if x.shape.rank > 4:
            raise UnfitError
        return ir.reshape(x, self.rng.choice(options))

    def repeat(self) -> ir.Value:
        """A node once more."""
        nodes = [n for n in self.graph.nodes if not n.definition.source and len(n.outputs) == 1]
        if not nodes:
            raise UnfitError
        node = self.rng.choice(nodes)
        return self.graph.add(node.op, node.inputs, node.attrs).outputs[0]

    def constant(self) -> ir.Value:
        dtype = self.dtype()
        if self.chance(0.4):
            value = self.rng.choice((0.0, 1.0, -1.5, 0.1, 3.0) if dtype == self.float else (0, 1))
            like = self.any_value()
            return ir.full(self.graph, like.shape if self.chance(0.7) else [self.rng.randint(1, 3)], value, dtype)
        shape = [self.rng.randint(1, 3) for _ in range(self.rng.randint(0, 2))]
        return self.graph.constant(feeds.array(self.rng, tuple(shape), dtype, "tame" if self.calm else "any"), dtype)

    def transpose(self) -> ir.Value:
        x = self.any_value(rank=2)
        return ir.transpose(x, self.rng.sample(range(x.shape.rank), x.shape.rank))

    def broadcast(self) -> ir.Value:
        x = self.value(lambda v: v.shape.rank <= 3)
        dims = [ir.Dim.of(self.dim()) if d == 1 and self.chance(0.6) else d for d in x.shape]
        if self.chance(0.4):
            dims.insert(0, ir.Dim.of(self.dim()))
        return ir.broadcast_to(x, dims)

    def narrow(self) -> ir.Value:
        x = self.any_value(rank=1)
        axis = self.rng.randrange(x.shape.rank)
        size = x.shape[axis]
        if size.value is not None:
            start = self.rng.randint(0, size.value)
            return ir.narrow(x, axis, start, self.rng.randint(0, size.value - start))
        if self.chance(0.15):
            return ir.narrow(x, axis, self.rng.choice((0, 1)), self.rng.choice((1, 2)))
        if self.chance(0.2):
            return ir.narrow(x, axis, 1, size - 1)
        return ir.narrow(x, axis, 0, size) if self.chance(0.5) else ir.narrow(x, axis, size, 0)

    def split(self) -> ir.Value:
        """One of both parts; what comes later may use the other."""
        x = self.any_value(rank=1)
        axis = self.rng.randrange(x.shape.rank)
        size = x.shape[axis]
        if size.value is not None:
            at: ir.Dim | int = self.rng.randint(0, size.value)
        else:
            at = 1 if self.chance(0.3) else self.rng.choice((0, size))
        parts = list(ir.split(x, axis, at))
        self.rng.shuffle(parts)
        self.pool.append(parts[1])
        return parts[0]

    def pad(self) -> ir.Value:
        x = self.any_value(rank=1)
        lengths: list[int | str] = [self.rng.choice((0, 0, 1, 2, *self.symbols)) for _ in range(2)]
        return ir.pad(x, self.rng.randrange(x.shape.rank), *lengths)

    def concat(self) -> ir.Value:
        x = self.any_value(rank=1)
        axis = self.rng.randrange(x.shape.rank)

        def fits(v: ir.Value) -> bool:
            return (
                v.dtype is x.dtype
                and v.shape.rank == x.shape.rank
                and all(a == b for k, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if k != axis)
            )

        parts = [x, *(self.value(fits) for _ in range(self.rng.randint(0, 2)))]
        self.rng.shuffle(parts)
        return ir.concat(parts, axis)

    def ids(self, rows: ir.Dim) -> ir.Value:
        """Indices below ``rows``: constant, fed, or computed."""
        number = rows.value
        shape = [self.rng.randint(1, 3) for _ in range(self.rng.choice((0, 1, 1, 2)))]
        if number is not None and number > 0 and self.chance(0.4):
            return self.graph.constant(feeds.array(self.rng, tuple(shape), "i32", f"ids:{number}"), "i32")
        fed: list[int | str] = list(shape)
        if fed and self.symbols and self.chance(0.4):
            fed[0] = self.rng.choice(self.symbols)
        made = self.source(f"ids{len(self.graph.nodes)}", fed, "i32", f"ids:{rows}", self.chance(0.2))
        return ir.minimum(made, self.graph.constant(2**31 - 1, "i32")) if self.chance(0.3) else made

    def gather(self) -> ir.Value:
        x = self.any_value(rank=1)
        return ir.gather(x, self.ids(x.shape[0]))

    def scatter(self, base: ir.Value | None = None) -> ir.Value:
        base = self.a_float(rank=1) if base is None else base
        ids = self.ids(base.shape[0])
        shape = ir.Shape([*ids.shape, *base.shape[1:]])
        same = self.values(lambda v: v.shape == shape and v.dtype is base.dtype)
        if same:
            return ir.scatter_add(base, ids, self.rng.choice(same))
        wider = self.values(lambda v: v.dtype is base.dtype and broadcast_shapes(v.shape, shape) == shape)
        if wider:
            return ir.scatter_add(base, ids, ir.broadcast_to(self.rng.choice(wider), shape))
        return ir.scatter_add(base, ids, ir.full(self.graph, shape, 0.5, base.dtype))

    def reduction(self) -> ir.Value:
        op = self.rng.choice(("sum", "sum", "mean", "reduce_max", "reduce_min"))
        x = self.a_float()
        axes = [k for k in range(x.shape.rank) if self.chance(0.5)]
        if op in ("reduce_max", "reduce_min") and self.chance(0.8):
            axes = [k for k in axes if x.shape[k].value]
        return self.graph.add(op, [x], {"axes": tuple(axes), "keepdims": self.chance(0.4)}).outputs[0]

    def matmul(self) -> ir.Value:
        a = self.value(lambda v: v.shape.rank == 2 and v.dtype.value == self.float)
        others = self.values(lambda v: v.shape.rank == 2 and v.dtype is a.dtype and v.shape[0] == a.shape[1])
        return ir.matmul(a, self.rng.choice(others) if others else ir.transpose(a))

    def adam(self, param: ir.Value | None = None) -> ir.AdamUpdate:
        x = self.a_float() if param is None else param
        others = [self.value(lambda v: v.type == x.type, x) for _ in range(3)]
        others[2] = ir.square(others[2]) if self.chance(0.7) else others[2]
        rate: ir.Value | float = self.rng.choice((0.1, 0.001, 1.0))
        scalars = self.values(lambda v: v.shape.rank == 0 and v.dtype is x.dtype)
        columns = self.values(
            lambda v: x.shape.rank >= 2 and tuple(v.shape) == tuple(x.shape)[1:] and v.dtype is x.dtype
        )
        if columns and self.chance(0.4):
            rate = self.rng.choice(columns)
        elif scalars and self.chance(0.2):
            rate = self.rng.choice(scalars)
        if "step" not in self.graph.inputs:
            self.source("step", [], x.dtype.value, "step")
        made = ir.adam(
            x, *others, rate, self.graph.inputs["step"],
            beta1=self.rng.choice((0.9, 0.0, 0.9999999)), beta2=self.rng.choice((0.999, 0.9999999, 0.0)),
            eps=self.rng.choice((1e-15, 1e-8)), visible=self.mask(x) if x.shape.rank and self.chance(0.4) else None,
        )  # fmt: skip
        self.pool += made
        return made

    def mask(self, x: ir.Value) -> ir.Value:
        """A bool for each row of x."""
        found = self.values(lambda v: v.dtype.value == "bool" and tuple(v.shape) == tuple(x.shape)[:1])
        if found:
            return self.rng.choice(found)
        if x.shape[0].symbol is None and x.shape[0].value is None:
            raise UnfitError
        return self.source(f"mask{len(self.graph.nodes)}", [x.shape[0]], "bool", "any")

    def image(self) -> ir.Value:
        """A loss of two small images, and its gradient."""
        size = self.rng.choice(((1, 1, 1), (2, 5, 2), (11, 11, 1), (12, 11, 1), (0, 2, 1)))
        if self.chance(0.6):
            size = (3, 4, 1)
        padding = self.rng.choice(("same", "same", "valid"))
        number = len(self.graph.nodes)
        fed = ["H", "W", size[2]] if self.chance(0.3) else list(size)
        kind = f"image:{size[0]}x{size[1]}"
        a, b = (self.source(f"image{number}{k}", fed, self.float, kind) for k in "ab")
        draw = self.rng.random()
        if draw < 0.3:
            loss = ir.image_l1(a, b)
        elif draw < 0.6:
            loss = ir.image_ssim(a, b, padding)
        else:
            both = ir.image_l1_ssim(a, b, padding)
            loss = both.l1 - 0.5 * both.ssim if self.chance(0.7) else self.rng.choice(both)
        if self.chance(0.6):
            self.pool += ir.grad(self.graph, loss, [a, b] if self.chance(0.6) else [self.rng.choice((a, b))])
        return loss

    def gradient(self) -> ir.Value:
        """Gradients of a sum of something."""
        x = self.a_float()
        if len(self.graph.nodes) > 60:
            raise UnfitError
        loss = ir.sum(x) if x.shape.rank else x
        choices = self.values(lambda v: v.dtype is x.dtype and v.node.id <= x.node.id)
        wrt = self.rng.sample(choices, min(len(choices), self.rng.randint(1, 3)))
        made = ir.grad(self.graph, loss, wrt)
        self.pool += made
        return self.rng.choice(made)

    # --- the whole ----------------------------------------------------------------------------------------
    def step(self) -> None:
        """One more node, or a few."""
        makers = (
            (self.unary, 6), (self.binary, 8), (self.truth, 3), (self.where, 4), (self.clamp, 1.5), (self.cast, 3),
            (self.neutral, 2), (self.view, 4), (self.repeat, 1.5), (self.constant, 2), (self.transpose, 2),
            (self.broadcast, 2), (self.narrow, 2.5), (self.split, 1), (self.pad, 1), (self.concat, 2),
            (self.gather, 1.5), (self.scatter, 1.2), (self.reduction, 3), (self.matmul, 1),
            (lambda: self.adam().param, 0.8), (self.gradient, 1.2), (self.image, 0.2),
        )  # fmt: skip
        maker = self.rng.choices([m for m, _ in makers], [w for _, w in makers])[0]
        try:
            made = maker()
        except UnfitError:
            return
        except GraphError as error:
            if not any(text in str(error) for text in _LIKELY):
                raise
            return
        if small(made):
            self.pool.append(made)

    def roots(self) -> None:
        """Outputs and updates: sources, views and constants among them, and parameters that read each other."""
        floats = self.pool
        for k in range(self.rng.randint(1, 4)):
            late = floats[len(floats) // 2 :] if self.chance(0.7) else floats
            self.graph.output(f"out{k}", self.rng.choice(late))
        for name in self.movable():
            if not self.chance(0.8):
                continue
            param = self.graph.params[name]
            try:
                value = self.next_of(param)
            except UnfitError:
                continue
            if name not in self.graph.updates and small(value):
                self.graph.update(param, value)
                if self.chance(0.3):
                    self.graph.output(f"old_{name}", self.rng.choice((param, ir.reshape(param, [param.shape.size]))))
                if self.chance(0.2):
                    self.graph.output(f"new_{name}", value)

    def next_of(self, param: ir.Value) -> ir.Value:
        """What a parameter may take next: an update that can be in place, or any value of its type."""
        kind = self.rng.random()
        if kind < 0.2 and param.dtype.is_float:
            made = self.adam(param)
            for other in self.graph.params.values():  # moments are parameters too, in a training step
                free = other.name not in self.graph.updates and other.name in self.movable()
                if free and other is not param and other.type == param.type and self.chance(0.5):
                    self.graph.update(other, self.rng.choice((made.m, made.v)))
            return made.param
        if kind < 0.3 and param.dtype.is_float and param.shape.rank:
            return self.scatter(param)
        if kind < 0.45 and param.dtype.is_float:
            return one(self.graph, self.rng.choice(UNARY), param)
        if kind < 0.6 and param.dtype.value != "bool":
            other = self.value(lambda v: v.type == param.type)
            return one(self.graph, self.rng.choice(("add", "sub", "mul")), param, other)
        if kind < 0.68:
            return self.value(lambda v: v.type.may_follow(param.type))
        return self.value(lambda v: v.type == param.type)

    def movable(self) -> list[str]:
        """Parameters that may be updated: not those that hold indices."""
        return [n for n in self.graph.params if not n.startswith("ids")]


class UnfitError(Exception):
    """The graph has no value that fits what was drawn."""


_LIKELY = ("carries no gradient", "has no gradient", "are outside axis", "dimensions are not negative",
           "has no element along an axis", "do not broadcast", "does not broadcast")  # fmt: skip
"""Refusals of builders that a draw may run into: bare shapes are not all that ops ask for."""


def one(graph: ir.Graph, op: str, *operands: ir.Value) -> ir.Value:
    return graph.add(op, operands).outputs[0]


def joins(a: ir.Value, b: ir.Value) -> bool:
    """Whether the shapes broadcast together."""
    return broadcast_shapes(a.shape, b.shape) is not None


def small(value: ir.Value) -> bool:
    """Whether the value stays small at every size that symbols take."""
    sizes = dict.fromkeys(value.shape.symbols, 4)
    return bool(value.shape.size.resolve(sizes) <= MOST_ELEMENTS)


def random_program(seed: int) -> Program:
    """The graph of a seed."""
    rng = random.Random(seed)
    generator = Generator(rng, calm=rng.random() < 0.5)
    generator.sources()
    for _ in range(rng.choice((3, 6, 10, 16, 24))):
        generator.step()
    program = generator.program
    if generator.chance(0.08):
        program.graph = fused(program)
        generator.graph = program.graph
        generator.pool = [v for n in program.graph.nodes for v in n.outputs]
        for _ in range(3):
            generator.step()
    generator.roots()
    ir.verify(program.graph)
    return program


def fused(program: Program) -> ir.Graph:
    """The graph with its elementwise groups fused, so that what is built on it, gradients too, meets them."""
    for k, node in enumerate(n for n in list(program.graph.nodes) if not n.definition.source):
        if k % 3 == 0:
            program.graph.output(f"kept{k}", node.outputs[0])
    made = FuseElementwise().run(program.graph).graph
    made.outputs.clear()
    return made
