"""The splat ops: operands in, structured results out, by way of projection and rasterization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.reference import geometry, projection, rasterization
from stipple.backends.reference.projection import Camera, Gaussians
from stipple.backends.reference.tensor import Compute, Dims
from stipple.errors import InputError
from stipple.ir.attributes import AttrValue
from stipple.ir.graph import Node
from stipple.ir.ops import packing
from stipple.ir.ops.splat import CONIC_LENGTH

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
_PREPARE_OPERANDS = 8


def _camera(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    return geometry.camera_from_meta(x[0], node.attrs)


def _camera_backward(node: Node, x: Sequence[Array], dims: Dims) -> Sequence[Array]:
    meta, v_viewmat, v_intrinsics, v_background = x
    return [geometry.camera_from_meta_backward(meta, v_viewmat, v_intrinsics, v_background, node.attrs)]


def _check_finite(what: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite, got {array.tolist()}")


def _scene(x: Sequence[Array], attrs: Attrs) -> tuple[Gaussians, Array, Camera]:
    means, quats, scales, opacities, colors, viewmat, intrinsics, clip = x[:_PREPARE_OPERANDS]
    for name, array in (("viewmat", viewmat), ("intrinsics", intrinsics), ("clip", clip)):
        _check_finite(f"splat_prepare: {name}", array)
    return Gaussians(means, quats, scales, opacities), colors, Camera.of(viewmat, intrinsics, clip, attrs)


def prepare(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Results of splat_prepare for its operands."""
    gaussians, colors, camera = _scene(x, attrs)
    degree = attrs["sh_degree"]
    prints = projection.project(gaussians, camera, projection.usable_colors(colors, degree), attrs)
    ids = prints.ids
    seen = projection.evaluate_colors(gaussians.means[ids], colors[ids], camera, degree)
    ranges, sorted_ids = rasterization.bin_into_tiles(prints, attrs)
    count = len(gaussians.means)

    def spread(values: Array) -> Array:
        made = np.zeros((count, *values.shape[1:]), dtype=values.dtype)
        made[ids] = values
        return made

    fields = (prints.means2d, prints.conics, seen, prints.opacities, prints.depths, prints.radii)
    return [*(spread(f) for f in fields), ranges, sorted_ids]


def prepare_backward(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Gradients of splat_prepare's first seven operands."""
    gaussians, colors, camera = _scene(x, attrs)
    radii, v_means2d, v_conics, v_colors, v_opacities, v_depths = x[_PREPARE_OPERANDS:]
    ids = np.flatnonzero((radii > 0).all(axis=1))
    sub, degree = gaussians.subset(ids), attrs["sh_degree"]
    arriving = projection.FootprintGradients(v_means2d[ids], v_conics[ids], v_opacities[ids], v_depths[ids])
    v_sub, v_camera = projection.project_backward(sub, camera, arriving, attrs)
    more_means, v_sub_colors = projection.evaluate_colors_backward(
        sub.means, colors[ids], camera, degree, v_colors[ids], v_camera
    )
    made = [np.zeros_like(a) for a in x[:5]]
    parts = (v_sub.means + more_means, v_sub.quats, v_sub.scales, v_sub.opacities, v_sub_colors)
    for into, part in zip(made, parts, strict=True):
        into[ids] = part
    return [*made, *v_camera.matrices()]


def rasterize(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Results of splat_rasterize for its operands."""
    _check_finite("splat_rasterize: background", x[5])
    return list(rasterization.rasterize(rasterization.Prepared(*x), attrs))


def rasterize_backward(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Gradients of splat_rasterize's float operands, and the 2D means' absolute gradient."""
    _, _, transmittance, last_ids, v_rgba, v_depth = x[8:]
    v = rasterization.rasterize_backward(
        rasterization.Prepared(*x[:8]), transmittance, last_ids, v_rgba, v_depth, attrs
    )
    return [v.means2d, v.conics, v.colors, v.opacities, v.depths, v.background, v.means2d_abs]


def _prepared(x: Sequence[Array], background: Array, attrs: Attrs) -> tuple[list[Array], list[Array]]:
    """Results of prepare, and with the background the operands of rasterize."""
    made = prepare(x, attrs)
    return made, [*made[:5], background, *made[6:]]


def render(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Results of splat_render: prepare, then rasterize."""
    _, operands = _prepared(x, x[_PREPARE_OPERANDS], attrs)
    return rasterize(operands, attrs)[:2]


def render_backward(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Gradients of splat_render's operands, and of the 2D means."""
    made, operands = _prepared(x, x[_PREPARE_OPERANDS], attrs)
    v_rgba, v_depth = x[-2:]
    v = rasterize_backward([*operands, *rasterize(operands, attrs), v_rgba, v_depth], attrs)
    v_means2d, v_background, v_abs = v[0], v[5], v[6]
    back = prepare_backward([*x[:_PREPARE_OPERANDS], made[5], *v[:5]], attrs)
    return [*back, v_background, v_means2d, v_abs]


# --- packed buffers ---------------------------------------------------------------------------------------
def pack(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """The packed prepare buffer; layout in ``stipple.ir.ops.packing``."""
    means2d, conics, colors, opacities, depths, ranges, ids, intrinsics, background = x
    limit, count = attrs["max_list_entries"], len(means2d)
    if len(ids) > limit:
        raise InputError(
            f"splat_pack_prepared: {len(ids)} tile entries do not fit max_list_entries = {limit}"
        )
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
    names = ("width", "height", "tile_size", "alpha_cutoff", "max_splat_steps", "transmittance_threshold")
    params = np.array([*(float(attrs[n]) for n in names), count, len(ids), *background])
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
    for name, given in zip(("width", "height", "tile_size"), params, strict=False):
        if given != attrs[name]:
            raise InputError(f"splat_unpack_prepared: packed with {name} = {given:g}, not {attrs[name]}")
    count, used = int(params[6]), int(params[7])
    if (
        max(count, 1) != rows
        or not 0 <= used <= attrs["max_list_entries"]
        or attrs["count"] not in (-1, count)
    ):
        raise InputError(f"splat_unpack_prepared: the buffer claims {count} Gaussians and {used} entries")
    widths = (4, 1, 3, 3, 4)
    cuts = np.cumsum([rows * w for w in widths])
    rgba, depths, first, middle, last = (
        b.reshape(rows, w)[:count]
        for b, w in zip(np.split(packed[: cuts[-1]], cuts[:-1]), widths, strict=True)
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
    "splat_camera": _camera,
    "splat_camera_backward": _camera_backward,
    "splat_prepare": lambda node, x, dims: prepare(x, node.attrs),
    "splat_prepare_backward": lambda node, x, dims: prepare_backward(x, node.attrs),
    "splat_rasterize": lambda node, x, dims: rasterize(x, node.attrs),
    "splat_rasterize_backward": lambda node, x, dims: rasterize_backward(x, node.attrs),
    "splat_render": lambda node, x, dims: render(x, node.attrs),
    "splat_render_backward": lambda node, x, dims: render_backward(x, node.attrs),
    "splat_pack_prepared": lambda node, x, dims: pack(x, node.attrs),
    "splat_unpack_prepared": lambda node, x, dims: unpack(x, node.attrs),
}
