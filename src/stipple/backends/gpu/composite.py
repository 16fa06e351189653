"""Compositing on the GPU: splat_rasterize."""

from __future__ import annotations

import warnings
from string import Template

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, declared, footprint_constants
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel, Params, shader_text
from stipple.backends.gpu.loops import tile_parts
from stipple.backends.gpu.reduction import reduce
from stipple.errors import LimitWarning
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import RasterizeOperands, RasterizeResults

_BATCH = 128
_MAX_KEPT = 12
"""Features of a batch that fit in workgroup memory; where Gaussians have more, they are read where they are."""
SIDE = 16
"""Edge, in pixels, of a workgroup's square. Larger tiles are processed by several workgroups."""


def squares_of(attrs: Attrs) -> int:
    """Workgroups per tile."""
    return int(-(-attrs["tile_size"] // SIDE)) ** 2


def composite_code(attrs: Attrs, features: int, name: str, **parts: str) -> str:
    """A kernel that evaluates footprints at pixels. Arrays have at least one element."""
    numbers = declared(
        FEATURES=features, SUMS=max(features, 1), BATCH=_BATCH,
        RAY_BATCH=_BATCH if attrs["projection"] == "ray" else 1, SUB=-(-attrs["tile_size"] // SIDE),
    )  # fmt: skip
    code = Template(shader_text(name)).substitute(**parts)
    return footprint_constants(attrs) + numbers + shader_text("footprint") + code


def composite_params(attrs: Attrs, gaussians: int) -> dict[str, int | float]:
    """The parameters of such a kernel."""
    size = attrs["tile_size"]
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    return {
        "groups": columns * rows * squares_of(attrs), "gaussians": gaussians, "width": attrs["width"],
        "height": attrs["height"], "tile": size, "columns": columns, "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip


# A pixel's state: four times its contributors, and whether it is done (1), or was cut by max_splat_steps (2).
_RESUME = """
  if (P.skip > 0u && place.inside) {  // the pixel's state after the earlier part of the list
    let state = states[at];
    done = (state & 3) != 0; over = (state & 3) == 2; steps = u32(state >> 2u);
    t = transmittance[at]; last = last_ids[at];
    for (var f = 0u; f < FEATURES; f++) { sum[f] = image[at * FEATURES + f]; }
$resume_median  }"""
_RESUME_MEDIAN = "    median = median_ids[at];\n"
_LEAVE_STATE = "  states[at] = i32(4u * steps) + select(select(0, 1, done), 2, over);\n"
_LEAVE_MEDIAN = "  median_ids[at] = median;\n"
_LEAVE_COUNT = "  counts[at] = i32(steps);\n"
_ALPHA = Kernel("alpha", "  alpha[i] = 1.0 - transmittance(i);")
_CUTS = Kernel("cuts", "  out[i] = select(0.0, 1.0, (states(i) & 3) == 2);")


def _rounds(features: int) -> int:
    """Maximum loop iterations per entry, including the final check of each loop: its own, those over its features, and
    its share of the batch's."""
    return 1 + (features + 1) + 1


def rasterize(gpu: Gpu, x: RasterizeOperands, attrs: Attrs, used: RasterizeResults) -> RasterizeResults:
    """Results of splat_rasterize; alpha, median_ids and counts only if they are used."""
    size, features = (attrs["height"], attrs["width"]), x.features.shape[1]
    floats = (gpu.memory.allocate(shape, DType.F32) for shape in ((*size, features), size, size))
    results = RasterizeResults(*floats, *(gpu.memory.allocate(size, DType.I32) for _ in range(3)))
    parts = tile_parts(gpu, x.tile_ranges, x.sorted_ids.size, _rounds(features))
    in_parts, max_steps = len(parts) > 1, attrs["max_splat_steps"]
    writes = {name: getattr(results, name) for name in ("image", "transmittance", "last_ids")}
    leave = resume_median = ""
    if used.median_ids:
        writes["median_ids"], resume_median = results.median_ids, _RESUME_MEDIAN
        leave += _LEAVE_MEDIAN
    if used.counts:
        writes["counts"] = results.counts
        leave += _LEAVE_COUNT
    if in_parts or max_steps:
        writes["states"] = gpu.memory.allocate(size, DType.I32)
        leave += _LEAVE_STATE
    resume = Template(_RESUME).substitute(resume_median=resume_median) if in_parts else ""
    behind = "select(0.0, t * background(f), P.ends == 1u)" if in_parts else "t * background(f)"
    keeps = 0 < features <= _MAX_KEPT
    constants = declared(KEEPS=keeps, KEPT=_BATCH * features if keeps else 1)
    code = constants + composite_code(attrs, features, "composite", resume=resume, behind=behind, leave=leave)
    params = composite_params(attrs, x.means2d.shape[0])
    params |= {"threshold": float(attrs["transmittance_threshold"]), "max_steps": max_steps}
    for skip, length in parts:
        part: Params = {**params, "skip": skip, "part": length, "ends": int(skip == parts[-1].skip)}
        gpu.run(Kernel("composite", code), x._asdict(), writes, int(params["groups"]), part)
    if used.alpha:
        gpu.each(_ALPHA, {"transmittance": results.transmittance}, {"alpha": results.alpha}, results.alpha.size)
    if max_steps:
        _warn_of_cuts(gpu, writes["states"], max_steps)
    return results


def _warn_of_cuts(gpu: Gpu, states: GpuBuffer, max_steps: int) -> None:
    """Warn about the number of pixels that a limit has cut short; waits for the device."""
    cuts, total = gpu.memory.allocate(states.shape, DType.F32), gpu.memory.allocate((), DType.F32)
    gpu.each(_CUTS, {"states": states}, {"out": cuts}, cuts.size)
    reduce(gpu, "sum", cuts, (0, 1), total)
    if number := int(gpu.memory.download(total)):
        warnings.warn(
            f"splat_rasterize: max_splat_steps = {max_steps} cut {number} of {states.size} pixels",
            LimitWarning,
            stacklevel=2,
        )
