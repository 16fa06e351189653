"""Footprints and colours on the GPU, the lists of each tile, and the gradients of the former."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from stipple.backends.gpu.binning import Footprints, tile_lists
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, constants
from stipple.backends.gpu.device import Gpu, groups_of
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.reduction import reduce
from stipple.backends.gpu.sh import sh_basis
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import CONIC_LENGTH

_OPERANDS = ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "clip")


def prepare(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, exact: bool = False) -> list[GpuBuffer]:
    """Results of splat_prepare. Unless ``exact``, there may be room in ``sorted_ids`` behind the last entry, and the
    run must ask :func:`collecting.collect` before it uses anything."""
    operands = dict(zip(_OPERANDS, x, strict=False))
    count, channels = x[0].shape[0], x[4].shape[-1]
    conic = CONIC_LENGTH[attrs["projection"]]
    shapes = {
        "means2d": ((count, 2), DType.F32), "conics": ((count, conic), DType.F32),
        "seen_colors": ((count, channels), DType.F32), "seen_opacities": ((count,), DType.F32),
        "depths": ((count,), DType.F32), "radii": ((count, 2), DType.I32), "seen": ((count,), DType.I32),
    }  # fmt: skip
    made = {name: gpu.memory.allocate(*kind) for name, kind in shapes.items()}
    code = constants(attrs, channels) + sh_basis(attrs["sh_degree"]) + shader_text("camera") + shader_text("project")
    params: dict[str, int | float] = {
        "count": count, "width": attrs["width"], "height": attrs["height"],
        "coefficients": x[4].shape[1] if len(x[4].shape) == 3 else 1,
        "eps2d": float(attrs["eps2d"]), "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip
    gpu.run(Kernel("project", code), operands, made, groups_of(count), params)
    footprints = Footprints(*(made[n] for n in ("means2d", "conics", "seen_opacities", "depths", "radii", "seen")))
    lists = tile_lists(gpu, footprints, attrs, exact)
    return [*(made[n] for n in ("means2d", "conics", "seen_colors", "seen_opacities", "depths", "radii")), *lists]


_CAMERA_ROW = """
  let base = 19u * i;
  for (var k = 0u; k < 3u; k++) {
    v_camera[base + k] = row0[k]; v_camera[base + 3u + k] = row1[k]; v_camera[base + 6u + k] = row2[k];
    v_camera[base + 9u + k] = v_translation[k]; v_camera[base + 16u + k] = v_position[k];
  }
  v_camera[base + 12u] = v_focal.x; v_camera[base + 13u] = v_focal.y;
  v_camera[base + 14u] = v_center.x; v_camera[base + 15u] = v_center.y;"""
_ASSEMBLE = """
  if (i < 16u) {
    let r = i / 4u; let c = i % 4u;
    var value = 0.0;
    if (r < 3u && c < 3u) { value = sums(3u * r + c) - viewmat(4u * r + 3u) * sums(16u + c); }
    if (r < 3u && c == 3u) {
      value = sums(9u + r);
      for (var k = 0u; k < 3u; k++) { value -= viewmat(4u * r + k) * sums(16u + k); }
    }
    v_viewmat[i] = value;
  } else {
    let k = i - 16u;
    var value = 0.0;
    if (k == 0u) { value = sums(12u); }
    if (k == 4u) { value = sums(13u); }
    if (k == 2u) { value = sums(14u); }
    if (k == 5u) { value = sums(15u); }
    v_intrinsics[k] = value;
  }"""


def prepare_backward(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of splat_prepare's first seven operands; those of the camera only if something uses them."""
    operands = dict(zip(_OPERANDS[:7], x[:7], strict=True))
    names = ("radii", "v_means2d", "v_conics", "v_shown", "v_seen", "v_depths")
    count, channels = x[0].shape[0], x[4].shape[-1]
    with_camera = used[5] or used[6]
    made = {f"v_{n}": gpu.memory.allocate(operands[n].shape, DType.F32) for n in _OPERANDS[:5]}
    reads = {**operands, **dict(zip(names, x[8:14], strict=True))}
    writes = dict(made)
    if with_camera:
        writes["v_camera"] = gpu.memory.allocate((count, 19), DType.F32)
    code = Template(shader_text("project_backward")).substitute(camera=_CAMERA_ROW if with_camera else "")
    code = constants(attrs, channels) + sh_basis(attrs["sh_degree"]) + shader_text("camera") + code
    params: dict[str, int | float] = {
        "count": count, "width": attrs["width"], "height": attrs["height"],
        "coefficients": x[4].shape[1] if len(x[4].shape) == 3 else 1, "eps2d": float(attrs["eps2d"]),
    }  # fmt: skip
    gpu.run(Kernel("project_backward", code), reads, writes, groups_of(count), params)
    v_viewmat, v_intrinsics = gpu.memory.allocate((4, 4), DType.F32), gpu.memory.allocate((3, 3), DType.F32)
    if with_camera:
        sums = gpu.memory.allocate((19,), DType.F32)
        reduce(gpu, "sum", writes["v_camera"], (0,), sums)
        outputs = {"v_viewmat": v_viewmat, "v_intrinsics": v_intrinsics}
        gpu.each(Kernel("camera_gradient", _ASSEMBLE), {"sums": sums, "viewmat": x[5]}, outputs, 25)
    return [*made.values(), v_viewmat, v_intrinsics]
