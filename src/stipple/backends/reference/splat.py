"""The splat ops: operands in, structured results out, by way of projection and rasterization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple.backends.host import camera, packing
from stipple.backends.host.kernel import Compute
from stipple.backends.reference import projection, rasterization
from stipple.backends.reference.projection import Camera, Gaussians
from stipple.ir.attributes import AttrValue

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
_PREPARE_OPERANDS = 8


def _scene(x: Sequence[Array], attrs: Attrs) -> tuple[Gaussians, Array, Camera]:
    means, quats, scales, opacities, colors, viewmat, intrinsics, clip = x[:_PREPARE_OPERANDS]
    return Gaussians(means, quats, scales, opacities), colors, Camera.of(viewmat, intrinsics, clip, attrs)


def prepare(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Results of splat_prepare for its operands."""
    gaussians, colors, view = _scene(x, attrs)
    degree = attrs["sh_degree"]
    prints = projection.project(gaussians, view, projection.usable_colors(colors, degree), attrs)
    ids = prints.ids
    seen = projection.evaluate_colors(gaussians.means[ids], colors[ids], view, degree)
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
    gaussians, colors, view = _scene(x, attrs)
    radii, v_means2d, v_conics, v_colors, v_opacities, v_depths = x[_PREPARE_OPERANDS:]
    ids = np.flatnonzero((radii > 0).all(axis=1))
    sub, degree = gaussians.subset(ids), attrs["sh_degree"]
    arriving = projection.FootprintGradients(v_means2d[ids], v_conics[ids], v_opacities[ids], v_depths[ids])
    v_sub, v_camera = projection.project_backward(sub, view, arriving, attrs)
    more_means, v_sub_colors = projection.evaluate_colors_backward(
        sub.means, colors[ids], view, degree, v_colors[ids], v_camera
    )
    made = [np.zeros_like(a) for a in x[:5]]
    parts = (v_sub.means + more_means, v_sub.quats, v_sub.scales, v_sub.opacities, v_sub_colors)
    for into, part in zip(made, parts, strict=True):
        into[ids] = part
    return [*made, *v_camera.matrices()]


def rasterize(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Results of splat_rasterize for its operands."""
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


KERNELS: dict[str, Compute] = {
    **camera.KERNELS,
    "splat_prepare": lambda node, x, dims: prepare(x, node.attrs),
    "splat_prepare_backward": lambda node, x, dims: prepare_backward(x, node.attrs),
    "splat_rasterize": lambda node, x, dims: rasterize(x, node.attrs),
    "splat_rasterize_backward": lambda node, x, dims: rasterize_backward(x, node.attrs),
    "splat_render": lambda node, x, dims: render(x, node.attrs),
    "splat_render_backward": lambda node, x, dims: render_backward(x, node.attrs),
    **packing.KERNELS,
}
