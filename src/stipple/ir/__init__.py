"""The tensor IR: typed, differentiable graphs whose first-class ops are the splat ops.

Build a :class:`Graph`, extend it with :func:`grad`, store it with :func:`save`, and run it with
:class:`stipple.runtime.Session`. ``docs/ir.md`` explains it on one page.
"""

from stipple.ir.autodiff import grad, pullback
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import REGISTRY, OpDef, Operand, register
from stipple.ir.ops import elementwise as _elementwise
from stipple.ir.ops.elementwise import *  # noqa: F403 - its __all__ names the ops, so that a new one is one file
from stipple.ir.ops.elementwise import (
    abs_ as abs,  # noqa: A004
)
from stipple.ir.ops.elementwise import (
    pow_ as pow,  # noqa: A004
)
from stipple.ir.ops.image import L1Ssim, image_l1, image_l1_ssim, image_ssim
from stipple.ir.ops.noise import splat_noise
from stipple.ir.ops.optim import AdamResults, adam
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
    CameraResults,
    PrepareResults,
    ProjectResults,
    RasterizeResults,
    RenderResults,
    clip_planes,
    no_distortion,
    splat_backward_node,
    splat_bin,
    splat_camera,
    splat_median_depth,
    splat_normals,
    splat_prepare,
    splat_project,
    splat_rasterize,
    splat_render,
    splat_sh,
    tile_count,
)
from stipple.ir.ops.split import split
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
    "AdamResults",
    "CameraResults",
    "DType",
    "Dim",
    "Graph",
    "L1Ssim",
    "Node",
    "OpDef",
    "Operand",
    "PrepareResults",
    "ProjectResults",
    "RasterizeResults",
    "RenderResults",
    "Shape",
    "TensorType",
    "Value",
    "abs",
    "adam",
    "broadcast_to",
    "clip_planes",
    "concat",
    "full",
    "full_like",
    "gather",
    "grad",
    "image_l1",
    "image_l1_ssim",
    "image_ssim",
    "load",
    "matmul",
    "mean",
    "narrow",
    "no_distortion",
    "pad",
    "pow",
    "pullback",
    "reduce_max",
    "reduce_min",
    "register",
    "reshape",
    "save",
    "scatter_add",
    "splat_backward_node",
    "splat_bin",
    "splat_camera",
    "splat_median_depth",
    "splat_noise",
    "splat_normals",
    "splat_prepare",
    "splat_project",
    "splat_rasterize",
    "splat_render",
    "splat_sh",
    "split",
    "stop_gradient",
    "sum",
    "tile_count",
    "to_dot",
    "to_text",
    "transpose",
    "verify",
    "zeros_like",
]
__all__ += _elementwise.__all__
