"""The seed interface's packed buffers, as ops over the structured ones.

A packed prepare buffer is one float vector. With n = max(N, 1), L = max_list_entries and the conics padded
with zeros to 8 numbers k0..k7:

====================  ======================================================================================
n * 4                 red, green, blue, opacity
n                     depth
n * 3                 mean x, mean y, k0
n * 3                 k1, k2, k3
n * 4                 k4, k5, k6, k7
L                     sorted ids, then -1
tiles * 2             first and last-plus-one entry of each tile
pixels * 3            unit ray of each pixel centre in camera axes
11                    width, height, tile_size, alpha_cutoff, max_splat_steps, transmittance_threshold,
                      N, number of entries, background
====================  ======================================================================================

Packed gradients are positions, scales, rotations, opacities, colors, sh, one block after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stipple.ir.attributes import Attr
from stipple.ir.dtype import DType
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.splat import CONIC_LENGTH, RASTERIZE_ATTRS, tile_count
from stipple.ir.ops.structure import concat, full, narrow, reshape
from stipple.ir.shape import Dim, DimLike, Shape, TensorType

if TYPE_CHECKING:
    from stipple.ir.graph import Value

FLOATS_PER_GAUSSIAN = 15
RASTER_PARAMS = 11

_ATTRS = (
    *RASTERIZE_ATTRS,
    Attr("max_list_entries", "int", "length of the packed entry list", required=True, minimum=1),
)


def packed_tail(width: int, height: int, tile_size: int, max_list_entries: int) -> int:
    """Length of a packed prepare buffer without its per-Gaussian blocks."""
    pixels = max(width * height, 1)
    return max_list_entries + 2 * tile_count(width, height, tile_size) + 3 * pixels + RASTER_PARAMS


def _tail(c: InferContext | VjpContext) -> int:
    a = c.attrs
    return packed_tail(a["width"], a["height"], a["tile_size"], a["max_list_entries"])


def _infer_pack(c: InferContext) -> list[TensorType]:
    conic, count = CONIC_LENGTH[c.attrs["projection"]], c.dims["N"]
    if tuple(c.types[1].shape) != (count, Dim.of(conic)):
        c.fail(f"conics: expected shape [{count}, {conic}], got {c.types[1].shape}")
    # max(N, 1) is no polynomial: with a symbolic N the length is known only when the graph runs.
    number = count.value
    length = c.fresh("P") if number is None else Dim.of(max(number, 1) * FLOATS_PER_GAUSSIAN + _tail(c))
    return [TensorType(Shape([length]), c.float_dtype)]


def _vjp_pack(g: VjpContext) -> list[Value | None]:
    ct, count = g.cotangent(), g.inputs[0].shape[0]
    conic = g.inputs[1].shape[1]

    def block(start: DimLike, width: int) -> Value:
        return reshape(narrow(ct, 0, start, count * width), [count, width])

    rgba, depths = block(0, 4), narrow(ct, 0, count * 4, count)
    means_k0, middle, last = block(count * 5, 3), block(count * 8, 3), block(count * 11, 4)
    conics = narrow(concat([narrow(means_k0, 1, 2, 1), middle, last], axis=1), 1, 0, conic)
    return [
        narrow(means_k0, 1, 0, 2),
        conics,
        narrow(rgba, 1, 0, 3),
        reshape(narrow(rgba, 1, 3, 1), [count]),
        depths,
        None,
        None,
        None,
        narrow(ct, 0, ct.shape[0] - 3, 3),
    ]


register(
    OpDef(
        "splat_pack_prepared",
        (
            Operand("means2d", "N 2"),
            Operand("conics"),
            Operand("colors", "N 3"),
            Operand("opacities", "N"),
            Operand("depths", "N"),
            Operand("tile_ranges", "T 2", "i32"),
            Operand("sorted_ids", "E", "i32"),
            Operand("intrinsics", "3 3", finite=True),
            Operand("background", "3"),
        ),
        ("packed",),
        _infer_pack,
        "Prepared Gaussians as one float vector, laid out as the module says.",
        attrs=_ATTRS,
        vjp=_vjp_pack,
    )
)


def _infer_unpack(c: InferContext) -> list[TensorType]:
    f, conic = c.float_dtype, CONIC_LENGTH[c.attrs["projection"]]
    length, given = c.dims["P"], c.attrs["count"]
    known = None if given < 0 else max(given, 1) * FLOATS_PER_GAUSSIAN + _tail(c)
    if known is not None and length.value not in (None, known):
        c.fail(f"packed: expected {known} floats for {given} Gaussians, got {length}")
    c.dims["N"] = c.fresh("N") if given < 0 else Dim.of(given)
    c.dims["E"] = c.fresh("E")
    a = c.attrs
    c.dims["T"] = Dim.of(tile_count(a["width"], a["height"], a["tile_size"]))
    return [
        c.result("N 2", f),
        c.result(f"N {conic}", f),
        c.result("N 3", f),
        c.result("N", f),
        c.result("N", f),
        c.result("T 2", DType.I32),
        c.result("E", DType.I32),
    ]


def _vjp_unpack(g: VjpContext) -> list[Value]:
    packed = g.inputs[0]
    count = g.outputs[0].shape[0]
    means2d, conics, colors, opacities, depths = (g.cotangent(i) for i in range(5))
    fill = 8 - CONIC_LENGTH[g.attrs["projection"]]
    parts = [conics]
    if fill:
        parts.append(full(packed.graph, [count, fill], 0.0, packed.dtype))
    padded = concat(parts, axis=1)
    blocks = [
        concat([colors, reshape(opacities, [count, 1])], axis=1),
        reshape(depths, [count, 1]),
        concat([means2d, narrow(padded, 1, 0, 1)], axis=1),
        narrow(padded, 1, 1, 3),
        narrow(padded, 1, 4, 4),
    ]
    flat = [reshape(b, [b.shape.size]) for b in blocks]
    rest = packed.shape[0] - count * FLOATS_PER_GAUSSIAN
    return [concat([*flat, full(packed.graph, [rest], 0.0, packed.dtype)])]


register(
    OpDef(
        "splat_unpack_prepared",
        (Operand("packed", "P"),),
        ("means2d", "conics", "colors", "opacities", "depths", "tile_ranges", "sorted_ids"),
        _infer_unpack,
        "The inverse of splat_pack_prepared; checks the stored parameters against the attributes.",
        attrs=(*_ATTRS, Attr("count", "int", "Gaussians; -1: read from the buffer", default=-1, minimum=-1)),
        vjp=_vjp_unpack,
        differentiable=frozenset({"means2d", "conics", "colors", "opacities", "depths"}),
    )
)


def pack_gradients(parts: list[Value], sh: Value | None, count: Dim) -> Value:
    """Gradients of positions, scales, rotations, opacities, colors and sh as one vector.

    Without harmonics the vector still has room for one coefficient per channel, zero.
    """
    graph, dtype = parts[0].graph, parts[0].dtype
    last = full(graph, [count * 3], 0.0, dtype) if sh is None or sh.shape[1] == 0 else sh
    return concat([reshape(p, [p.shape.size]) for p in (*parts, last)])


__all__ = ["FLOATS_PER_GAUSSIAN", "RASTER_PARAMS", "pack_gradients", "packed_tail"]
