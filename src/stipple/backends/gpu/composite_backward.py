"""The gradients of compositing on the GPU: splat_rasterize_backward.

Each entry has its own row of slots, which its workgroups write; then the rows of each Gaussian are summed in order.
"""

from __future__ import annotations

from string import Template

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.composite import composite_code, composite_params, squares_of
from stipple.backends.gpu.constants import Attrs, declared
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.driver import WORKGROUP
from stipple.backends.gpu.kernels import Kernel
from stipple.backends.gpu.lists import Lists
from stipple.backends.gpu.loops import parts_of, tile_parts
from stipple.backends.gpu.reduction import reduce
from stipple.backends.gpu.structure import fill
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import RasterizeBackwardOperands, RasterizeBackwardResults

_CELLS = 2048
_MAX_MINI = 16

_RAY_VALUES = """
  let v_ratio = -s.sigma * v_power;
  let r = s_ray[slot];
  v[5] = 2.0 * v_ratio * dx; v[6] = 2.0 * v_ratio * dy; v[7] = v_ratio * dx * dx;
  v[8] = 2.0 * v_ratio * dx * dy; v[9] = v_ratio * dy * dy;
  v_dx += 2.0 * v_ratio * (r.x + r.z * dx + r.w * dy);
  v_dy += 2.0 * v_ratio * (r.y + r.w * dx + s_last[slot] * dy);"""
_SLOT = "slots[(u32(emission(u32(entry))) * SUB * SUB + place.sub) * VALUES + $value] = sum;"
_BUILTINS = """,
        @builtin(subgroup_id) sg: u32, @builtin(subgroup_invocation_id) lane: u32, @builtin(num_subgroups) sgs: u32"""
_GATHER_SUBGROUPS = """
        if (subgroupAny(takes)) {
          for (var k = 0u; k < VALUES; k++) {
            let sum = subgroupAdd(v[k]);
            if (lane == 0u) { cells[(m * VALUES + k) * SUBGROUPS + sg] = sum; }
          }
        } else if (lane == 0u) {
          for (var k = 0u; k < VALUES; k++) { cells[(m * VALUES + k) * SUBGROUPS + sg] = 0.0; }
        }"""
_SPREAD_SUBGROUPS = """
      workgroupBarrier();
      for (var c = lid; c < MINI * VALUES; c += 256u) {
        let entry = first - i32(c / VALUES);
        if (entry >= base) {
          var sum = 0.0;
          for (var s = 0u; s < sgs; s++) { sum += cells[c * SUBGROUPS + s]; }
          SLOT
        }
      }
      workgroupBarrier();"""
_GATHER_PLAIN = """
        for (var v0 = 0u; v0 < VALUES; v0 += 8u) {
          for (var k = 0u; k < 8u && v0 + k < VALUES; k++) { cells[k * 256u + lid] = v[v0 + k]; }
          workgroupBarrier();
          if (lid < 128u) {  // 16 threads a value, 16 pixels a thread
            var part = 0.0;
            for (var n = 0u; n < 16u; n++) { part += cells[lid * 16u + n]; }
            parts[lid] = part;
          }
          workgroupBarrier();
          if (lid < 8u && v0 + lid < VALUES && entry >= base) {
            var sum = 0.0;
            for (var n = 0u; n < 16u; n++) { sum += parts[lid * 16u + n]; }
            SLOT
          }
        }
        workgroupBarrier();"""


_RESUME = """
    if (end < front + count && last_ids(at) >= end) {  // the entries behind were processed before
      t = states[2u * at]; behind = states[2u * at + 1u];
    }"""
_LEAVE = """
  if (place.inside) {
    let at = place.y * P.width + place.x;
    states[2u * at] = t; states[2u * at + 1u] = behind;
  }"""


