"""Splat ops: Gaussians to an image, in steps that can be used one by one.

N Gaussians, C colour channels, F features, K SH coefficients per channel, E tile entries (known only after splat_bin
has run), T tiles in row-major order, an image of height x width pixels.

``splat_project`` computes footprints, ``splat_sh`` colours, ``splat_bin`` the list of each tile, ``splat_rasterize``
the image. ``splat_prepare`` and ``splat_render`` stand for several of them. Each op is defined in one module, with the
records (NamedTuples) of its operands and results: their fields hold a graph's values, types, or a device's arrays.
"""

from stipple.ir.ops.splat.attributes import (
    CONIC_LENGTH,
    MAX_TILE_SIZE,
    PASS_THROUGH,
    select_attrs,
    tile_count,
)
from stipple.ir.ops.splat.binning import BinOperands, BinResults, splat_bin
from stipple.ir.ops.splat.camera import (
    META_LENGTH,
    META_PARAM_NAMES,
    CameraBackwardOperands,
    CameraBackwardResults,
    CameraOperands,
    CameraResults,
    splat_camera,
)
from stipple.ir.ops.splat.composite import (
    PREPARE_ATTRS,
    RENDER_ATTRS,
    PrepareOperands,
    PrepareResults,
    RenderOperands,
    RenderResults,
    composite,
    splat_prepare,
    splat_render,
)
from stipple.ir.ops.splat.derived import splat_median_depth, splat_normals
from stipple.ir.ops.splat.lists import BinListedResults, RasterizeBackwardListedOperands
from stipple.ir.ops.splat.project import (
    ProjectBackwardOperands,
    ProjectBackwardResults,
    ProjectOperands,
    ProjectResults,
    clip_planes,
    no_distortion,
    splat_project,
)
from stipple.ir.ops.splat.rasterize import ATTRS as RASTERIZE_ATTRS
from stipple.ir.ops.splat.rasterize import (
    RasterizeBackwardOperands,
    RasterizeBackwardResults,
    RasterizeOperands,
    RasterizeResults,
    splat_backward_node,
    splat_rasterize,
)
from stipple.ir.ops.splat.sh import ShBackwardOperands, ShBackwardResults, ShOperands, ShResults, splat_sh

__all__ = [
    "CONIC_LENGTH",
    "MAX_TILE_SIZE",
    "META_LENGTH",
    "META_PARAM_NAMES",
    "PASS_THROUGH",
    "PREPARE_ATTRS",
    "RASTERIZE_ATTRS",
    "RENDER_ATTRS",
    "BinListedResults",
    "BinOperands",
    "BinResults",
    "CameraBackwardOperands",
    "CameraBackwardResults",
    "CameraOperands",
    "CameraResults",
    "PrepareOperands",
    "PrepareResults",
    "ProjectBackwardOperands",
    "ProjectBackwardResults",
    "ProjectOperands",
    "ProjectResults",
    "RasterizeBackwardListedOperands",
    "RasterizeBackwardOperands",
    "RasterizeBackwardResults",
    "RasterizeOperands",
    "RasterizeResults",
    "RenderOperands",
    "RenderResults",
    "ShBackwardOperands",
    "ShBackwardResults",
    "ShOperands",
    "ShResults",
    "clip_planes",
    "composite",
    "no_distortion",
    "select_attrs",
    "splat_backward_node",
    "splat_bin",
    "splat_camera",
    "splat_median_depth",
    "splat_normals",
    "splat_prepare",
    "splat_project",
    "splat_rasterize",
    "splat_render",
    "splat_sh",
    "tile_count",
]
