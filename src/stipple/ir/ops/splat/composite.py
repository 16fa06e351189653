"""splat_prepare and splat_render: the whole pipeline in one op, defined by the smaller ops that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stipple import numerics as nx
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Value
from stipple.ir.op import InferContext, OpDef, Operand, register
from stipple.ir.ops.elementwise import where
from stipple.ir.ops.splat import attributes as at
from stipple.ir.ops.splat import binning, project, rasterize
from stipple.ir.ops.splat.binning import splat_bin
from stipple.ir.ops.splat.project import clip_planes, no_distortion, splat_project
from stipple.ir.ops.splat.rasterize import splat_rasterize
from stipple.ir.ops.splat.sh import splat_sh
from stipple.ir.ops.split import split
from stipple.ir.ops.structure import concat, full, reshape
from stipple.ir.shape import Dim, Shape

_SH_DEGREE = Attr(
    "sh_degree",
    "int",
    "degree of the SH; -1: colours as they are",
    default=at.PASS_THROUGH,
    minimum=at.PASS_THROUGH,
    maximum=nx.MAX_SH_DEGREE,
)
_MORE_OF_BIN = tuple(a for a in binning.ATTRS if a not in project.ATTRS)
PREPARE_ATTRS = (*project.ATTRS, _SH_DEGREE, *_MORE_OF_BIN)
RENDER_ATTRS = (*PREPARE_ATTRS, *(a for a in rasterize.ATTRS if a not in PREPARE_ATTRS))


class PrepareOperands(NamedTuple):
    """Operands of splat_prepare; see :func:`splat_prepare`."""

    means: Any
    quats: Any
    scales: Any
    opacities: Any
    colors: Any
    viewmat: Any
    intrinsics: Any
    distortion: Any
    clip: Any


class PrepareResults(NamedTuple):
    """means2d [N, 2], conics [N, 3] or [N, 8], colors [N, C], opacities [N] (compensated; 0 where culled), depths
    [N], radii [N, 2], tile_ranges [T, 2], sorted_ids [E]."""

    means2d: Any
    conics: Any
    colors: Any
    opacities: Any
    depths: Any
    radii: Any
    tile_ranges: Any
    sorted_ids: Any


class RenderOperands(NamedTuple):
    """Operands of splat_render; see :func:`splat_render`."""

    means: Any
    quats: Any
    scales: Any
    opacities: Any
    colors: Any
    viewmat: Any
    intrinsics: Any
    distortion: Any
    clip: Any
    background: Any


class RenderResults(NamedTuple):
    """rgba [H, W, C + 1], the last channel alpha, and depth [H, W], accumulated camera z."""

    rgba: Any
    depth: Any


def _channels(c: InferContext) -> Dim:
    """Colour channels; checks the colours' shape against sh_degree, and the camera model."""
    at.check_camera_model(c)
    colors: Shape = c.operands.colors.shape
    count, degree = c.dims["N"], c.attrs["sh_degree"]
    if degree == at.PASS_THROUGH:
        if colors.rank != 2 or colors[0] != count:
            c.fail(f"colors: expected shape [{count}, C] with sh_degree = -1, got {colors}")
        return colors[1]
    if colors.rank != 3 or colors[0] != count:
        c.fail(f"colors: expected shape [{count}, K, C] with sh_degree = {degree}, got {colors}")
    coefficients, needed = colors[1].value, nx.sh_coeff_count(degree)
    if coefficients is None or coefficients < needed:
        c.fail(f"colors: sh_degree {degree} needs at least {needed} coefficients, got {colors}")
    return colors[2]


# --- prepare ----------------------------------------------------------------------------------------------
def _infer_prepare(c: InferContext) -> PrepareResults:
    f = c.float_dtype
    c.dims["C"] = _channels(c)
    at.bind_tiles(c)
    c.dims["E"] = c.fresh("E")
    return PrepareResults(
        means2d=c.result("N 2", f),
        conics=c.result(f"N {at.conic_length(c)}", f),
        colors=c.result("N C", f),
        opacities=c.result("N", f),
        depths=c.result("N", f),
        radii=c.result("N 2", DType.I32),
        tile_ranges=c.result("T 2", DType.I32),
        sorted_ids=c.result("E", DType.I32),
    )


def _expand_prepare(graph: Graph, x: PrepareOperands, attrs: Mapping[str, AttrValue]) -> PrepareResults:
    camera = (x.viewmat, x.intrinsics, x.clip, x.distortion)
    p = splat_project(x.means, x.quats, x.scales, x.opacities, *camera, **at.select_attrs(project.ATTRS, attrs))
    colors = x.colors
    if attrs["sh_degree"] != at.PASS_THROUGH:
        colors = splat_sh(x.means, x.colors, x.viewmat, p.radii, attrs["sh_degree"])
    visible = p.compensation > 0.0  # a Gaussian whose opacity is not finite is culled, and must not become 0 * NaN here
    opacities = where(visible, x.opacities * p.compensation, 0.0)
    lists = splat_bin(p.means2d, p.conics, opacities, p.radii, p.depths, **at.select_attrs(binning.ATTRS, attrs))
    return PrepareResults(p.means2d, p.conics, colors, opacities, p.depths, p.radii, *lists)


