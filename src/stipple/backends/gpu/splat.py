"""The splat ops on the GPU: project, sort, bin, rasterize, and their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from string import Template
from typing import NamedTuple

from stipple import numerics as nx
from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import WORKGROUP, Gpu, shader_text
from stipple.backends.gpu.harmonics import harmonics
from stipple.backends.gpu.reduction import reduce
from stipple.backends.gpu.sorting import exclusive_sum, sort_pairs
from stipple.backends.gpu.structure import fill
from stipple.backends.host.camera_check import check_camera, check_finite
from stipple.errors import InputError, LimitWarning
from stipple.ir.attributes import AttrValue
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import CONIC_LENGTH, PASS_THROUGH

Attrs = Mapping[str, AttrValue]
_OPERANDS = ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "clip")
_PREPARED = ("means2d", "conics", "colors", "opacities", "depths")
_BATCH = 128
_SIDE = 16
_CELLS = 2048
_MOST_MINI = 16
_DEPTH_BITS = 32


def _constants(attrs: Attrs, channels: int, coefficients: int = 0) -> str:
    """What the kernels know when they are compiled."""
    ray, degree = attrs["projection"] == "ray", attrs.get("sh_degree", PASS_THROUGH)
    numbers = {
        "RAY": (str(ray).lower(), "bool"),
        "ANTIALIASED": (str(bool(attrs.get("antialiased", False))).lower(), "bool"),
        "CONIC": (f"{CONIC_LENGTH[attrs['projection']]}u", "u32"),
        "CHANNELS": (f"{channels}u", "u32"),
        "DEGREE": (str(degree), "i32"),
        "BASIS": (f"{nx.sh_coeff_count(max(degree, 0))}u", "u32"),
        "EXTENT": (f"{0.5 * nx.EXTENT_SIGMA**2}", "f32"),
        "MAX_ALPHA": (f"{nx.MAX_ALPHA}", "f32"),
        "MAX_RADIUS": (f"{float(nx.MAX_RADIUS)}", "f32"),
        "MIN_COMPENSATION": (f"{nx.MIN_COMPENSATION}", "f32"),
        "JACOBIAN_MARGIN": (f"{nx.JACOBIAN_MARGIN}", "f32"),
        "SH_OFFSET": (f"{nx.SH_OFFSET}", "f32"),
    }
    return "".join(f"const {name}: {kind} = {value};\n" for name, (value, kind) in numbers.items())


def _groups(count: int) -> int:
    return -(-count // WORKGROUP)


def _check_camera(viewmat: GpuBuffer, intrinsics: GpuBuffer, clip: GpuBuffer) -> None:
    """A camera that the host knows is checked as on other devices."""
    if viewmat.host is not None and intrinsics.host is not None and clip.host is not None:
        check_camera(viewmat.host, intrinsics.host, clip.host)


# --- prepare ----------------------------------------------------------------------------------------------
def prepare(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, exact: bool = False) -> list[GpuBuffer]:
    """Results of splat_prepare. Unless ``exact``, there may be room in ``sorted_ids`` behind the last entry, and the
    run must ask :func:`entries_fit` before it uses anything."""
    operands = dict(zip(_OPERANDS, x, strict=False))
    _check_camera(x[5], x[6], x[7])
    count, channels = x[0].shape[0], x[4].shape[-1]
    conic = CONIC_LENGTH[attrs["projection"]]
    shapes = {
        "means2d": ((count, 2), DType.F32), "conics": ((count, conic), DType.F32),
        "seen_colors": ((count, channels), DType.F32), "seen_opacities": ((count,), DType.F32),
        "depths": ((count,), DType.F32), "radii": ((count, 2), DType.I32), "keys": ((count,), DType.I32),
        "ids": ((count,), DType.I32),
    }  # fmt: skip
    made = {name: gpu.allocate(*kind) for name, kind in shapes.items()}
    code = _constants(attrs, channels) + harmonics(attrs["sh_degree"]) + shader_text("camera") + shader_text("project")
    params: dict[str, int | float] = {
        "count": count, "width": attrs["width"], "height": attrs["height"],
        "coefficients": x[4].shape[1] if len(x[4].shape) == 3 else 1,
        "eps2d": float(attrs["eps2d"]), "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip
    gpu.run("project", code, _distinct(gpu, operands), made, params, _groups(count))
    _, order = sort_pairs(gpu, made["keys"], made["ids"], _DEPTH_BITS)
    ranges, sorted_ids = _bin(gpu, made, order, attrs, exact)
    return [made[n] for n in ("means2d", "conics", "seen_colors", "seen_opacities", "depths", "radii")] + [
        ranges,
        sorted_ids,
    ]


def _distinct(gpu: Gpu, reads: Mapping[str, GpuBuffer]) -> dict[str, GpuBuffer]:
    """Operands by name; one that stands twice is copied, as a buffer is bound once."""
    found: dict[str, GpuBuffer] = {}
    seen: set[int] = set()
    for name, buffer in reads.items():
        held = buffer
        if id(buffer.raw) in seen:
            held = gpu.allocate(buffer.shape, buffer.dtype)
            gpu.each("twin", "  out[i] = source[i];", {"source": buffer}, {"out": held}, buffer.size)
        seen.add(id(held.raw))
        found[name] = held
    return found


class _Lists(NamedTuple):
    """How a Gaussian finds its entries: those of rank r (Gaussian ``order[r]``) stand at ``offsets[r]`` to
    ``offsets[r + 1]`` in the order in which they were made; ``emission`` says where a sorted entry stood."""

    order: GpuBuffer
    offsets: GpuBuffer
    emission: GpuBuffer


def _bin(
    gpu: Gpu, made: Mapping[str, GpuBuffer], order: GpuBuffer, attrs: Attrs, exact: bool
) -> tuple[GpuBuffer, GpuBuffer]:
    """tile_ranges and sorted_ids: entries are counted, made in depth order, and sorted by tile, stably."""
    size, count = attrs["tile_size"], order.size
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    tiles = columns * rows
    params: dict[str, int | float] = {
        "count": count, "tile": size, "columns": columns, "rows": rows, "height": attrs["height"],
        "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip
    reads = {n: made[n] for n in ("means2d", "conics", "radii")} | {"opacities": made["seen_opacities"], "order": order}
    text = Template(shader_text("tiles"))
    constants = _constants(attrs, made["seen_colors"].shape[1])
    counts = gpu.allocate((count,), DType.I32)
    code = constants + text.substitute(begin="", visit="", end="  counts[rank] = i32(n);")
    gpu.run("count_tiles", code, reads, {"counts": counts}, params, _groups(count))
    offsets = exclusive_sum(gpu, counts)
    total = _room(gpu, offsets, (attrs["width"], attrs["height"], size, count), exact, attrs["max_list_entries"])
    keys, gaussians, emission = (gpu.allocate((total,), DType.I32) for _ in range(3))
    visit = """        let at = first_entry + n;
        if (at < P.total) { keys[at] = row_ * columns + column; gaussians[at] = i32(i); emission[at] = i32(at); }"""
    code = constants + text.substitute(begin="  let first_entry = u32(offsets[rank]);", visit=visit, end="")
    writes = {"keys": keys, "gaussians": gaussians, "emission": emission}
    # room that no entry takes lies in a tile behind the last
    rest = "  keys[i] = i32(P.tiles); gaussians[i] = 0; emission[i] = i32(i);"
    gpu.each("no_entries", rest, {}, writes, total, {"tiles": tiles})
    if total:
        gpu.run("make_entries", code, {**reads, "offsets": offsets}, writes, {**params, "total": total}, _groups(count))
    keys, emission = sort_pairs(gpu, keys, emission, tiles.bit_length())
    sorted_ids = gpu.allocate((total,), DType.I32)
    body = "  out[i] = gaussians[u32(emission[i])];"
    gpu.each("entry_ids", body, {"gaussians": gaussians, "emission": emission}, {"out": sorted_ids}, total)
    ranges = gpu.allocate((tiles, 2), DType.I32)
    gpu.each("tile_ranges", _RANGES, {"keys": keys}, {"out": ranges}, tiles, {"total": total}, _LOWER_BOUND)
    sorted_ids.notes["lists"] = _Lists(order, offsets, emission)
    return ranges, sorted_ids


_LOWER_BOUND = """
fn lower_bound(wanted: i32) -> i32 {
  var low = 0u; var high = P.total;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (keys[middle] < wanted) { low = middle + 1u; } else { high = middle; }
  }
  return i32(low);
}
"""
_RANGES = "  out[2u * i] = lower_bound(i32(i)); out[2u * i + 1u] = lower_bound(i32(i) + 1);"


def _room(gpu: Gpu, offsets: GpuBuffer, key: Hashable, exact: bool, limit: int) -> int:
    """For how many entries to make room: as many as there are, or a guess that is checked later."""
    guess = gpu.guesses.size(key)
    summary = _summary(gpu, offsets)
    if guess is not None and not exact and not limit:
        gpu.guesses.pending.append((key, guess, summary))
        return guess
    total = _checked_total(gpu, summary)
    gpu.guesses.learn(key, total)
    if limit and total > limit:
        warnings.warn(
            f"splat_prepare: max_list_entries = {limit} cut {total - limit} of {total} tile entries, the farthest ones",
            LimitWarning,
            stacklevel=2,
        )
        return limit
    return total


def _summary(gpu: Gpu, offsets: GpuBuffer) -> GpuBuffer:
    """The number of entries, and whether the sums went beyond what can be numbered."""
    summary = gpu.allocate((2,), DType.I32)
    fill(gpu, summary, 0)
    body = """  if (offsets[i + 1u] < offsets[i]) { out[1] = 1; }
  if (i + 1u == P.count) { out[0] = offsets[i + 1u]; }"""
    gpu.each("total", body, {"offsets": offsets}, {"out": summary}, offsets.size - 1)
    return summary


def _checked_total(gpu: Gpu, summary: GpuBuffer) -> int:
    total, wrapped = (int(v) for v in gpu.download(summary))
    if wrapped or total < 0:
        raise InputError(
            "splat_prepare: more tile entries than can be numbered; the Gaussians are too large for this image: use a "
            "smaller image, larger tiles, or max_list_entries"
        )
    return total


def entries_fit(gpu: Gpu) -> bool:
    """Whether there was room for all entries of every list since the last call."""
    pending, gpu.guesses.pending = gpu.guesses.pending, []
    fitting = True
    for key, room, summary in pending:
        total = _checked_total(gpu, summary)
        gpu.guesses.learn(key, total)
        fitting = fitting and total <= room
    return fitting


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
    if (r < 3u && c < 3u) { value = sums[3u * r + c] - viewmat[4u * r + 3u] * sums[16u + c]; }
    if (r < 3u && c == 3u) {
      value = sums[9u + r];
      for (var k = 0u; k < 3u; k++) { value -= viewmat[4u * r + k] * sums[16u + k]; }
    }
    v_viewmat[i] = value;
  } else {
    let k = i - 16u;
    var value = 0.0;
    if (k == 0u) { value = sums[12]; }
    if (k == 4u) { value = sums[13]; }
    if (k == 2u) { value = sums[14]; }
    if (k == 5u) { value = sums[15]; }
    v_intrinsics[k] = value;
  }"""


