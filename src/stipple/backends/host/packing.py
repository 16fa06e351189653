"""Packing and unpacking of the seed's prepare buffer; the layout is in ``stipple.ir.ops.packing``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.host import geometry
from stipple.backends.host.kernel import Compute
from stipple.errors import InputError
from stipple.ir.attributes import AttrValue
from stipple.ir.ops import packing
from stipple.ir.ops.splat import CONIC_LENGTH

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
_STORED = ("width", "height", "tile_size", "alpha_cutoff", "max_splat_steps", "transmittance_threshold")


def pack(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """The packed prepare buffer; layout in ``stipple.ir.ops.packing``."""
    means2d, conics, colors, opacities, depths, ranges, ids, intrinsics, background = x
    limit, count = attrs["max_list_entries"], len(means2d)
    if len(ids) > limit:
        raise InputError(f"splat_pack_prepared: {len(ids)} tile entries do not fit max_list_entries = {limit}")
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
    return [np.concatenate([np.ravel(p) for p in parts])]


def _pixel_rays(intrinsics: Array, attrs: Attrs) -> Array:
    """Unit rays [H, W, 3] of the pixel centres, in camera axes."""
    y, x = np.mgrid[0 : attrs["height"], 0 : attrs["width"]] + 0.5
    slope_x = (x - intrinsics[0, 2]) / intrinsics[0, 0]
    slope_y = (y - intrinsics[1, 2]) / intrinsics[1, 1]
    return geometry.normalise(np.stack([slope_x, slope_y, np.ones_like(x)], axis=-1))


def unpack(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """The structured fields of a packed prepare buffer, checked against the attributes."""
    packed = x[0]
    tail = packing.packed_tail(attrs["width"], attrs["height"], attrs["tile_size"], attrs["max_list_entries"])
    rows, left = divmod(len(packed) - tail, packing.FLOATS_PER_GAUSSIAN)
    if left or rows < 1:
        raise InputError(f"splat_unpack_prepared: {len(packed)} floats are no buffer of these parameters")
    params = packed[-packing.RASTER_PARAMS :]
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
    ranges = packed[ranges_start : len(packed) - packing.RASTER_PARAMS - 3 * pixels].reshape(-1, 2)
    ids = packed[ids_start : ids_start + used]
    return [
        first[:, :2],
        conics,
        rgba[:, :3],
        rgba[:, 3],
        depths[:, 0],
        ranges.astype(np.int32),
        ids.astype(np.int32),
    ]


KERNELS: dict[str, Compute] = {
    "splat_pack_prepared": lambda node, x, dims: pack(x, node.attrs),
    "splat_unpack_prepared": lambda node, x, dims: unpack(x, node.attrs),
}
