"""The interface of the rlx-ir splat builders, as thin builders over Stipple's ops: a :class:`Graph` that has them.

Names, defaults, orders and lengths are those of rlx-ir's public splat interface; every field acts on both the forward
and the backward pass:

* ``radius_scale`` multiplies every sigma.
* ``max_anisotropy`` limits the ratio of a Gaussian's longest axis to the others, by enlarging these (0: no limit).
* ``sh_band`` is the highest SH band that is evaluated.
* ``alpha_cutoff``, ``max_splat_steps``, ``transmittance_threshold``, ``max_list_entries`` are the attributes
  of the same names of ``splat_prepare`` and ``splat_rasterize``.
* ``loss_grad_clip`` clamps each element of the incoming image gradient to plus or minus this (0: no clipping).

The colour of a Gaussian is ``colors`` where there are no SH coefficients; with them it is ``colors`` plus the
SH (without a further offset), clamped at 0. Scales are linear, rotations wxyz: put an ``exp`` before
them for log scales. Gaussians are evaluated along each pixel's ray (``projection="ray"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from stipple import ir
from stipple import numerics as nx
from stipple.compat import packing
from stipple.errors import GraphError
from stipple.ir.autodiff import pullback
from stipple.ir.graph import Value
from stipple.ir.ops import splat, structure
from stipple.ir.ops.elementwise import clamp, maximum
from stipple.ir.ops.reduce import reduce_max
from stipple.ir.shape import Dim, Shape

PROJECTION = "ray"


@dataclass(frozen=True)
class GaussianSplatInputs:
    """positions [N, 3], scales [N, 3] linear, rotations [N, 4] wxyz, opacities [N] in [0, 1], colors [N, 3],
    sh_coeffs [N, K, 3] (K may be 0), meta [23]. Flat tensors of a known size are accepted for all of them."""

    positions: Value
    scales: Value
    rotations: Value
    opacities: Value
    colors: Value
    sh_coeffs: Value
    meta: Value


@dataclass(frozen=True)
class GaussianSplatRenderParams:
    """Framebuffer size and limits of a render; the module describes each. 0 means no limit."""

    width: int = 64
    height: int = 64
    tile_size: int = 16
    radius_scale: float = 1.6
    alpha_cutoff: float = 1 / 255
    max_splat_steps: int = 32
    transmittance_threshold: float = 0.01
    max_list_entries: int = 576

    def attrs(self) -> dict[str, Any]:
        """The fields as attributes of splat_camera."""
        return {name: getattr(self, name) for name in splat.META_PARAM_NAMES}

    def meta_tail(self) -> list[float]:
        """The fields as meta[15:23]."""
        return [float(getattr(self, name)) for name in splat.META_PARAM_NAMES]


@dataclass(frozen=True)
class GaussianSplatBackwardParams:
    """A render's parameters and those of its training. The forward builders take it too, and then render
    with its ``sh_band`` and ``max_anisotropy``; given only render parameters they use its defaults."""

    render: GaussianSplatRenderParams = field(default_factory=GaussianSplatRenderParams)
    loss_grad_clip: float = 1.0
    sh_band: int = 0
    max_anisotropy: float = 10.0

    def __post_init__(self) -> None:
        if self.loss_grad_clip < 0:
            raise GraphError(f"loss_grad_clip: expected a number >= 0 (0: no clipping), got {self.loss_grad_clip}")
        if self.max_anisotropy != 0 and self.max_anisotropy < 1:
            raise GraphError(f"max_anisotropy: expected 0 (no limit) or >= 1, got {self.max_anisotropy}")
        if not 0 <= self.sh_band <= nx.MAX_SH_DEGREE:
            raise GraphError(f"sh_band: expected 0 to {nx.MAX_SH_DEGREE}, got {self.sh_band}")


SplatParams = GaussianSplatRenderParams | GaussianSplatBackwardParams


def gaussian_splat_tile_count(width: int, height: int, tile_size: int) -> int:
    """Tiles that cover an image."""
    return splat.tile_count(width, height, tile_size)


def gaussian_splat_prep_packed_len(count: int, max_list_entries: int, width: int, height: int, tile_size: int) -> int:
    """Floats in a packed prepare buffer (layout: ``stipple.compat.packing``)."""
    tail = packing.packed_tail(width, height, tile_size, max_list_entries)
    return max(count, 1) * packing.FLOATS_PER_GAUSSIAN + tail


def gaussian_splat_packed_grad_len(count: int, sh_coeff_count: int) -> int:
    """Floats in packed gradients: positions, scales, rotations, opacities, colors, sh."""
    return count * 14 + count * max(sh_coeff_count, 1) * 3


def unpack_gaussian_splat_packed_grads(
    graph: ir.Graph, packed: Value, count: int | Dim | str, sh_coeff_count: int
) -> GaussianSplatInputs:
    """The gradients in a packed vector, shaped like the inputs; ``meta`` holds the packed vector itself."""
    n = Dim.of(count)
    start = Dim.of(0)
    parts: list[Value] = []
    for shape in ((n, 3), (n, 3), (n, 4), (n,), (n, 3), (n, max(sh_coeff_count, 1), 3)):
        block = Shape(shape)
        parts.append(structure.reshape(structure.narrow(packed, 0, start, block.size), block))
        start = start + block.size
    positions, scales, rotations, opacities, colors, sh = parts
    return GaussianSplatInputs(positions, scales, rotations, opacities, colors, sh, meta=packed)


@dataclass(frozen=True)
class _Scene:
    """Operands of splat_prepare, built from rlx-ir's inputs."""

    gaussians: tuple[Value, Value, Value, Value]
    colors: Value
    camera: splat.CameraResults
    sh_degree: int


