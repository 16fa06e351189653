"""Compositing on the GPU, and its gradients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from string import Template

from stipple.backends.gpu.binning import lists_of
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import Attrs, constants
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.driver import WORKGROUP
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.backends.gpu.loops import parts_of, tile_parts
from stipple.backends.gpu.reduction import reduce
from stipple.backends.gpu.structure import fill
from stipple.errors import LimitWarning
from stipple.ir.dtype import DType

_PREPARED = ("means2d", "conics", "colors", "opacities", "depths")
_BATCH = 128
_SIDE = 16
_CELLS = 2048
_MOST_MINI = 16


def _raster_code(attrs: Attrs, channels: int, name: str, **parts: str) -> str:
    side = -(-attrs["tile_size"] // _SIDE)
    ray_batch = _BATCH if attrs["projection"] == "ray" else 1
    numbers = constants(attrs, channels)
    numbers += f"const BATCH: u32 = {_BATCH}u;\nconst RAY_BATCH: u32 = {ray_batch}u;\nconst SUB: u32 = {side}u;\n"
    return numbers + shader_text("footprint") + Template(shader_text(name)).substitute(**parts)


def _raster_params(attrs: Attrs, gaussians: int) -> dict[str, int | float]:
    size = attrs["tile_size"]
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    return {
        "groups": columns * rows * (-(-size // _SIDE)) ** 2, "gaussians": gaussians, "width": attrs["width"],
        "height": attrs["height"], "tile": size, "columns": columns, "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip


_RESUME = """
  if (P.skip > 0u && place.inside) {  // what an earlier part of the list has made of the pixel
    let at = place.y * P.width + place.x;
    let state = states[at];
    done = state < 0; over = state == -2; steps = u32(max(state, 0));
    t = transmittance[at]; z = depth[at]; last = last_ids[at];
    for (var c = 0u; c < CHANNELS; c++) { color[c] = rgba[at * (CHANNELS + 1u) + c]; }
  }"""
_LEAVE = "\n  states[at] = select(i32(steps), select(-1, -2, over), done);"
_WHOLE = {"resume": "", "behind": "t * background(c)", "leave": ""}
_IN_PARTS = {"resume": _RESUME, "behind": "select(0.0, t * background(c), P.ends == 1u)", "leave": _LEAVE}


def _forward_rounds(channels: int) -> int:
    """Rounds of loops that an entry takes at most, with the one in which a loop finds that it is over: the entry's own,
    its channels', and what it shares with its batch."""
    return 1 + (channels + 1) + 1


def rasterize(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs) -> list[GpuBuffer]:
    """Results of splat_rasterize."""
    means2d = x[0]
    height, width, channels = attrs["height"], attrs["width"], x[2].shape[1]
    made = {
        "rgba": gpu.memory.allocate((height, width, channels + 1), DType.F32),
        "depth": gpu.memory.allocate((height, width), DType.F32),
        "transmittance": gpu.memory.allocate((height, width), DType.F32),
        "last_ids": gpu.memory.allocate((height, width), DType.I32),
    }
    most = attrs["max_splat_steps"]
    writes = dict(made)
    if most:
        writes["cuts"] = gpu.memory.allocate((height, width), DType.F32)
    cut = "  cuts[at] = select(0.0, 1.0, over);" if most else ""
    params = _raster_params(attrs, means2d.shape[0])
    params |= {"threshold": float(attrs["transmittance_threshold"]), "most_steps": most}
    reads = dict(zip((*_PREPARED, "background", "tile_ranges", "sorted_ids"), x[:8], strict=True))
    parts = tile_parts(gpu, x[6], x[7].size, _forward_rounds(channels))
    if len(parts) > 1:
        writes["states"] = gpu.memory.allocate((height, width), DType.I32)
    code = _raster_code(attrs, channels, "rasterize", cut=cut, **(_IN_PARTS if len(parts) > 1 else _WHOLE))
    for skip, length in parts:
        params |= {"skip": skip, "part": length, "ends": int(skip == parts[-1].skip)}
        gpu.run(Kernel("rasterize", code), reads, writes, int(params["groups"]), params)
    if most:
        total = gpu.memory.allocate((), DType.F32)
        reduce(gpu, "sum", writes["cuts"], (0, 1), total)
        if number := int(gpu.memory.download(total)):
            warnings.warn(
                f"splat_rasterize: max_splat_steps = {most} cut {number} of {height * width} pixels",
                LimitWarning,
                stacklevel=2,
            )
    return list(made.values())