def _rounds(features: int, values: int) -> int:
    """Maximum loop iterations per entry: the three loops around it, two over its features, and the sums. With subgroups
    these are two loops over its values and, for each value that a thread sums, one over the subgroups, at most 64;
    without them, for every eight values, loops of 1, 8, 16 and 16."""
    spread = -(-values // WORKGROUP) + 1
    return 3 * 2 + 2 * (features + 1) + max(2 * (values + 1) + spread * 66, 44 * -(-values // 8) + 1)


def _reduction_parts(gpu: Gpu, values: int, ray: bool) -> dict[str, str]:
    """How a workgroup sums the gradients of its pixels: by subgroups, if it has them and their sums fit."""
    parts = {"ray": _RAY_VALUES if ray else ""}
    subgroups = WORKGROUP // gpu.driver.subgroup_size if gpu.driver.subgroup_size else 0
    if 0 < values * subgroups <= _CELLS:
        mini = min(_MAX_MINI, _CELLS // (values * subgroups))
        constants = f"const MINI: u32 = {mini}u;\nconst SUBGROUPS: u32 = {subgroups}u;\n"
        cells = f"var<workgroup> cells: array<f32, {mini * values * subgroups}>;\n"
        slot = _SLOT.replace("$value", "c % VALUES")
        return {
            **parts, "reduction": constants + cells, "builtins": _BUILTINS, "gather": _GATHER_SUBGROUPS,
            "spread": _SPREAD_SUBGROUPS.replace("SLOT", slot),
        }  # fmt: skip
    cells = "const MINI: u32 = 1u;\nvar<workgroup> cells: array<f32, 2048>;\nvar<workgroup> parts: array<f32, 128>;\n"
    gather = _GATHER_PLAIN.replace("SLOT", _SLOT.replace("$value", "v0 + lid"))
    return {**parts, "reduction": cells, "builtins": "", "gather": gather, "spread": ""}


_ADD_UP = """
  let rank = i / P.values; let k = i % P.values;
  let g = u32(order(rank));
  var sum = 0.0;
  let last = min(u32(offsets(rank + 1u)), P.entries) * P.squares;
  let start = min(u32(offsets(rank)) * P.squares + P.skip, last);
  for (var e = start; e < min(start + P.part, last); e++) { sum += slots(e * P.values + k); }
  if (k < 2u) { v_means2d[2u * g + k] $put sum; }
  else if (k < 2u + P.conic) { v_conics[P.conic * g + k - 2u] $put sum; }
  else if (k == 2u + P.conic) { v_opacities[g] $put sum; }
  else if (k < 5u + P.conic) { v_means2d_abs[2u * g + k - 3u - P.conic] $put sum; }
  else { v_features[P.features * g + k - 5u - P.conic] $put sum; }"""
_BACKGROUND = Kernel("background_gradient", "  out[i] = v_image(i) * transmittance(i / P.features);")


def rasterize_backward(
    gpu: Gpu, x: RasterizeBackwardOperands, attrs: Attrs, used: RasterizeBackwardResults, lists: Lists
) -> RasterizeBackwardResults:
    """Gradients of splat_rasterize, that of the background only if it is used."""
    like = (x.means2d, x.conics, x.opacities, x.features, x.background, x.means2d)
    results = RasterizeBackwardResults(*(gpu.memory.allocate(b.shape, DType.F32) for b in like))
    slots = _slots(gpu, x, attrs, lists.emission)
    _add_up(gpu, slots, lists, squares_of(attrs), results)
    if used.v_background:
        pixels, features = x.transmittance.size, x.features.shape[1]
        parts = gpu.memory.allocate((pixels, features), DType.F32)
        reads = {"v_image": x.v_image, "transmittance": x.transmittance}
        gpu.each(_BACKGROUND, reads, {"out": parts}, parts.size, {"features": features})
        reduce(gpu, "sum", parts, (0,), results.v_background)
    return results


def _slots(gpu: Gpu, x: RasterizeBackwardOperands, attrs: Attrs, emission: GpuBuffer) -> GpuBuffer:
    """Each entry's gradients [entries * workgroups of a tile, values], in the order in which the entries were listed by
    Gaussian: mean, conic, opacity, magnitudes of the mean's, features."""
    entries, features = x.sorted_ids.size, x.features.shape[1]
    values = 5 + x.conics.shape[1] + features
    slots = gpu.memory.allocate((entries * squares_of(attrs), values), DType.F32)
    fill(gpu, slots, 0.0)
    params = composite_params(attrs, x.means2d.shape[0])
    in_parts = tile_parts(gpu, x.tile_ranges, entries, _rounds(features, values))
    parts = _reduction_parts(gpu, values, attrs["projection"] == "ray") | {"resume": "", "leave": ""}
    writes = {"slots": slots}
    if len(in_parts) > 1:
        parts |= {"resume": _RESUME, "leave": _LEAVE}
        writes["states"] = gpu.memory.allocate((attrs["height"], attrs["width"], 2), DType.F32)
    code = declared(VALUES=values) + composite_code(attrs, features, "composite_backward", **parts)
    reads = {**x._asdict(), "emission": emission}
    del reads["image"]
    for skip, length in reversed(in_parts if entries else []):
        part = {**params, "skip": skip, "part": length}
        gpu.run(Kernel("composite_backward", code), reads, writes, int(params["groups"]), part)
    return slots


def _add_up(gpu: Gpu, slots: GpuBuffer, lists: Lists, squares: int, results: RasterizeBackwardResults) -> None:
    """Each Gaussian's sums, one number per thread."""
    count, values = results.v_opacities.size, slots.shape[1]
    writes = {name: array for name, array in results._asdict().items() if name != "v_background"}
    params: dict[str, int | float] = {
        "values": values, "conic": results.v_conics.shape[1], "features": results.v_features.shape[1],
        "squares": squares, "entries": lists.emission.size,
    }  # fmt: skip
    reads = {"slots": slots, "order": lists.order, "offsets": lists.offsets}
    for skip, length in parts_of(gpu, lists.max_entries * squares, 1):
        kernel = Kernel("add_up_entries", Template(_ADD_UP).substitute(put="+=" if skip else "="))
        gpu.each(kernel, reads, writes, count * values, {**params, "skip": skip, "part": length})
