"""Footprints on the GPU, and their gradients."""

from __future__ import annotations

from functools import lru_cache
from string import Template

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, camera_constants
from stipple.backends.gpu.device import Gpu, groups_of
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.reduction import reduce
from stipple.backends.host.distortion import max_slope_squared
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import (
    CONIC_LENGTH,
    ProjectBackwardOperands,
    ProjectBackwardResults,
    ProjectOperands,
    ProjectResults,
)

_LARGEST = float(np.finfo(np.float32).max)


def _code(attrs: Attrs, coefficients: int) -> str:
    """The code that both kernels share."""
    parts = "".join(shader_text(name) for name in ("gaussians", "camera", "ewa", "ray"))
    return camera_constants(attrs, coefficients) + parts


def project(gpu: Gpu, x: ProjectOperands, attrs: Attrs) -> ProjectResults:
    """Results of splat_project."""
    count, coefficients = x.means.shape[0], x.distortion.size
    allocate = gpu.memory.allocate
    results = ProjectResults(
        means2d=allocate((count, 2), DType.F32),
        conics=allocate((count, CONIC_LENGTH[attrs["projection"]]), DType.F32),
        depths=allocate((count,), DType.F32),
        radii=allocate((count, 2), DType.I32),
        compensation=allocate((count,), DType.F32),
    )
    params: dict[str, int | float] = {
        "count": count, "width": attrs["width"], "height": attrs["height"], "eps2d": float(attrs["eps2d"]),
        "alpha_cutoff": float(attrs["alpha_cutoff"]), "max_slope_squared": _limit(gpu, x.distortion, attrs),
    }  # fmt: skip
    kernel = Kernel("project", shader_text("project"), _code(attrs, coefficients))
    gpu.run(kernel, x._asdict(), results._asdict(), groups_of(count), params)
    return results


def _limit(gpu: Gpu, distortion: GpuBuffer, attrs: Attrs) -> float:
    """The largest squared slope within a lens's range. Waits for coefficients that only the device knows."""
    if not distortion.size:
        return _LARGEST
    return _limit_of(attrs["camera_model"], gpu.memory.known(distortion).tobytes())


@lru_cache(maxsize=256)
def _limit_of(camera_model: str, coefficients: bytes) -> float:
    return min(max_slope_squared(camera_model, np.frombuffer(coefficients, np.float32)), _LARGEST)


# rotation 9, translation 3, focal lengths 2, centre 2, distortion
_POSE_AND_LENS = 16
_STORE_CAMERA = """
  let at = P.row * i;
  for (var k = 0u; k < 3u; k++) {
    v_camera[at + k] = v_row0[k]; v_camera[at + 3u + k] = v_row1[k]; v_camera[at + 6u + k] = v_row2[k];
    v_camera[at + 9u + k] = v_translation[k];
  }
  v_camera[at + 12u] = v_focal.x; v_camera[at + 13u] = v_focal.y;
  v_camera[at + 14u] = v_center.x; v_camera[at + 15u] = v_center.y;
  for (var k = 16u; k < P.row; k++) { v_camera[at + k] = v_lens[k - 16u]; }"""


def project_backward(
    gpu: Gpu, x: ProjectBackwardOperands, attrs: Attrs, used: ProjectBackwardResults
) -> ProjectBackwardResults:
    """Gradients of splat_project; those of the camera only if they are used."""
    count, coefficients = x.means.shape[0], x.distortion.size
    results = ProjectBackwardResults(
        *(gpu.memory.allocate(b.shape, DType.F32) for b in (*x[:3], x.viewmat, x.intrinsics, x.distortion))
    )
    writes = {name: getattr(results, name) for name in ("v_means", "v_quats", "v_scales")}
    with_camera = used.v_viewmat or used.v_intrinsics or used.v_distortion
    params: dict[str, int | float] = {
        "count": count, "width": attrs["width"], "height": attrs["height"], "eps2d": float(attrs["eps2d"])
    }  # fmt: skip
    if with_camera:
        params["row"] = _POSE_AND_LENS + coefficients
        writes["v_camera"] = gpu.memory.allocate((count, _POSE_AND_LENS + coefficients), DType.F32)
    code = Template(shader_text("project_backward")).substitute(store_camera=_STORE_CAMERA if with_camera else "")
    reads = {name: array for name, array in x._asdict().items() if name not in ("opacities", "clip")}
    gpu.run(Kernel("project_backward", code, _code(attrs, coefficients)), reads, writes, groups_of(count), params)
    if with_camera:
        _camera_gradient(gpu, writes["v_camera"], results)
    return results


_CAMERA_GRADIENT = """
  var value = 0.0;
  if (i < 16u) {
    let r = i / 4u; let c = i % 4u;
    if (r < 3u && c < 3u) { value = sums(3u * r + c); }
    if (r < 3u && c == 3u) { value = sums(9u + r); }
    v_viewmat[i] = value;
  } else if (i < 25u) {
    let k = i - 16u;
    if (k == 0u) { value = sums(12u); }
    if (k == 4u) { value = sums(13u); }
    if (k == 2u) { value = sums(14u); }
    if (k == 5u) { value = sums(15u); }
    v_intrinsics[k] = value;
  } else { v_distortion[i - 25u] = sums(i - 9u); }"""


def _camera_gradient(gpu: Gpu, rows: GpuBuffer, results: ProjectBackwardResults) -> None:
    """Add up the Gaussians' rows, and put the sums in their places."""
    sums = gpu.memory.allocate((rows.shape[1],), DType.F32)
    reduce(gpu, "sum", rows, (0,), sums)
    writes = {name: getattr(results, name) for name in ("v_viewmat", "v_intrinsics", "v_distortion")}
    kernel = Kernel("camera_gradient", _CAMERA_GRADIENT)
    gpu.each(kernel, {"sums": sums}, writes, rows.shape[1] + 9)
