"""Elementwise ops with NumPy broadcasting.

An op is defined here with its NumPy function; the GPU's formula for it is in ``backends/gpu/elementwise.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stipple.errors import GraphError
from stipple.ir.attributes import Attr
from stipple.ir.dtype import DType
from stipple.ir.graph import Operandish, Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.structure import known_value, one, sum_to
from stipple.ir.shape import TensorType, broadcast_shapes

NumpyFn = Callable[..., Any]
"""An op's function of NumPy arrays, which the reference and the CPU use."""

Rule = Callable[[VjpContext, "Value"], "Sequence[Value | None]"]

Unary = Callable[["Value"], "Value"]


def _infer_same(c: InferContext) -> list[TensorType]:
    return [c.types[0]]


def _broadcast(c: InferContext, dtype: DType) -> list[TensorType]:
    shape = c.types[0].shape
    for type_ in c.types[1:]:
        joined = broadcast_shapes(shape, type_.shape)
        if joined is None:
            c.fail(f"shapes {' and '.join(str(t.shape) for t in c.types)} do not broadcast together")
        shape = joined
    return [TensorType(shape, dtype)]


def _infer_binary(c: InferContext) -> list[TensorType]:
    if c.types[0].dtype is not c.types[1].dtype:
        c.fail(f"operands have different dtypes: {c.types[0]} and {c.types[1]}")
    return _broadcast(c, c.types[0].dtype)


def _infer_compare(c: InferContext) -> list[TensorType]:
    return [TensorType(_infer_binary(c)[0].shape, DType.BOOL)]


def _unary(name: str, numpy: NumpyFn, doc: str, rule: Rule | None) -> Callable[[Value], Value]:
    def vjp(g: VjpContext) -> Sequence[Value | None]:
        assert rule is not None
        return rule(g, g.cotangent())

    register(
        OpDef(
            name,
            (Operand("x"),),
            ("out",),
            _infer_same,
            doc,
            vjp=vjp if rule else (lambda g: [None]),
            elementwise=True,
            numpy=numpy,
            inplace={0: 0},
        )
    )

    def build(x: Value) -> Value:
        return one(name, [x])

    build.__name__, build.__doc__ = name, doc
    return build


def _binary(name: str, numpy: NumpyFn, doc: str, rule: Rule) -> Callable[[Operandish, Operandish], Value]:
    def vjp(g: VjpContext) -> Sequence[Value | None]:
        parts = rule(g, g.cotangent())
        return [None if p is None else sum_to(p, v.shape) for p, v in zip(parts, g.inputs, strict=True)]

    kind = "number" if name in ("add", "sub", "mul", "maximum", "minimum") else "float"
    operands = (Operand("a", dtype=kind), Operand("b", dtype=kind))
    register(
        OpDef(name, operands, ("out",), _infer_binary, doc, vjp=vjp, elementwise=True, inplace={0: 0}, numpy=numpy)
    )

    def build(a: Operandish, b: Operandish) -> Value:
        return _two(name, a, b)

    build.__name__, build.__doc__ = name, doc
    return build


def _compare(name: str, numpy: NumpyFn, doc: str) -> Callable[[Operandish, Operandish], Value]:
    kind = "any" if name == "equal" else "number"
    operands = (Operand("a", dtype=kind), Operand("b", dtype=kind))
    register(
        OpDef(name, operands, ("out",), _infer_compare, doc, vjp=lambda g: [None, None], elementwise=True, numpy=numpy)
    )

    def build(a: Operandish, b: Operandish) -> Value:
        return _two(name, a, b)

    build.__name__, build.__doc__ = name, doc
    return build


def _two(name: str, a: Operandish, b: Operandish) -> Value:
    known = _known(name, a, b)
    graph, dtype = known.graph, known.dtype
    return one(name, [graph.lift(a, dtype), graph.lift(b, dtype)])


def _known(op: str, *operands: Operandish) -> Value:
    """The first operand that is a graph value: it determines the graph and dtype of numbers."""
    for operand in operands:
        if isinstance(operand, Value):
            return operand
    raise GraphError(f"{op}: at least one operand must be a graph value")


def _numpy_sigmoid(x: Any) -> Any:
    return np.asarray(1 / (1 + np.exp(-x)))


