"""splat_rasterize: composite arbitrary features of Gaussians, front to back, over a background."""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple.errors import GraphError
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.splat import attributes as at
from stipple.ir.shape import TensorType

ATTRS = (*at.SIZE, at.TILE, at.CUTOFF, at.PROJECTION, at.TRANSMITTANCE, at.MAX_STEPS)


class RasterizeOperands(NamedTuple):
    """Operands of splat_rasterize; see :func:`splat_rasterize`."""

    means2d: Any
    conics: Any
    opacities: Any
    features: Any
    background: Any
    tile_ranges: Any
    sorted_ids: Any


class RasterizeResults(NamedTuple):
    """image [H, W, F], alpha [H, W], and per pixel [H, W]: transmittance, the light that is left; last_ids, the
    position in sorted_ids of its last contributor (-1: none); median_ids, the Gaussian at which transmittance first
    falls to 0.5 or below, else the last contributor (-1: none); counts, its contributors. Unused ones cost nothing."""

    image: Any
    alpha: Any
    transmittance: Any
    last_ids: Any
    median_ids: Any
    counts: Any


class RasterizeBackwardOperands(NamedTuple):
    """Operands of splat_rasterize_backward."""

    means2d: Any
    conics: Any
    opacities: Any
    features: Any
    background: Any
    tile_ranges: Any
    sorted_ids: Any
    image: Any
    transmittance: Any
    last_ids: Any
    v_image: Any
    v_alpha: Any


class RasterizeBackwardResults(NamedTuple):
    """Gradients of the operands of splat_rasterize, and v_means2d_abs [N, 2]: per Gaussian the sum over pixels of the
    magnitude of the 2D mean's gradient (Ye et al., AbsGS, 2024)."""

    v_means2d: Any
    v_conics: Any
    v_opacities: Any
    v_features: Any
    v_background: Any
    v_means2d_abs: Any


_OPERANDS = (
    Operand("means2d", "N 2"),
    Operand("conics"),
    Operand("opacities", "N"),
    Operand("features", "N F"),
    Operand("background", "F", finite=True),
    Operand("tile_ranges", "T 2", "i32"),
    Operand("sorted_ids", "E", "i32"),
)


def _check_footprints(c: InferContext) -> None:
    at.check_conics(c)
    tiles = at.tile_count(c.attrs["width"], c.attrs["height"], c.attrs["tile_size"])
    if c.dims["T"] != tiles:
        c.fail(
            f"tile_ranges: expected shape [{tiles}, 2] for the image and tile size, got {c.operands.tile_ranges.shape}"
        )


def _infer(c: InferContext) -> RasterizeResults:
    _check_footprints(c)
    plane, ids = c.result("height width", c.float_dtype), c.result("height width", DType.I32)
    image = c.result("height width F", c.float_dtype)
    return RasterizeResults(image, plane, plane, ids, ids, ids)


def _vjp(g: VjpContext) -> RasterizeOperands:
    r: RasterizeResults = g.results
    kept = (r.image, r.transmittance, r.last_ids)
    operands = RasterizeBackwardOperands._make([*g.operands, *kept, g.cotangent("image"), g.cotangent("alpha")])
    v: RasterizeBackwardResults = g.graph.add("splat_rasterize_backward", operands, g.attrs).results
    return RasterizeOperands(
        means2d=v.v_means2d,
        conics=v.v_conics,
        opacities=v.v_opacities,
        features=v.v_features,
        background=v.v_background,
        tile_ranges=None,
        sorted_ids=None,
    )


register(
    OpDef(
        "splat_rasterize",
        _OPERANDS,
        RasterizeResults._fields,
        _infer,
        "Composite the features of each tile's Gaussians front to back over the background. Gaussians whose footprint "
        "is not an ellipse or that have a value that is not finite are skipped.",
        attrs=ATTRS,
        vjp=_vjp,
        differentiable=frozenset({"image", "alpha"}),
        operand_record=RasterizeOperands,
        result_record=RasterizeResults,
    )
)


def _infer_backward(c: InferContext) -> RasterizeBackwardResults:
    _check_footprints(c)
    x: RasterizeBackwardOperands = c.operands
    pixel_pair: TensorType = x.means2d
    return RasterizeBackwardResults(x.means2d, x.conics, x.opacities, x.features, x.background, pixel_pair)


register(
    OpDef(
        "splat_rasterize_backward",
        (
            *_OPERANDS,
            Operand("image", "height width F"),
            Operand("transmittance", "height width"),
            Operand("last_ids", "height width", "i32"),
            Operand("v_image", "height width F"),
            Operand("v_alpha", "height width"),
        ),
        RasterizeBackwardResults._fields,
        _infer_backward,
        "Gradients of splat_rasterize, and the sums of the magnitudes of the 2D means' gradients.",
        attrs=ATTRS,
        operand_record=RasterizeBackwardOperands,
        result_record=RasterizeBackwardResults,
    )
)


def splat_rasterize(
    means2d: Value,
    conics: Value,
    opacities: Value,
    features: Value,
    background: Value,
    tile_ranges: Value,
    sorted_ids: Value,
    **attrs: Any,
) -> RasterizeResults:
    """Composite features [N, F] of Gaussians into an image [H, W, F], front to back over ``background`` [F].

    A pixel is the sum of weight * feature, where weight = alpha * transmittance so far, plus the final transmittance
    times the background. means2d [N, 2] and conics describe footprints (see ``splat_project``); opacities [N];
    tile_ranges and sorted_ids are results of ``splat_bin``.
    """
    operands = RasterizeOperands(means2d, conics, opacities, features, background, tile_ranges, sorted_ids)
    results: RasterizeResults = means2d.graph.add("splat_rasterize", operands, attrs).results
    return results


def splat_backward_node(graph: Graph) -> Node:
    """The node that holds the gradients of the 2D means after ``grad``: that of rasterize, if there is exactly one.

    Its results ``v_means2d`` and ``v_means2d_abs`` drive densification.
    """
    found = [n for n in graph.nodes if n.op == "splat_rasterize_backward"]
    if len(found) != 1:
        raise GraphError(f"expected one splat_rasterize_backward in the graph, found {len(found)}")
    return found[0]
