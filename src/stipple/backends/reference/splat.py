"""The splat ops: operands in, structured results out, by way of projection and rasterization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stipple import numerics as nx
from stipple.backends.host import camera, packing
from stipple.backends.host.kernel import Compute
from stipple.backends.reference import rasterization
from stipple.backends.reference.binning import bin_tiles
from stipple.backends.reference.project import project, project_backward
from stipple.backends.reference.records import (
    BinOperands,
    ProjectBackwardOperands,
    ProjectOperands,
    ShBackwardOperands,
    ShOperands,
)
from stipple.backends.reference.sh import sh, sh_backward
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import PASS_THROUGH

Array = np.ndarray
Attrs = Mapping[str, AttrValue]
_PREPARE_OPERANDS = 8


def _camera_attrs(attrs: Attrs) -> Attrs:
    return {"camera_model": "pinhole", **attrs}


def _operands(x: Sequence[Array]) -> ProjectOperands:
    means, quats, scales, opacities, _, viewmat, intrinsics, clip = x[:_PREPARE_OPERANDS]
    return ProjectOperands(means, quats, scales, opacities, viewmat, intrinsics, np.zeros(0), clip)


def prepare(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Results of splat_prepare for its operands."""
    operands, colors, degree = _operands(x), x[4], attrs["sh_degree"]
    used = colors if degree == PASS_THROUGH else colors[:, : nx.sh_coeff_count(degree)]
    finite = np.isfinite(used).all(axis=tuple(range(1, used.ndim)))
    p = project(operands, _camera_attrs(attrs))
    for values in p:
        values[~finite] = 0
    if degree == PASS_THROUGH:
        shown = np.where(p.radii[:, :1] > 0, colors, 0.0)
    else:
        shown = sh(ShOperands(operands.means, colors, operands.viewmat, p.radii), attrs).colors
    opacities = np.where(p.compensation > 0, operands.opacities, 0.0) * p.compensation
    ranges, ids = bin_tiles(BinOperands(p.means2d, p.conics, opacities, p.radii, p.depths), attrs)
    return [p.means2d, p.conics, shown, opacities, p.depths, p.radii, ranges, ids]


def prepare_backward(x: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Gradients of splat_prepare's first seven operands."""
    operands, colors, degree = _operands(x), x[4], attrs["sh_degree"]
    radii, v_means2d, v_conics, v_colors, v_opacities, v_depths = x[_PREPARE_OPERANDS:]
    attrs = _camera_attrs(attrs)
    compensation = project(operands, attrs).compensation
    visible = radii[:, 0] > 0
    v_compensation = np.where(visible, v_opacities * operands.opacities, 0.0)
    v = project_backward(
        ProjectBackwardOperands(*operands, radii, v_means2d, v_conics, v_depths, v_compensation), attrs
    )
    v_own = np.where(visible, v_opacities * compensation, 0.0)
    if degree == PASS_THROUGH:
        v_shown = np.where(visible[:, None], v_colors, 0.0)
        return [v.v_means, v.v_quats, v.v_scales, v_own, v_shown, v.v_viewmat, v.v_intrinsics]
    s = sh_backward(ShBackwardOperands(operands.means, colors, operands.viewmat, radii, v_colors), attrs)
    return [
        v.v_means + s.v_means, v.v_quats, v.v_scales, v_own, s.v_sh, v.v_viewmat + s.v_viewmat, v.v_intrinsics,
    ]  # fmt: skip


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