register(
    OpDef(
        "splat_prepare",
        (*at.GAUSSIANS, Operand("colors"), *at.CAMERA),
        PrepareResults._fields,
        _infer_prepare,
        "splat_project, splat_sh and splat_bin: everything that rasterization needs.",
        attrs=PREPARE_ATTRS,
        differentiable=frozenset({"means2d", "conics", "colors", "opacities", "depths"}),
        operand_record=PrepareOperands,
        result_record=PrepareResults,
        expand=_expand_prepare,
    )
)


# --- render -----------------------------------------------------------------------------------------------
def _infer_render(c: InferContext) -> RenderResults:
    channels, f = _channels(c), c.float_dtype
    if tuple(c.operands.background.shape) != (channels,):
        c.fail(f"background: expected shape [{channels}] to match colors, got {c.operands.background.shape}")
    c.dims["rgba"] = channels + 1
    return RenderResults(c.result("height width rgba", f), c.result("height width", f))


def _expand_render(graph: Graph, x: RenderOperands, attrs: Mapping[str, AttrValue]) -> RenderResults:
    prepared = _expand_prepare(graph, PrepareOperands(*x[:-1]), at.select_attrs(PREPARE_ATTRS, attrs))
    return composite(prepared, x.background, attrs)


def composite(prepared: PrepareResults, background: Value, attrs: Mapping[str, AttrValue]) -> RenderResults:
    """Rasterize the colours and depths of prepared Gaussians over ``background`` [C] and depth 0."""
    p = prepared
    graph, dtype, channels = background.graph, background.dtype, background.shape[0]
    features = concat([p.colors, reshape(p.depths, [p.depths.shape[0], 1])], axis=1)
    behind = concat([background, full(graph, [1], 0.0, dtype)], axis=0)
    r = splat_rasterize(
        p.means2d, p.conics, p.opacities, features, behind, p.tile_ranges, p.sorted_ids,
        **at.select_attrs(rasterize.ATTRS, attrs),
    )  # fmt: skip
    height, width = r.alpha.shape
    color, depth = split(r.image, 2, channels)
    rgba = concat([color, reshape(r.alpha, [height, width, 1])], axis=2)
    return RenderResults(rgba, reshape(depth, [height, width]))


register(
    OpDef(
        "splat_render",
        (*at.GAUSSIANS, Operand("colors"), *at.CAMERA, Operand("background", finite=True)),
        RenderResults._fields,
        _infer_render,
        "splat_prepare, then splat_rasterize of colours and depths.",
        attrs=RENDER_ATTRS,
        operand_record=RenderOperands,
        result_record=RenderResults,
        expand=_expand_render,
    )
)


# --- builders ---------------------------------------------------------------------------------------------
def splat_prepare(
    means: Value,
    quats: Value,
    scales: Value,
    opacities: Value,
    colors: Value,
    viewmat: Value,
    intrinsics: Value,
    clip: Value | None = None,
    distortion: Value | None = None,
    **attrs: Any,
) -> PrepareResults:
    """Project, cull, evaluate SH, sort and bin Gaussians.

    colors [N, C], or SH [N, K, C] with ``sh_degree`` >= 0; the other operands as for ``splat_project``.
    """
    graph = means.graph
    planes = clip_planes(graph, dtype=means.dtype) if clip is None else clip
    lens = no_distortion(graph, means.dtype) if distortion is None else distortion
    operands = PrepareOperands(means, quats, scales, opacities, colors, viewmat, intrinsics, lens, planes)
    results: PrepareResults = graph.add("splat_prepare", operands, attrs).results
    return results


def splat_render(
    means: Value,
    quats: Value,
    scales: Value,
    opacities: Value,
    colors: Value,
    viewmat: Value,
    intrinsics: Value,
    background: Value,
    clip: Value | None = None,
    distortion: Value | None = None,
    **attrs: Any,
) -> RenderResults:
    """Render Gaussians: rgba [H, W, C + 1] and accumulated depth [H, W]. Operands as for ``splat_prepare``; background
    [C]."""
    graph = means.graph
    planes = clip_planes(graph, dtype=means.dtype) if clip is None else clip
    lens = no_distortion(graph, means.dtype) if distortion is None else distortion
    operands = RenderOperands(means, quats, scales, opacities, colors, viewmat, intrinsics, lens, planes, background)
    results: RenderResults = graph.add("splat_render", operands, attrs).results
    return results
