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

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stipple.errors import InputError
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.dtype import DType
from stipple.ir.graph import Node, Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.splat import CONIC_LENGTH, RASTERIZE_ATTRS, tile_count
from stipple.ir.ops.structure import concat, full, narrow, reshape
from stipple.ir.shape import Dim, DimLike, Shape, TensorType

Array = np.ndarray

FLOATS_PER_GAUSSIAN = 15
RASTER_PARAMS = 11

_ATTRS = (
    *RASTERIZE_ATTRS,
    Attr("max_list_entries", "int", "length of the packed entry list", required=True, minimum=1),
)


_STORED = ("width", "height", "tile_size", "alpha_cutoff", "max_splat_steps", "transmittance_threshold")


class PackOperands(NamedTuple):
    """Operands of splat_pack_prepared."""

    means2d: Any
    conics: Any
    colors: Any
    opacities: Any
    depths: Any
    tile_ranges: Any
    sorted_ids: Any
    intrinsics: Any
    background: Any


class PackResults(NamedTuple):
    """The packed buffer."""

    packed: Any


class UnpackOperands(NamedTuple):
    """Operands of splat_unpack_prepared."""

    packed: Any


class UnpackResults(NamedTuple):
    """Results of splat_unpack_prepared."""

    means2d: Any
    conics: Any
    colors: Any
    opacities: Any
    depths: Any
    tile_ranges: Any
    sorted_ids: Any


def packed_tail(width: int, height: int, tile_size: int, max_list_entries: int) -> int:
    """Length of a packed prepare buffer without its per-Gaussian blocks."""
    pixels = max(width * height, 1)
    return max_list_entries + 2 * tile_count(width, height, tile_size) + 3 * pixels + RASTER_PARAMS


def _tail(c: InferContext | VjpContext) -> int:
    a = c.attrs
    return packed_tail(a["width"], a["height"], a["tile_size"], a["max_list_entries"])


# --- pack -------------------------------------------------------------------------------------------------
def _pack(node: Node, x: PackOperands, dims: Mapping[str, int]) -> PackResults:
    """The packed prepare buffer, in float64."""
    attrs = node.attrs
    means2d, conics, colors, opacities, depths, ranges, ids, intrinsics, background = x
    limit, count = attrs["max_list_entries"], len(means2d)
    if len(ids) > limit:
        raise InputError(f"splat_pack_prepared: {len(ids)} tile entries exceed max_list_entries = {limit}")
    rows = max(count, 1)
    k = np.zeros((count, 8))
    k[:, : conics.shape[1]] = conics
    blocks = [
        np.column_stack([colors, opacities]),
        depths[:, None],
        np.column_stack([means2d, k[:, :1]]),
        k[:, 1:4],
        k[:, 4:],
    ]
    padded = [np.concatenate([b, np.zeros((rows - count, b.shape[1]))]) for b in blocks]
    entries = np.full(limit, -1.0)
    entries[: len(ids)] = ids
    params = np.array([*(float(attrs[n]) for n in _STORED), count, len(ids), *background])
    parts: list[Array] = [*padded, entries, ranges, _pixel_rays(intrinsics, attrs), params]
    return PackResults(np.concatenate([np.ravel(p) for p in parts]))


def _pixel_rays(intrinsics: Array, attrs: Mapping[str, AttrValue]) -> Array:
    """Unit rays [H, W, 3] of the pixel centres, in camera axes."""
    y, x = np.mgrid[0 : attrs["height"], 0 : attrs["width"]] + 0.5
    slope_x = (x - intrinsics[0, 2]) / intrinsics[0, 0]
    slope_y = (y - intrinsics[1, 2]) / intrinsics[1, 1]
    rays = np.stack([slope_x, slope_y, np.ones_like(x)], axis=-1)
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def _infer_pack(c: InferContext) -> list[TensorType]:
    conic, count = CONIC_LENGTH[c.attrs["projection"]], c.dims["N"]
    if tuple(c.operands.conics.shape) != (count, Dim.of(conic)):
        c.fail(f"conics: expected shape [{count}, {conic}], got {c.operands.conics.shape}")
    # max(N, 1) is not a polynomial: with a symbolic N the length is known only when the graph runs.
    number = count.value
    length = c.fresh("P") if number is None else Dim.of(max(number, 1) * FLOATS_PER_GAUSSIAN + _tail(c))
    return [TensorType(Shape([length]), c.float_dtype)]


def _vjp_pack(g: VjpContext) -> PackOperands:
    ct, count = g.cotangent(), g.operands.means2d.shape[0]
    conic = g.operands.conics.shape[1]

    def block(start: DimLike, width: int) -> Value:
        return reshape(narrow(ct, 0, start, count * width), [count, width])

    rgba, depths = block(0, 4), narrow(ct, 0, count * 4, count)
    means_k0, middle, last = block(count * 5, 3), block(count * 8, 3), block(count * 11, 4)
    conics = narrow(concat([narrow(means_k0, 1, 2, 1), middle, last], axis=1), 1, 0, conic)
    return PackOperands(
        means2d=narrow(means_k0, 1, 0, 2),
        conics=conics,
        colors=narrow(rgba, 1, 0, 3),
        opacities=reshape(narrow(rgba, 1, 3, 1), [count]),
        depths=depths,
        tile_ranges=None,
        sorted_ids=None,
        intrinsics=None,
        background=narrow(ct, 0, ct.shape[0] - 3, 3),
    )


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
        PackResults._fields,
        _infer_pack,
        "Prepared Gaussians as one float vector, in the layout that the module describes.",
        attrs=_ATTRS,
        vjp=_vjp_pack,
        operand_record=PackOperands,
        result_record=PackResults,
        host=_pack,
    )
)


