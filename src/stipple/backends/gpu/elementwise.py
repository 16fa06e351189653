"""Elementwise nodes and fused groups: one generated kernel each, whatever the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.gpu.buffers import WGSL_TYPES, GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.ir.attributes import AttrValue
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.ops.fused import Program, program_of

_FLOAT = {
    "neg": "-{0}", "abs": "abs({0})", "sign": "signum({0})", "floor": "floor({0})", "ceil": "ceil({0})",
    "exp": "exp({0})",
    "log": "log({0})", "sqrt": "root({0})", "square": "({0} * {0})", "reciprocal": "(1.0 / {0})", "sin": "sine({0})",
    "cos": "cosine({0})", "tanh": "tangent({0})", "sigmoid": "(1.0 / (1.0 + exp(-{0})))",
    "softplus": "log_plus({0})", "relu": "rectified({0})", "add": "({0} + {1})", "sub": "({0} - {1})",
    "mul": "({0} * {1})", "div": "({0} / {1})", "pow": "power({0}, {1})", "maximum": "larger({0}, {1})",
    "minimum": "smaller({0}, {1})", "isfinite": "is_finite({0})", "less": "(ordered({0}, {1}) && {0} < {1})",
    "less_equal": "(ordered({0}, {1}) && {0} <= {1})", "equal": "(ordered({0}, {1}) && {0} == {1})",
}  # fmt: skip
_WITH_ITSELF = {"sub": "without_itself({0})", "div": "by_itself({0})"}
_COMPARE = {"less": "({0} < {1})", "less_equal": "({0} <= {1})", "equal": "({0} == {1})"}
_I32 = {
    "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "maximum": "max({0}, {1})",
    "minimum": "min({0}, {1})", **_COMPARE,
}  # fmt: skip
_U8 = {**_I32, **{op: f"({_I32[op]} & 255u)" for op in ("add", "sub", "mul")}}  # a word each, of which one byte is used
_BOOL = {
    "logical_and": "({0} && {1})", "logical_or": "({0} || {1})", "logical_not": "!{0}", "equal": _COMPARE["equal"]
}  # fmt: skip
_FORMULAS = {DType.F32: _FLOAT, DType.I32: _I32, DType.U8: _U8, DType.BOOL: _BOOL}
"""The formula of each op for operands of a dtype, as docs/values.md specifies it."""


def supported(node: Node) -> bool:
    """Whether every step has a formula for its types."""
    try:
        _statements(program_of(node), [v.dtype for v in node.inputs])
    except KeyError:
        return False
    return True


def _statements(program: Program, dtypes: Sequence[DType]) -> list[str]:
    """WGSL statements for the steps after v0, v1, ... (the operands). Raises KeyError if there is no formula."""
    types = list(dtypes)
    lines = []
    for op, refs, attrs, dtype in program:
        expression = _expression(op, [f"v{r}" for r in refs], [types[r] for r in refs], attrs)
        lines.append(f"  let v{len(types)} = {expression};")
        types.append(dtype)
    return lines


def _expression(op: str, names: Sequence[str], types: Sequence[DType], attrs: Mapping[str, AttrValue]) -> str:
    if op == "where":
        return f"select({names[2]}, {names[1]}, {names[0]})"
    if op == "cast":
        return _cast(types[0], attrs["dtype"]).format(*names)
    if op == "clamp" and types[0] is DType.F32:
        return _clamp(names[0], attrs["low"], attrs["high"])
    if types[0] is DType.F32 and op in _WITH_ITSELF and names[0] == names[1]:
        return _WITH_ITSELF[op].format(*names)
    return _FORMULAS[types[0]][op].format(*names)


def _clamp(name: str, low: float, high: float) -> str:
    """Infinite bounds have no effect, so they are left out; the others are rounded to float32."""
    clamped = name
    for end, function, nothing in ((low, "max", -np.inf), (high, "min", np.inf)):
        with np.errstate(over="ignore"):
            limit = np.float32(end)
        if limit != nothing:
            clamped = f"{function}({clamped}, from_bits({limit.view(np.uint32)}u))"
    return name if clamped == name else f"unless_nan({name}, {clamped})"


def _cast(source: DType, target: DType) -> str:
    if source is target:
        return "{0}"
    if source is DType.BOOL:
        return f"select({WGSL_TYPES[target]}(0), {WGSL_TYPES[target]}(1), {{0}})"
    if target is DType.BOOL:
        return "((bitcast<u32>({0}) << 1u) != 0u)" if source is DType.F32 else f"({{0}} != {WGSL_TYPES[source]}(0))"
    if target is DType.F32:
        return "f32({0})"
    if target is DType.I32:
        return "to_i32({0})" if source is DType.F32 else "i32({0})"
    return "to_u8({0})" if source is DType.F32 else "u32(clamp({0}, 0, 255))"


def run(gpu: Gpu, node: Node, inputs: Sequence[GpuBuffer], out: GpuBuffer) -> None:
    """Compute an elementwise node into ``out``."""
    program = program_of(node)
    lines = _statements(program, [b.dtype for b in inputs])
    body: list[str] = []
    params: dict[str, int | float] = {}
    strided = [k for k, b in enumerate(inputs) if b.shape != out.shape and b.size != 1]
    if strided:
        body.append("  var rest = i;")
        for axis in range(len(out.shape) - 1, -1, -1):
            params[f"d{axis}"] = out.shape[axis]
            body.append(f"  let c{axis} = rest % P.d{axis}; rest = rest / P.d{axis};")
    for k, b in enumerate(inputs):
        if b.shape == out.shape:
            where = "i"
        elif b.size == 1:
            where = "0u"
        else:
            where = " + ".join(_terms(k, b.shape, out.shape, params)) or "0u"
        load = f"a{k}({where})"
        body.append(f"  let v{k} = {load} != 0u;" if b.dtype is DType.BOOL else f"  let v{k} = {load};")
    last = f"v{len(inputs) + len(lines) - 1}"
    body += lines
    body.append(f"  out[i] = select(0u, 1u, {last});" if program[-1].dtype is DType.BOOL else f"  out[i] = {last};")
    reads = {f"a{k}": b for k, b in enumerate(inputs)}
    text = "\n".join(body)
    functions = shader_text("special") + (shader_text("trigonometry") if "sine(" in text else "")
    overwrites = tuple(("out", f"a{k}") for k, b in enumerate(inputs) if b.shape == out.shape)
    gpu.each(Kernel(f"elementwise.{node.op}", text, functions, overwrites), reads, {"out": out}, out.size, params)


def _terms(k: int, shape: tuple[int, ...], out: tuple[int, ...], params: dict[str, int | float]) -> list[str]:
    """The index of a broadcast operand as a sum over coordinates."""
    terms, stride, shift = [], 1, len(out) - len(shape)
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] != 1:
            params[f"s{k}_{axis}"] = stride
            terms.append(f"c{axis + shift} * P.s{k}_{axis}")
        stride *= shape[axis]
    return terms