# --- unary ------------------------------------------------------------------------------------------------
neg = _unary("neg", np.negative, "-x", lambda g, ct: [-ct])
abs_: Unary = _unary("abs", np.abs, "The magnitude; its gradient at 0 is 0.", lambda g, ct: [ct * sign(g.operands.x)])
sign: Unary = _unary("sign", np.sign, "-1, 0 or 1; 0 for both zeros, NaN for NaN.", None)
ceil = _unary("ceil", np.ceil, "The smallest integer not below x; infinities and NaN are unchanged.", None)
floor = _unary("floor", np.floor, "The largest integer not above x; infinities and NaN are unchanged.", None)
exp = _unary("exp", np.exp, "e to the power x; 0 for -inf, inf where it overflows.", lambda g, ct: [ct * g.results.out])
log = _unary(
    "log", np.log, "The natural logarithm; -inf for 0, NaN for negative numbers.", lambda g, ct: [ct / g.operands.x]
)
sqrt = _unary("sqrt", np.sqrt, "The square root; NaN for negative numbers.", lambda g, ct: [ct * 0.5 / g.results.out])
square: Unary = _unary("square", np.square, "x * x; inf where it overflows.", lambda g, ct: [ct * 2.0 * g.operands.x])
reciprocal = _unary(
    "reciprocal",
    np.reciprocal,
    "1 / x; infinite for zeros, with their sign.",
    lambda g, ct: [-ct * square(g.results.out)],
)
sin: Unary = _unary(
    "sin", np.sin, "The sine of x in radians; NaN for infinities.", lambda g, ct: [ct * cos(g.operands.x)]
)
cos: Unary = _unary(
    "cos", np.cos, "The cosine of x in radians; NaN for infinities.", lambda g, ct: [-ct * sin(g.operands.x)]
)
tanh = _unary(
    "tanh",
    np.tanh,
    "The hyperbolic tangent; -1 and 1 for infinities.",
    lambda g, ct: [ct * (1.0 - square(g.results.out))],
)
sigmoid = _unary(
    "sigmoid",
    _numpy_sigmoid,
    "1 / (1 + exp(-x)); 0 and 1 for infinities.",
    lambda g, ct: [ct * g.results.out * (1.0 - g.results.out)],
)
softplus = _unary(
    "softplus",
    lambda x: np.logaddexp(x.dtype.type(0), x),
    "log(1 + exp(x)); 0 for -inf, inf for inf.",
    lambda g, ct: [ct * sigmoid(g.operands.x)],
)
relu = _unary(
    "relu",
    lambda x: np.maximum(x, x.dtype.type(0)),
    "x where positive, else 0, NaN for NaN; its gradient at 0 is 0.",
    lambda g, ct: [where(g.operands.x > 0.0, ct, 0.0)],
)

# --- comparisons and logic --------------------------------------------------------------------------------
less = _compare("less", np.less, "a < b; false for NaN.")
less_equal = _compare("less_equal", np.less_equal, "a <= b; false for NaN.")
equal = _compare("equal", np.equal, "a == b; false for NaN, 0 equals -0.")


def _logic(name: str, numpy: NumpyFn, count: int, doc: str) -> None:
    operands = tuple(Operand(n, dtype="bool") for n in "ab"[:count])
    register(
        OpDef(
            name,
            operands,
            ("out",),
            lambda c: _broadcast(c, DType.BOOL),
            doc,
            vjp=lambda g: [None] * count,
            elementwise=True,
            numpy=numpy,
        )
    )


_logic("logical_and", np.logical_and, 2, "True where both are.")
_logic("logical_or", np.logical_or, 2, "True where at least one is.")
_logic("logical_not", np.logical_not, 1, "True where x is false.")


def logical_and(a: Value, b: Value) -> Value:
    return one("logical_and", [a, b])


def logical_or(a: Value, b: Value) -> Value:
    return one("logical_or", [a, b])


def logical_not(a: Value) -> Value:
    return one("logical_not", [a])


register(
    OpDef(
        "isfinite",
        (Operand("x"),),
        ("out",),
        lambda c: [TensorType(c.types[0].shape, DType.BOOL)],
        "Neither infinite nor NaN.",
        vjp=lambda g: [None],
        elementwise=True,
        numpy=np.isfinite,
    )
)


def isfinite(x: Value) -> Value:
    return one("isfinite", [x])


# --- binary -----------------------------------------------------------------------------------------------
def _pow_rule(g: VjpContext, ct: Value) -> list[Value | None]:
    base, power = g.inputs
    # x^0 is 1 everywhere, but 0 * 0^-1 is not a number.
    to_base = ct * where(equal(power, 0.0), 0.0, power * pow_(base, power - 1.0))
    # x^p has a derivative in p only where log x exists; 0 elsewhere keeps integer powers of negatives usable.
    safe = where(base > 0.0, base, 1.0)
    return [to_base, where(base > 0.0, ct * g.results.out * log(safe), 0.0)]


def _tie_rule(first_wins: Callable[[Value, Value], Value]) -> Rule:
    """Gradient of maximum / minimum: all to the winner, half to each in a tie."""

    def rule(g: VjpContext, ct: Value) -> list[Value | None]:
        a, b = g.inputs
        half = where(equal(a, b), ct * 0.5, 0.0)
        return [where(first_wins(a, b), ct, half), where(first_wins(b, a), ct, half)]

    return rule