def prepare_backward(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of splat_prepare's first seven operands; those of the camera only if something uses them."""
    operands = dict(zip(_OPERANDS[:7], x[:7], strict=True))
    names = ("radii", "v_means2d", "v_conics", "v_shown", "v_seen", "v_depths")
    count, channels = x[0].shape[0], x[4].shape[-1]
    with_camera = used[5] or used[6]
    made = {f"v_{n}": gpu.allocate(operands[n].shape, DType.F32) for n in _OPERANDS[:5]}
    reads = {**operands, **dict(zip(names, x[8:14], strict=True))}
    writes = dict(made)
    if with_camera:
        writes["v_camera"] = gpu.allocate((count, 19), DType.F32)
    code = Template(shader_text("project_backward")).substitute(camera=_CAMERA_ROW if with_camera else "")
    code = _constants(attrs, channels) + harmonics(attrs["sh_degree"]) + shader_text("camera") + code
    if attrs["sh_degree"] == PASS_THROUGH:
        code += "\nfn unused() -> f32 { return colors[0]; }\n"
    params: dict[str, int | float] = {
        "count": count, "width": attrs["width"], "height": attrs["height"],
        "coefficients": x[4].shape[1] if len(x[4].shape) == 3 else 1, "eps2d": float(attrs["eps2d"]),
    }  # fmt: skip
    gpu.run("project_backward", code, _distinct(gpu, reads), writes, params, _groups(count))
    v_viewmat, v_intrinsics = gpu.allocate((4, 4), DType.F32), gpu.allocate((3, 3), DType.F32)
    if with_camera:
        sums = gpu.allocate((19,), DType.F32)
        reduce(gpu, "sum", writes["v_camera"], (0,), sums)
        outputs = {"v_viewmat": v_viewmat, "v_intrinsics": v_intrinsics}
        gpu.each("camera_gradient", _ASSEMBLE, {"sums": sums, "viewmat": x[5]}, outputs, 25)
    return [*made.values(), v_viewmat, v_intrinsics]


# --- rasterize --------------------------------------------------------------------------------------------
def _raster_code(attrs: Attrs, channels: int, name: str, **parts: str) -> str:
    side = -(-attrs["tile_size"] // _SIDE)
    ray_batch = _BATCH if attrs["projection"] == "ray" else 1
    constants = _constants(attrs, channels)
    constants += f"const BATCH: u32 = {_BATCH}u;\nconst RAY_BATCH: u32 = {ray_batch}u;\nconst SUB: u32 = {side}u;\n"
    return constants + shader_text("footprint") + Template(shader_text(name)).substitute(**parts)


def _raster_params(attrs: Attrs, gaussians: int) -> dict[str, int | float]:
    size = attrs["tile_size"]
    columns, rows = -(-attrs["width"] // size), -(-attrs["height"] // size)
    return {
        "groups": columns * rows * (-(-size // _SIDE)) ** 2, "gaussians": gaussians, "width": attrs["width"],
        "height": attrs["height"], "tile": size, "columns": columns, "alpha_cutoff": float(attrs["alpha_cutoff"]),
    }  # fmt: skip


def _check_prepared(means2d: GpuBuffer, ranges: GpuBuffer, ids: GpuBuffer) -> None:
    """Indices that the host knows are checked; the kernels hold all others inside."""
    if ids.host is not None and ids.size and not (ids.host.min() >= 0 and ids.host.max() < means2d.shape[0]):
        raise InputError(f"splat_rasterize: sorted_ids must lie in 0 to {means2d.shape[0] - 1}")
    if ranges.host is not None:
        start, end = ranges.host[:, 0], ranges.host[:, 1]
        if not ((start >= 0) & (start <= end) & (end <= ids.size)).all():
            raise InputError(f"splat_rasterize: tile_ranges must lie in 0 to {ids.size}, ascending")


def rasterize(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs) -> list[GpuBuffer]:
    """Results of splat_rasterize."""
    means2d, background, ranges, ids = x[0], x[5], x[6], x[7]
    if background.host is not None:
        check_finite("splat_rasterize: background", background.host)
    _check_prepared(means2d, ranges, ids)
    height, width, channels = attrs["height"], attrs["width"], x[2].shape[1]
    made = {
        "rgba": gpu.allocate((height, width, channels + 1), DType.F32),
        "depth": gpu.allocate((height, width), DType.F32),
        "transmittance": gpu.allocate((height, width), DType.F32),
        "last_ids": gpu.allocate((height, width), DType.I32),
    }
    most = attrs["max_splat_steps"]
    writes = dict(made)
    if most:
        writes["cuts"] = gpu.allocate((height, width), DType.F32)
    cut = "  cuts[at] = select(0.0, 1.0, over);" if most else ""
    params = _raster_params(attrs, means2d.shape[0])
    params |= {"threshold": float(attrs["transmittance_threshold"]), "most_steps": most}
    reads = dict(zip((*_PREPARED, "background", "tile_ranges", "sorted_ids"), x[:8], strict=True))
    code = _raster_code(attrs, channels, "rasterize", cut=cut)
    gpu.run("rasterize", code, _distinct(gpu, reads), writes, params, int(params["groups"]))
    if most:
        total = gpu.allocate((), DType.F32)
        reduce(gpu, "sum", writes["cuts"], (0, 1), total)
        if number := int(gpu.download(total)):
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
_SLOT = "slots[(u32(emission[entry]) * SUB * SUB + place.sub) * VALUES + $value] = sum;"
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


def _reduction_parts(gpu: Gpu, values: int, ray: bool) -> dict[str, str]:
    """How a workgroup adds up the gradients of its pixels: by subgroups where the device has them."""
    parts = {"ray": _RAY_VALUES if ray else ""}
    if gpu.subgroup_size:
        subgroups = WORKGROUP // gpu.subgroup_size
        mini = max(1, min(_MOST_MINI, _CELLS // (values * subgroups)))
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
  let g = u32(order[rank]);
  var sum = 0.0;
  let last = min(u32(offsets[rank + 1u]), P.entries) * P.subs;
  for (var e = u32(offsets[rank]) * P.subs; e < last; e++) { sum += slots[e * P.values + k]; }
  if (k < 2u) { v_means2d[2u * g + k] = sum; }
  else if (k < 2u + P.conic) { v_conics[P.conic * g + k - 2u] = sum; }
  else if (k == 2u + P.conic) { v_opacities[g] = sum; }
  else if (k == 3u + P.conic) { v_depths[g] = sum; }
  else if (k < 6u + P.conic) { v_abs[2u * g + k - 4u - P.conic] = sum; }
  else { v_colors[P.channels * g + k - 6u - P.conic] = sum; }"""


def rasterize_backward(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of splat_rasterize's floats, of the background only if something uses it."""
    means2d, conics, colors, ranges, ids = x[0], x[1], x[2], x[6], x[7]
    transmittance, last_ids, v_rgba, v_depth = x[10:14]
    _check_prepared(means2d, ranges, ids)
    count, channels, conic = means2d.shape[0], colors.shape[1], conics.shape[1]
    lists = ids.notes.get("lists") or _lists_of(gpu, ids, count)
    values, subs = 6 + conic + channels, (-(-attrs["tile_size"] // _SIDE)) ** 2
    slots = gpu.allocate((ids.size * subs, values), DType.F32)
    fill(gpu, slots, 0.0)
    params = _raster_params(attrs, count)
    parts = _reduction_parts(gpu, values, attrs["projection"] == "ray")
    code = f"const VALUES: u32 = {values}u;\n" + _raster_code(attrs, channels, "rasterize_backward", **parts)
    reads = dict(zip((*_PREPARED, "background", "tile_ranges", "sorted_ids"), x[:8], strict=True))
    reads |= {
        "transmittance": transmittance, "last_ids": last_ids, "v_rgba": v_rgba, "v_depth": v_depth,
        "emission": lists.emission,
    }  # fmt: skip
    if ids.size:
        gpu.run("rasterize_backward", code, _distinct(gpu, reads), {"slots": slots}, params, int(params["groups"]))
    made = {
        "v_means2d": gpu.allocate(means2d.shape, DType.F32), "v_conics": gpu.allocate(conics.shape, DType.F32),
        "v_colors": gpu.allocate(colors.shape, DType.F32), "v_opacities": gpu.allocate((count,), DType.F32),
        "v_depths": gpu.allocate((count,), DType.F32), "v_abs": gpu.allocate((count, 2), DType.F32),
    }  # fmt: skip
    numbers: dict[str, int | float] = {
        "values": values, "conic": conic, "channels": channels, "subs": subs, "entries": ids.size
    }  # fmt: skip
    reads = {"slots": slots, "order": lists.order, "offsets": lists.offsets}
    gpu.each("add_up_entries", _ADD_UP, reads, made, count * values, numbers)
    v_background = gpu.allocate((channels,), DType.F32)
    if used[5]:
        seen = gpu.allocate((transmittance.size, channels), DType.F32)
        body = (
            "  let p = i / P.channels;\n  out[i] = v_rgba[p * (P.channels + 1u) + i % P.channels] * transmittance[p];"
        )
        reads = {"v_rgba": v_rgba, "transmittance": transmittance}
        gpu.each("background_seen", body, reads, {"out": seen}, seen.size, {"channels": channels})
        reduce(gpu, "sum", seen, (0,), v_background)
    ordered = [made[n] for n in ("v_means2d", "v_conics", "v_colors", "v_opacities", "v_depths")]
    return [*ordered, v_background, made["v_abs"]]


def _lists_of(gpu: Gpu, ids: GpuBuffer, count: int) -> _Lists:
    """The same for lists that this device did not make: sorted by Gaussian, stably."""
    total = ids.size
    keys, places, order = (gpu.allocate((n,), DType.I32) for n in (total, total, count))
    body = "  keys[i] = clamp(source[i], 0, i32(P.gaussians) - 1); places[i] = i32(i);"
    gpu.each("own_entries", body, {"source": ids}, {"keys": keys, "places": places}, total, {"gaussians": count})
    keys, places = sort_pairs(gpu, keys, places, max(1, (max(count, 2) - 1).bit_length()))
    emission, offsets = gpu.allocate((total,), DType.I32), gpu.allocate((count + 1,), DType.I32)
    gpu.each("invert", "  out[u32(places[i])] = i32(i);", {"places": places}, {"out": emission}, total)
    gpu.each("own_ranges", "  out[i] = lower_bound(i32(i));", {"keys": keys}, {"out": offsets}, count + 1,
             {"total": total}, _LOWER_BOUND)  # fmt: skip
    gpu.each("identity", "  out[i] = i32(i);", {}, {"out": order}, count)
    return _Lists(order, offsets, emission)


# --- both -------------------------------------------------------------------------------------------------
def render(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs) -> list[GpuBuffer]:
    """rgba and depth of splat_render."""
    made = prepare(gpu, x[:8], attrs)
    return rasterize(gpu, [*made[:5], x[8], *made[6:]], attrs)[:2]


def render_backward(gpu: Gpu, x: Sequence[GpuBuffer], attrs: Attrs, used: Sequence[bool]) -> list[GpuBuffer]:
    """Gradients of splat_render's operands, and of the 2D means."""
    made = prepare(gpu, x[:8], attrs)
    operands = [*made[:5], x[8], *made[6:]]
    images = rasterize(gpu, operands, attrs)
    needs = [True] * 5 + [used[7], True]
    v = rasterize_backward(gpu, [*operands, *images, x[9], x[10]], attrs, needs)
    back = prepare_backward(gpu, [*x[:8], made[5], *v[:5]], attrs, used)
    return [*back, v[5], v[0], v[6]]
