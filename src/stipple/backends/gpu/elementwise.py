"""Elementwise nodes and fused groups: one generated kernel each, whatever the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stipple.backends.gpu.buffers import WGSL_TYPES, GpuBuffer
from stipple.backends.gpu.device import Gpu, shader_text
from stipple.ir.attributes import AttrValue
from stipple.ir.dtype import DType
from stipple.ir.graph import Node
from stipple.ir.ops.elementwise import Program, program_of

FUNCTIONS = """
fn power(x: f32, y: f32) -> f32 {
  if (x >= 0.0) { return pow(x, y); }
  let whole = floor(y);
  if (whole != y) { return pow(x, y); }
  let size = pow(-x, y);
  return select(size, -size, (i32(whole) & 1) != 0);
}
fn log_plus(x: f32) -> f32 { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }
"""

_FLOAT = {
    "neg": "-{0}", "abs": "abs({0})", "sign": "sign({0})", "floor": "floor({0})", "exp": "exp({0})", "log": "log({0})",
    "sqrt": "sqrt({0})", "square": "({0} * {0})", "reciprocal": "(1.0 / {0})", "sin": "sine({0})", "cos": "cosine({0})",
    "tanh": "tanh(clamp({0}, -15.0, 15.0))", "sigmoid": "(1.0 / (1.0 + exp(-{0})))", "softplus": "log_plus({0})",
    "relu": "max({0}, 0.0)", "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "div": "({0} / {1})",
    "pow": "power({0}, {1})", "maximum": "max({0}, {1})", "minimum": "min({0}, {1})",
}  # fmt: skip
_COMPARE = {"less": "({0} < {1})", "less_equal": "({0} <= {1})", "equal": "({0} == {1})"}
_TRUTH = {"isfinite": "((bitcast<u32>({0}) & 0x7f800000u) != 0x7f800000u)"}  # no compiler assumes it away
_LOGIC = {"logical_and": "({0} && {1})", "logical_or": "({0} || {1})", "logical_not": "!{0}"}
_INTEGER = ("neg", "abs", "sign", "add", "sub", "mul", "maximum", "minimum", "square")


def supported(node: Node) -> bool:
    """Whether every step has a formula for its types."""
    try:
        _statements(program_of(node), [v.dtype for v in node.inputs])
    except KeyError:
        return False
    return True


def _statements(program: Program, dtypes: Sequence[DType]) -> tuple[list[str], DType]:
    """WGSL statements for v0, v1, ... (the operands) and the steps after them; the last one's dtype."""
    types = list(dtypes)
    lines = []
    for op, refs, attrs, _ in program:
        expression, made = _expression(op, [f"v{r}" for r in refs], [types[r] for r in refs], attrs)
        lines.append(f"  let v{len(types)} = {expression};")
        types.append(made)
    return lines, types[-1]


def _expression(
    op: str, names: Sequence[str], types: Sequence[DType], attrs: Mapping[str, AttrValue]
) -> tuple[str, DType]:
    if op == "where":
        return f"select({names[2]}, {names[1]}, {names[0]})", types[1]
    if op == "cast":
        return _cast(names[0], types[0], attrs["dtype"]), attrs["dtype"]
    if op == "clamp":
        if types[0] is not DType.F32:
            raise KeyError(op)
        return f"clamp({names[0]}, {_float(attrs['low'])}, {_float(attrs['high'])})", types[0]
    if op in _TRUTH:
        return _TRUTH[op].format(*names), DType.BOOL
    if op in _COMPARE:
        return _COMPARE[op].format(*names), DType.BOOL
    if op in _LOGIC:
        return _LOGIC[op].format(*names), DType.BOOL
    if types[0] is DType.F32 or (types[0] is DType.I32 and op in _INTEGER):
        return _FLOAT[op].format(*names), types[0]
    raise KeyError(op)


def _float(value: float) -> str:
    limited = max(min(float(value), 3.4e38), -3.4e38)
    return f"f32({limited!r})"


def _cast(name: str, source: DType, target: DType) -> str:
    if target is DType.BOOL:
        return name if source is DType.BOOL else f"({name} != {WGSL_TYPES[source]}(0))"
    if source is DType.BOOL:
        return f"select({WGSL_TYPES[target]}(0), {WGSL_TYPES[target]}(1), {name})"
    if target is DType.U8:
        return f"u32(clamp(trunc({name}), 0.0, 255.0))" if source is DType.F32 else f"u32(clamp(i32({name}), 0, 255))"
    return f"{WGSL_TYPES[target]}({name})"


def run(gpu: Gpu, node: Node, inputs: Sequence[GpuBuffer], out: GpuBuffer) -> None:
    """Compute an elementwise node into ``out``."""
    lines, made = _statements(program_of(node), [b.dtype for b in inputs])
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
        load = f"a{k}[{where}]"
        body.append(f"  let v{k} = {load} != 0u;" if b.dtype is DType.BOOL else f"  let v{k} = {load};")
    last = f"v{len(inputs) + len(lines) - 1}"
    body += lines
    body.append(f"  out[i] = select(0u, 1u, {last});" if made is DType.BOOL else f"  out[i] = {last};")
    reads = {f"a{k}": b for k, b in enumerate(inputs)}
    text = "\n".join(body)
    functions = FUNCTIONS + (shader_text("trigonometry") if "sine(" in text else "")
    gpu.each(f"elementwise.{node.op}", text, reads, {"out": out}, out.size, params, functions)


def _terms(k: int, shape: tuple[int, ...], out: tuple[int, ...], params: dict[str, int | float]) -> list[str]:
    """The index of a broadcast operand as a sum over coordinates."""
    terms, stride, shift = [], 1, len(out) - len(shape)
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] != 1:
            params[f"s{k}_{axis}"] = stride
            terms.append(f"c{axis + shift} * P.s{k}_{axis}")
        stride *= shape[axis]
    return terms