add = _binary("add", np.add, "a + b; integers wrap around.", lambda g, ct: [ct, ct])
sub = _binary("sub", np.subtract, "a - b; integers wrap around.", lambda g, ct: [ct, -ct])
mul = _binary("mul", np.multiply, "a * b; integers wrap around.", lambda g, ct: [ct * g.operands.b, ct * g.operands.a])
div = _binary(
    "div",
    np.divide,
    "a / b; infinite or NaN where b is 0.",
    lambda g, ct: [ct / g.operands.b, -ct * g.results.out / g.operands.b],
)
pow_ = _binary(
    "pow",
    np.power,
    "a to the power b: 1 where b is 0 or a is 1, NaN for negative a unless b is whole; the gradient in a is 0 where b "
    "is 0, in b where a <= 0.",
    _pow_rule,
)
maximum = _binary(
    "maximum",
    np.maximum,
    "The larger, NaN if either is; a tie splits the gradient evenly.",
    _tie_rule(lambda a, b: b < a),
)
minimum = _binary(
    "minimum",
    np.minimum,
    "The smaller, NaN if either is; a tie splits the gradient evenly.",
    _tie_rule(lambda a, b: a < b),
)


# --- where, clamp, cast -----------------------------------------------------------------------------------
def _infer_where(c: InferContext) -> list[TensorType]:
    if c.operands.a.dtype is not c.operands.b.dtype:
        c.fail(f"a and b have different dtypes: {c.operands.a} and {c.operands.b}")
    return _broadcast(c, c.operands.a.dtype)


def _vjp_where(g: VjpContext) -> list[Value | None]:
    condition, a, b = g.inputs
    ct = g.cotangent()
    return [
        None,
        sum_to(where(condition, ct, 0.0), a.shape),
        sum_to(where(condition, 0.0, ct), b.shape),
    ]


register(
    OpDef(
        "where",
        (Operand("condition", dtype="bool"), Operand("a", dtype="any"), Operand("b", dtype="any")),
        ("out",),
        _infer_where,
        "a where the condition holds, else b; what is not selected does not matter, NaN or not.",
        vjp=_vjp_where,
        elementwise=True,
        numpy=np.where,
    )
)


def where(condition: Value, a: Operandish, b: Operandish) -> Value:
    known = _known("where", a, b)
    graph = known.graph
    return one("where", [condition, graph.lift(a, known.dtype), graph.lift(b, known.dtype)])


def _infer_clamp(c: InferContext) -> list[TensorType]:
    if c.attrs["low"] > c.attrs["high"]:
        c.fail(f"low: expected at most high = {c.attrs['high']}, got {c.attrs['low']}")
    return [c.types[0]]


def _vjp_clamp(g: VjpContext) -> list[Value]:
    x, low, high = g.operands.x, g.attrs["low"], g.attrs["high"]
    inside = logical_and(x >= low, x <= high)
    return [where(inside, g.cotangent(), 0.0)]


register(
    OpDef(
        "clamp",
        (Operand("x"),),
        ("out",),
        _infer_clamp,
        "x limited to low and high, NaN for NaN; the gradient is passed on where low <= x <= high.",
        attrs=(Attr("low", "float", default=float("-inf")), Attr("high", "float", default=float("inf"))),
        vjp=_vjp_clamp,
        elementwise=True,
        inplace={0: 0},
    )
)


def clamp(x: Value, low: float = float("-inf"), high: float = float("inf")) -> Value:
    return one("clamp", [x], low=low, high=high)


register(
    OpDef(
        "cast",
        (Operand("x", dtype="any"),),
        ("out",),
        lambda c: [TensorType(c.types[0].shape, c.attrs["dtype"])],
        "The same values as another dtype: integers drop the fraction and saturate, with 0 for NaN; bool is true for "
        "all but 0. Between floats the gradient is passed on; integers have none.",
        attrs=(Attr("dtype", "dtype", required=True),),
        vjp=lambda g: [cast(g.cotangent(), g.operands.x.dtype) if g.operands.x.dtype.is_float else None],
        elementwise=True,
    )
)


def cast(x: Value, dtype: DType | str) -> Value:
    known_value("cast: x", x)
    target = DType.of(dtype)
    return x if x.dtype is target else one("cast", [x], dtype=target)


__all__ = [
    "abs_", "add", "cast", "ceil", "clamp", "cos", "div", "equal", "exp", "floor", "isfinite", "less", "less_equal",
    "log", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "mul", "neg", "pow_", "reciprocal",
    "relu", "sigmoid", "sign", "sin", "softplus", "sqrt", "square", "sub", "tanh", "where",
]  # fmt: skip