def _full(params: SplatParams) -> GaussianSplatBackwardParams:
    if isinstance(params, GaussianSplatRenderParams):
        return GaussianSplatBackwardParams(params)
    return params


def _shaped(value: Value, name: str, width: int) -> Value:
    """A flat tensor as rows of ``width``; other shapes as they are."""
    if value.shape.rank != 1 or width == 0:
        return value
    size = value.shape[0].value
    if size is None or size % width:
        raise GraphError(
            f"gaussian_splat: {name}: expected [N, {width}] or a known multiple of {width}, got {value.shape}"
        )
    return structure.reshape(value, [size // width, width])


def shaped_inputs(inputs: GaussianSplatInputs) -> GaussianSplatInputs:
    """The inputs, with flat tensors reshaped into rows."""
    opacities, sh = inputs.opacities, inputs.sh_coeffs
    if opacities.shape.rank == 2 and opacities.shape[1] == 1:
        opacities = structure.reshape(opacities, [opacities.shape[0]])
    positions = _shaped(inputs.positions, "positions", 3)
    count = positions.shape[0]
    if sh.shape.rank == 1:
        rows, size = count.value, sh.shape[0].value
        if rows is None or size is None or size % max(3 * rows, 1):
            raise GraphError(f"gaussian_splat: sh_coeffs: expected [N, K, 3], got {sh.shape} for {count} Gaussians")
        sh = structure.reshape(sh, [rows, size // (3 * rows) if rows else 0, 3])
    if sh.shape.rank != 3 or sh.shape[0] != count or sh.shape[2] != 3 or sh.shape[1].value is None:
        raise GraphError(f"gaussian_splat: sh_coeffs: expected [{count}, K, 3] with a known K, got {sh.shape}")
    return replace(
        inputs,
        positions=positions,
        scales=_shaped(inputs.scales, "scales", 3),
        rotations=_shaped(inputs.rotations, "rotations", 4),
        opacities=opacities,
        colors=_shaped(inputs.colors, "colors", 3),
        sh_coeffs=sh,
    )


def _scene(inputs: GaussianSplatInputs, params: GaussianSplatBackwardParams) -> _Scene:
    s = shaped_inputs(inputs)
    scales = s.scales
    if params.max_anisotropy:
        longest = reduce_max(scales, 1, keepdims=True)
        scales = maximum(scales, longest / params.max_anisotropy)
    scales = scales * params.render.radius_scale
    camera = splat.splat_camera(s.meta, **params.render.attrs())
    colors, degree = _colors(s, params.sh_band)
    return _Scene((s.positions, s.rotations, scales, s.opacities), colors, camera, degree)


def _colors(s: GaussianSplatInputs, band: int) -> tuple[Value, int]:
    """Colours for splat_prepare: SH whose band 0 carries ``colors`` instead of the usual offset."""
    given = cast(int, s.sh_coeffs.shape[1].value)
    if given == 0:
        return s.colors, splat.PASS_THROUGH
    needed = nx.sh_coeff_count(band)
    if given < needed:
        raise GraphError(f"gaussian_splat: sh_coeffs: sh_band {band} needs {needed} coefficients, got {given}")
    count = s.sh_coeffs.shape[0]
    offset = (s.colors - nx.SH_OFFSET) / nx.SH_C0
    first = structure.narrow(s.sh_coeffs, 1, 0, 1) + structure.reshape(offset, [count, 1, 3])
    if needed == 1:
        return first, 0
    return structure.concat([first, structure.narrow(s.sh_coeffs, 1, 1, needed - 1)], axis=1), band


def _prepare_attrs(params: GaussianSplatRenderParams, sh_degree: int) -> dict[str, Any]:
    return {
        **splat.select_attrs(splat.PREPARE_ATTRS, params.attrs()),
        "projection": PROJECTION,
        "sh_degree": sh_degree,
    }


def _rasterize_attrs(params: GaussianSplatRenderParams) -> dict[str, Any]:
    return {**splat.select_attrs(splat.RASTERIZE_ATTRS, params.attrs()), "projection": PROJECTION}


class Graph(ir.Graph):
    """A graph with rlx-ir's splat builders as methods."""

    def gaussian_splat_render_meta(
        self,
        camera_position: Sequence[float],
        camera_target: Sequence[float],
        camera_up: Sequence[float],
        fov_y_degrees: float,
        near: float,
        far: float,
        background: Sequence[float],
        params: GaussianSplatRenderParams,
    ) -> Value:
        """The constant 23-float meta of a look-at camera and a render's parameters, as f32."""
        for name, vector in (
            ("camera_position", camera_position),
            ("camera_target", camera_target),
            ("camera_up", camera_up),
            ("background", background),
        ):
            if len(vector) != 3:
                raise GraphError(f"gaussian_splat_render_meta: {name}: expected 3 numbers, got {vector!r}")
        numbers = [*camera_position, *camera_target, *camera_up, fov_y_degrees, near, far, *background]
        return self.constant([*numbers, *params.meta_tail()], "f32")

    def gaussian_splat_render(self, inputs: GaussianSplatInputs, params: SplatParams) -> Value:
        """Render: rgba [height, width, 4]."""
        full = _full(params)
        s = _scene(inputs, full)
        attrs = {**_prepare_attrs(full.render, s.sh_degree), **_rasterize_attrs(full.render)}
        camera = s.camera
        rendered = splat.splat_render(
            *s.gaussians, s.colors, camera.viewmat, camera.intrinsics, camera.background, camera.clip, **attrs
        )
        rgba: Value = rendered.rgba
        return rgba

    def gaussian_splat_prepare(self, inputs: GaussianSplatInputs, params: SplatParams) -> Value:
        """Stage 1 of a render: the packed prepare buffer. Needs ``max_list_entries`` > 0."""
        full = _full(params)
        s = _scene(inputs, full)
        camera, attrs = s.camera, _rasterize_attrs(full.render)
        p = splat.splat_prepare(
            *s.gaussians,
            s.colors,
            camera.viewmat,
            camera.intrinsics,
            camera.clip,
            **_prepare_attrs(full.render, s.sh_degree),
        )
        operands = packing.PackOperands(
            means2d=p.means2d,
            conics=p.conics,
            colors=p.colors,
            opacities=p.opacities,
            depths=p.depths,
            tile_ranges=p.tile_ranges,
            sorted_ids=p.sorted_ids,
            intrinsics=camera.intrinsics,
            background=camera.background,
        )
        attrs["max_list_entries"] = full.render.max_list_entries
        return self.add("splat_pack_prepared", operands, attrs).outputs[0]

    def gaussian_splat_rasterize(self, prep: Value, meta: Value, params: SplatParams) -> Value:
        """Stage 2 of a render: rgba [height, width, 4] from a packed prepare buffer and the meta."""
        render = _full(params).render
        camera = splat.splat_camera(meta, **render.attrs())
        attrs = _rasterize_attrs(render)
        more = {"max_list_entries": render.max_list_entries, "count": _packed_count(prep, render)}
        u: packing.UnpackResults = self.add("splat_unpack_prepared", [prep], {**attrs, **more}).results
        no_radii = None  # the packed buffer has none, and compositing needs none
        prepared = splat.PrepareResults(
            u.means2d, u.conics, u.colors, u.opacities, u.depths, no_radii, u.tile_ranges, u.sorted_ids
        )
        rgba: Value = splat.composite(prepared, camera.background, attrs).rgba
        return rgba

    def gaussian_splat_render_decomposed(self, inputs: GaussianSplatInputs, params: SplatParams) -> Value:
        """prepare, then rasterize, through the packed buffer: the same bits as gaussian_splat_render."""
        prep = self.gaussian_splat_prepare(inputs, params)
        return self.gaussian_splat_rasterize(prep, inputs.meta, params)

    def gaussian_splat_render_backward(
        self, inputs: GaussianSplatInputs, d_loss_rgba: Value, params: GaussianSplatBackwardParams
    ) -> Value:
        """Packed gradients of a loss whose gradient with respect to the rendered rgba is ``d_loss_rgba``.

        ``d_loss_rgba`` is [height, width, 4] or flat. The order is positions, scales, rotations, opacities,
        colors, sh; the length :func:`gaussian_splat_packed_grad_len`.
        """
        s = shaped_inputs(inputs)
        render = params.render
        cotangent = structure.reshape(d_loss_rgba, [render.height, render.width, 4])
        if params.loss_grad_clip:
            cotangent = clamp(cotangent, -params.loss_grad_clip, params.loss_grad_clip)
        rgba = self.gaussian_splat_render(s, params)
        wrt = [s.positions, s.scales, s.rotations, s.opacities, s.colors]
        has_sh = s.sh_coeffs.shape[1] != 0
        if len({*wrt, s.sh_coeffs}) < len(wrt) + 1:
            raise GraphError(
                "gaussian_splat_render_backward: inputs: one value is used for two of them, so their gradients cannot "
                "be separated"
            )
        grads = pullback([(rgba, cotangent)], [*wrt, s.sh_coeffs] if has_sh else wrt, independent=True)
        return packing.pack_gradients(grads[:5], grads[5] if has_sh else None, s.positions.shape[0])


def _packed_count(prep: Value, params: GaussianSplatRenderParams) -> int:
    """Gaussians in a packed buffer whose length is known, else -1. A buffer of one may hold none."""
    size = prep.shape[0].value if prep.shape.rank == 1 else None
    if size is None:
        return -1
    empty = packing.packed_tail(params.width, params.height, params.tile_size, params.max_list_entries)
    count, left = divmod(size - empty, packing.FLOATS_PER_GAUSSIAN)
    if left or count < 1:
        raise GraphError(
            f"gaussian_splat_rasterize: prep: {size} floats do not match a packed prepare buffer of these parameters"
        )
    return -1 if count == 1 else count
