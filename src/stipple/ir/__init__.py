"""The tensor IR: typed, differentiable graphs whose first-class ops are the splat ops.

Build a :class:`Graph`, extend it with :func:`grad`, store it with :func:`save`, and run it with
:class:`stipple.runtime.Session`. ``docs/ir.md`` explains it on one page.
"""

from stipple.ir.autodiff import grad, pullback
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import REGISTRY, OpDef, Operand, register
from stipple.ir.ops.elementwise import (
    abs_ as abs,  # noqa: A004
)
from stipple.ir.ops.elementwise import (
    add,
    cast,
    clamp,
    cos,
    div,
    equal,
    exp,
    floor,
    isfinite,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    mul,
    neg,
    reciprocal,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from stipple.ir.ops.elementwise import (
    pow_ as pow,  # noqa: A004
)
from stipple.ir.ops.image import L1Ssim, image_l1, image_l1_ssim, image_ssim
from stipple.ir.ops.noise import splat_noise
from stipple.ir.ops.optim import AdamUpdate, adam
from stipple.ir.ops.reduce import (
    matmul,
    mean,
    reduce_max,
    reduce_min,
)
from stipple.ir.ops.reduce import (
    sum_ as sum,  # noqa: A004
)
from stipple.ir.ops.splat import (
    Camera2d,
    Prepared,
    Rasterized,
    Rendered,
    clip_planes,
    splat_backward_node,
    splat_camera,
    splat_prepare,
    splat_rasterize,
    splat_render,
    tile_count,
)
from stipple.ir.ops.structure import (
    broadcast_to,
    concat,
    full,
    full_like,
    gather,
    narrow,
    pad,
    reshape,
    scatter_add,
    stop_gradient,
    transpose,
    zeros_like,
)
from stipple.ir.printing import to_dot, to_text
from stipple.ir.serialize import load, save
from stipple.ir.shape import Dim, Shape, TensorType
from stipple.ir.verify import verify

__all__ = [
    "REGISTRY",
    "AdamUpdate",
    "Camera2d",
    "DType",
    "Dim",
    "Graph",
    "L1Ssim",
    "Node",
    "OpDef",
    "Operand",
    "Prepared",
    "Rasterized",
    "Rendered",
    "Shape",
    "TensorType",
    "Value",
    "abs",
    "adam",
    "add",
    "broadcast_to",
    "cast",
    "clamp",
    "clip_planes",
    "concat",
    "cos",
    "div",
    "equal",
    "exp",
    "floor",
    "full",
    "full_like",
    "gather",
    "grad",
    "image_l1",
    "image_l1_ssim",
    "image_ssim",
    "isfinite",
    "less",
    "less_equal",
    "load",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "mul",
    "narrow",
    "neg",
    "pad",
    "pow",
    "pullback",
    "reciprocal",
    "reduce_max",
    "reduce_min",
    "register",
    "relu",
    "reshape",
    "save",
    "scatter_add",
    "sigmoid",
    "sign",
    "sin",
    "softplus",
    "splat_backward_node",
    "splat_camera",
    "splat_noise",
    "splat_prepare",
    "splat_rasterize",
    "splat_render",
    "sqrt",
    "square",
    "stop_gradient",
    "sub",
    "sum",
    "tanh",
    "tile_count",
    "to_dot",
    "to_text",
    "transpose",
    "verify",
    "where",
    "zeros_like",
]