# --- unpack -----------------------------------------------------------------------------------------------
def _unpack(node: Node, x: UnpackOperands, dims: Mapping[str, int]) -> UnpackResults:
    """The structured fields of a packed prepare buffer, checked against the attributes."""
    packed, attrs = x.packed, node.attrs
    tail = packed_tail(attrs["width"], attrs["height"], attrs["tile_size"], attrs["max_list_entries"])
    rows, left = divmod(len(packed) - tail, FLOATS_PER_GAUSSIAN)
    if left or rows < 1:
        raise InputError(f"splat_unpack_prepared: {len(packed)} floats do not match a buffer of these parameters")
    params = packed[-RASTER_PARAMS:]
    for name, given in zip(_STORED, params, strict=False):
        if np.float32(given) != np.float32(attrs[name]):
            raise InputError(f"splat_unpack_prepared: packed with {name} = {given:g}, not {attrs[name]:g}")
    count, used = int(params[6]), int(params[7])
    if max(count, 1) != rows or not 0 <= used <= attrs["max_list_entries"] or attrs["count"] not in (-1, count):
        raise InputError(f"splat_unpack_prepared: the buffer claims {count} Gaussians and {used} entries")
    widths = (4, 1, 3, 3, 4)
    cuts = np.cumsum([rows * w for w in widths])
    rgba, depths, first, middle, last = (
        b.reshape(rows, w)[:count] for b, w in zip(np.split(packed[: cuts[-1]], cuts[:-1]), widths, strict=True)
    )
    conics = np.column_stack([first[:, 2], middle, last])[:, : CONIC_LENGTH[attrs["projection"]]]
    ids_start = cuts[-1]
    ranges_start = ids_start + attrs["max_list_entries"]
    pixels = attrs["width"] * attrs["height"]
    ranges = packed[ranges_start : len(packed) - RASTER_PARAMS - 3 * pixels].reshape(-1, 2)
    ids = packed[ids_start : ids_start + used]
    return UnpackResults(
        means2d=first[:, :2],
        conics=conics,
        colors=rgba[:, :3],
        opacities=rgba[:, 3],
        depths=depths[:, 0],
        tile_ranges=ranges.astype(np.int32),
        sorted_ids=ids.astype(np.int32),
    )


def _infer_unpack(c: InferContext) -> UnpackResults:
    f, conic = c.float_dtype, CONIC_LENGTH[c.attrs["projection"]]
    length, given = c.dims["P"], c.attrs["count"]
    known = None if given < 0 else max(given, 1) * FLOATS_PER_GAUSSIAN + _tail(c)
    if known is not None and length.value not in (None, known):
        c.fail(f"packed: expected {known} floats for {given} Gaussians, got {length}")
    c.dims["N"] = c.fresh("N") if given < 0 else Dim.of(given)
    c.dims["E"] = c.fresh("E")
    a = c.attrs
    c.dims["T"] = Dim.of(tile_count(a["width"], a["height"], a["tile_size"]))
    return UnpackResults(
        means2d=c.result("N 2", f),
        conics=c.result(f"N {conic}", f),
        colors=c.result("N 3", f),
        opacities=c.result("N", f),
        depths=c.result("N", f),
        tile_ranges=c.result("T 2", DType.I32),
        sorted_ids=c.result("E", DType.I32),
    )


def _vjp_unpack(g: VjpContext) -> list[Value]:
    packed, count = g.operands.packed, g.results.means2d.shape[0]
    means2d, conics, colors, opacities, depths = (
        g.cotangent(n) for n in ("means2d", "conics", "colors", "opacities", "depths")
    )
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
        UnpackResults._fields,
        _infer_unpack,
        "The inverse of splat_pack_prepared; checks the stored parameters against the attributes.",
        attrs=(*_ATTRS, Attr("count", "int", "Gaussians; -1: read from the buffer", default=-1, minimum=-1)),
        vjp=_vjp_unpack,
        operand_record=UnpackOperands,
        result_record=UnpackResults,
        host=_unpack,
        differentiable=frozenset({"means2d", "conics", "colors", "opacities", "depths"}),
    )
)


def pack_gradients(parts: list[Value], sh: Value | None, count: Dim) -> Value:
    """Gradients of positions, scales, rotations, opacities, colors and sh as one vector.

    Without SH the vector still holds one coefficient per channel, zero.
    """
    graph, dtype = parts[0].graph, parts[0].dtype
    last = full(graph, [count * 3], 0.0, dtype) if sh is None or sh.shape[1] == 0 else sh
    return concat([reshape(p, [p.shape.size]) for p in (*parts, last)])


__all__ = ["FLOATS_PER_GAUSSIAN", "RASTER_PARAMS", "pack_gradients", "packed_tail"]
