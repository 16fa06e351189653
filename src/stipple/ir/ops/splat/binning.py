"""splat_bin: which Gaussians touch each tile of the image, front to back."""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple.ir.dtype import DType
from stipple.ir.graph import Value
from stipple.ir.op import InferContext, OpDef, Operand, register
from stipple.ir.ops.splat import attributes as at

ATTRS = (*at.SIZE, at.TILE, at.CUTOFF, at.PROJECTION, at.MAX_ENTRIES)


class BinOperands(NamedTuple):
    """Operands of splat_bin; see :func:`splat_bin`."""

    means2d: Any
    conics: Any
    opacities: Any
    radii: Any
    depths: Any


class BinResults(NamedTuple):
    """tile_ranges [T, 2] i32: where each tile's entries begin and end in sorted_ids [E] i32, indices of Gaussians."""

    tile_ranges: Any
    sorted_ids: Any


def _infer(c: InferContext) -> BinResults:
    at.check_conics(c)
    at.bind_tiles(c)
    c.dims["E"] = c.fresh("E")
    return BinResults(c.result("T 2", DType.I32), c.result("E", DType.I32))


register(
    OpDef(
        "splat_bin",
        (
            Operand("means2d", "N 2"),
            Operand("conics"),
            Operand("opacities", "N"),
            Operand("radii", "N 2", "i32"),
            Operand("depths", "N"),
        ),
        BinResults._fields,
        _infer,
        "Sort visible Gaussians by depth (ties by index) and list, tile by tile, those whose footprint touches it.",
        attrs=ATTRS,
        operand_record=BinOperands,
        result_record=BinResults,
    )
)


def splat_bin(means2d: Value, conics: Value, opacities: Value, radii: Value, depths: Value, **attrs: Any) -> BinResults:
    """The Gaussians that touch each tile, by depth, ties by index.

    means2d, conics, radii and depths are results of ``splat_project``; opacities [N] are those used in the image
    (compensated). Gaussians with radii 0 have no entry. Tiles are in row-major order.
    """
    operands = BinOperands(means2d, conics, opacities, radii, depths)
    results: BinResults = means2d.graph.add("splat_bin", operands, attrs).results
    return results