_RAY_VALUES = """
  let v_ratio = -seen.sigma * v_power;
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


_RESUME_BACKWARD = """
    if (end < front + count && last_ids(at) >= end) {  // what is behind was gone through before
      t = states[2u * at]; behind = states[2u * at + 1u];
    }"""
_LEAVE_BACKWARD = """
  if (place.inside) {
    let at = place.y * P.width + place.x;
    states[2u * at] = t; states[2u * at + 1u] = behind;
  }"""


def _backward_rounds(channels: int, values: int) -> int:
    """Rounds that an entry takes at most: the three loops that it is in, two over its channels, and adding up. By
    subgroups that is two loops over its values and, for each value that a thread spreads, one over the subgroups, of
    which there are 64 at most; without them, for eight values, loops of 1, 8, 16 and 16."""
    spread = -(-values // WORKGROUP) + 1
    return 3 * 2 + 2 * (channels + 1) + max(2 * (values + 1) + spread * 66, 44 * -(-values // 8) + 1)


def _reduction_parts(gpu: Gpu, values: int, ray: bool) -> dict[str, str]:
    """How a workgroup adds up the gradients of its pixels: by subgroups where there are any and their sums fit."""
    parts = {"ray": _RAY_VALUES if ray else ""}
    subgroups = WORKGROUP // gpu.driver.subgroup_size if gpu.driver.subgroup_size else 0
    if 0 < values * subgroups <= _CELLS:
        mini = min(_MOST_MINI, _CELLS // (values * subgroups))
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
  let last = min(u32(offsets(rank + 1u)), P.entries) * P.subs;
  let start = min(u32(offsets(rank)) * P.subs + P.skip, last);
  for (var e = start; e < min(start + P.part, last); e++) { sum += slots(e * P.values + k); }
  if (k < 2u) { v_means2d[2u * g + k] = sum; }
  else if (k < 2u + P.conic) { v_conics[P.conic * g + k - 2u] = sum; }
  else if (k == 2u + P.conic) { v_opacities[g] = sum; }
  else if (k == 3u + P.conic) { v_depths[g] = sum; }
  else if (k < 6u + P.conic) { v_abs[2u * g + k - 4u - P.conic] = sum; }
  else { v_colors[P.channels * g + k - 6u - P.conic] = sum; }"""


def rasterize_backward(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of splat_rasterize's floats, of the background only if something uses it."""
    means2d, conics, colors, ids = x[0], x[1], x[2], x[7]
    transmittance, last_ids, v_rgba, v_depth = x[10:14]
    count, channels, conic = means2d.shape[0], colors.shape[1], conics.shape[1]
    lists = lists_of(gpu, ids, count)
    values, subs = 6 + conic + channels, (-(-attrs["tile_size"] // _SIDE)) ** 2
    slots = gpu.memory.allocate((ids.size * subs, values), DType.F32)
    fill(gpu, slots, 0.0)
    params = _raster_params(attrs, count)
    in_parts = tile_parts(gpu, x[6], ids.size, _backward_rounds(channels, values))
    parts = _reduction_parts(gpu, values, attrs["projection"] == "ray") | {"resume": "", "leave": ""}
    writes = {"slots": slots}
    if len(in_parts) > 1:
        parts |= {"resume": _RESUME_BACKWARD, "leave": _LEAVE_BACKWARD}
        writes["states"] = gpu.memory.allocate((attrs["height"], attrs["width"], 2), DType.F32)
    code = f"const VALUES: u32 = {values}u;\n" + _raster_code(attrs, channels, "rasterize_backward", **parts)
    reads = dict(zip((*_PREPARED, "background", "tile_ranges", "sorted_ids"), x[:8], strict=True))
    reads |= {
        "transmittance": transmittance, "last_ids": last_ids, "v_rgba": v_rgba, "v_depth": v_depth,
        "emission": lists.emission,
    }  # fmt: skip
    for skip, length in reversed(in_parts if ids.size else []):
        part = {**params, "skip": skip, "part": length}
        gpu.run(Kernel("rasterize_backward", code), reads, writes, int(params["groups"]), part)
    shapes = {
        "v_means2d": (count, 2), "v_conics": conics.shape, "v_colors": colors.shape, "v_opacities": (count,),
        "v_depths": (count,), "v_abs": (count, 2),
    }  # fmt: skip
    made = {name: gpu.memory.allocate(shape, DType.F32) for name, shape in shapes.items()}
    numbers: dict[str, int | float] = {
        "values": values, "conic": conic, "channels": channels, "subs": subs, "entries": ids.size
    }  # fmt: skip
    reads = {"slots": slots, "order": lists.order, "offsets": lists.offsets}
    columns, rows = (-(-attrs[n] // attrs["tile_size"]) for n in ("width", "height"))
    most = min(ids.size, columns * rows) if "lists" in ids.derived else ids.size  # entries of a Gaussian
    for skip, length in parts_of(gpu, most * subs, 1):
        body = _ADD_UP.replace("= sum;", "+= sum;") if skip else _ADD_UP
        part = {**numbers, "skip": skip, "part": length}
        gpu.each(Kernel("add_up_entries", body), reads, made, count * values, part)
    v_background = gpu.memory.allocate((channels,), DType.F32)
    if used[5]:
        seen = gpu.memory.allocate((transmittance.size, channels), DType.F32)
        body = (
            "  let p = i / P.channels;\n  out[i] = v_rgba(p * (P.channels + 1u) + i % P.channels) * transmittance(p);"
        )
        reads = {"v_rgba": v_rgba, "transmittance": transmittance}
        gpu.each(Kernel("visible_background", body), reads, {"out": seen}, seen.size, {"channels": channels})
        reduce(gpu, "sum", seen, (0,), v_background)
    ordered = [made[n] for n in ("v_means2d", "v_conics", "v_colors", "v_opacities", "v_depths")]
    return [*ordered, v_background, made["v_abs"]]
