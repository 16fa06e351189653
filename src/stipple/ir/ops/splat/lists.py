"""Tile lists in which a Gaussian's entries can be found, for devices that sum gradients entry by entry.

``splat_bin_listed`` is splat_bin with further results, which ``splat_rasterize_backward_listed`` takes. Passes of such
a device substitute them for the plain ops; nothing else needs them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple.ir.dtype import DType
from stipple.ir.op import InferContext, OpDef, Operand, lookup, register
from stipple.ir.ops.splat.binning import BinOperands, BinResults
from stipple.ir.ops.splat.rasterize import RasterizeBackwardOperands, RasterizeBackwardResults


class BinListedResults(NamedTuple):
    """Results of splat_bin, and order [N] i32: all Gaussians, the visible ones by depth (ties by index), then the
    others by index; offsets [N + 1] i32: with entries listed Gaussian by Gaussian in this order, and each one's tiles
    in row-major order, the entries of ``order[r]`` are offsets[r] to offsets[r + 1]; emission [E] i32: the position of
    each entry of sorted_ids in that list."""

    tile_ranges: Any
    sorted_ids: Any
    order: Any
    offsets: Any
    emission: Any


class RasterizeBackwardListedOperands(NamedTuple):
    """Operands of splat_rasterize_backward, and the further results of splat_bin_listed."""

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
    order: Any
    offsets: Any
    emission: Any

    @property
    def plain(self) -> RasterizeBackwardOperands:
        """The operands of splat_rasterize_backward."""
        return RasterizeBackwardOperands(*self[: len(RasterizeBackwardOperands._fields)])


_BIN, _BACKWARD = lookup("splat_bin"), lookup("splat_rasterize_backward")


def _infer_bin(c: InferContext) -> BinListedResults:
    plain: BinResults = _BIN.infer(c)  # type: ignore[assignment]
    c.dims["offsets"] = c.dims["N"] + 1
    return BinListedResults(*plain, c.result("N", DType.I32), c.result("offsets", DType.I32), c.result("E", DType.I32))


register(
    OpDef(
        "splat_bin_listed",
        _BIN.operands,
        BinListedResults._fields,
        _infer_bin,
        "splat_bin, and where each Gaussian's entries are.",
        attrs=_BIN.attrs,
        operand_record=BinOperands,
        result_record=BinListedResults,
    )
)
register(
    OpDef(
        "splat_rasterize_backward_listed",
        (
            *_BACKWARD.operands,
            Operand("order", "N", "i32"),
            Operand("offsets", None, "i32"),
            Operand("emission", "E", "i32"),
        ),
        RasterizeBackwardResults._fields,
        _BACKWARD.infer,
        "splat_rasterize_backward, given where each Gaussian's entries are.",
        attrs=_BACKWARD.attrs,
        operand_record=RasterizeBackwardListedOperands,
        result_record=RasterizeBackwardResults,
    )
)
