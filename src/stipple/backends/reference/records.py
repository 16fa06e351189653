"""Records of the splat ops' operands and results."""

from __future__ import annotations

from typing import Any, NamedTuple


class ProjectOperands(NamedTuple):
    """Operands of splat_project; see :func:`splat_project`."""

    means: Any
    quats: Any
    scales: Any
    opacities: Any
    viewmat: Any
    intrinsics: Any
    distortion: Any
    clip: Any


class ProjectResults(NamedTuple):
    """means2d [N, 2] in pixels, conics [N, 3] or [N, 8], depths [N] (camera z), radii [N, 2] i32 in pixels,
    compensation [N]."""

    means2d: Any
    conics: Any
    depths: Any
    radii: Any
    compensation: Any


class ProjectBackwardOperands(NamedTuple):
    """Operands of splat_project_backward."""

    means: Any
    quats: Any
    scales: Any
    opacities: Any
    viewmat: Any
    intrinsics: Any
    distortion: Any
    clip: Any
    radii: Any
    v_means2d: Any
    v_conics: Any
    v_depths: Any
    v_compensation: Any


class ProjectBackwardResults(NamedTuple):
    """Gradients in the operands of splat_project."""

    v_means: Any
    v_quats: Any
    v_scales: Any
    v_viewmat: Any
    v_intrinsics: Any
    v_distortion: Any


class ShOperands(NamedTuple):
    """Operands of splat_sh; see :func:`splat_sh`."""

    means: Any
    sh: Any
    viewmat: Any
    radii: Any


class ShResults(NamedTuple):
    """colors [N, C]."""

    colors: Any


class ShBackwardOperands(NamedTuple):
    """Operands of splat_sh_backward."""

    means: Any
    sh: Any
    viewmat: Any
    radii: Any
    v_colors: Any


class ShBackwardResults(NamedTuple):
    """Gradients in the operands of splat_sh."""

    v_means: Any
    v_sh: Any
    v_viewmat: Any


class BinOperands(NamedTuple):
    """Operands of splat_bin; see :func:`splat_bin`."""

    means2d: Any
    conics: Any
    opacities: Any
    radii: Any
    depths: Any


class BinResults(NamedTuple):
    """tile_ranges [T, 2] i32, where each tile's entries begin and end in sorted_ids [E] i32, indices of Gaussians."""

    tile_ranges: Any
    sorted_ids: Any
