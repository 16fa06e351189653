"""The gradients of compositing on the GPU: splat_rasterize_backward.

By Gaussian, not by pixel: a thread owns an entry of a tile's list and sums its gradients over pixels, so that sums over
threads are few (Mallick et al., Taming 3DGS, SIGGRAPH Asia 2024). There pixels start from states that the forward has
kept every 32 entries. Here they move through the whole list, from thread to thread in rings, so that nothing is kept
and nothing is computed twice. A ring is a subgroup, or 32 threads that hand pixels on in workgroup memory.

Each entry has its own row, which its workgroups write, and a mark that it was: entries behind the last contributor of
all pixels have none. Then the rows of each Gaussian are summed in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Template
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.composite import composite_code, composite_params, squares_of
from stipple.backends.gpu.constants import Attrs, declared
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.driver import WORKGROUP
from stipple.backends.gpu.kernels import Kernel
from stipple.backends.gpu.lists import Lists
from stipple.backends.gpu.loops import parts_of, tile_parts
from stipple.backends.gpu.reduction import reduce
from stipple.ir.dtype import DType
from stipple.ir.ops.splat import RasterizeBackwardOperands, RasterizeBackwardResults

_MAX_HELD = 6
"""Features of which the first pass sums gradients: those of a square's pixels fit in workgroup memory."""
_MAX_MORE = 16
"""Features of each further pass: so many sums fit in a thread's registers."""
_MAX_ROUND = 6
"""Sums of each thread that are added over the rings at a time, as far as 16 KiB of workgroup memory allow."""
_RING = 32
"""Threads of a ring without subgroups."""
_WIDEST_SUBGROUP = 128
"""WGSL's limit."""


class _Pass(NamedTuple):
    """What a dispatch sums: features ``first`` to ``first + features``, and the first one the footprints' gradients,
    ``geometric`` numbers; it writes them to the columns from ``column`` on."""

    first: int
    features: int
    geometric: int
    column: int

    @property
    def values(self) -> int:
        return self.geometric + self.features

    @property
    def held(self) -> int:
        """Features that are kept in workgroup memory and registers."""
        return self.features if self.geometric else 0


def _passes(features: int, geometric: int) -> Iterator[_Pass]:
    yield _Pass(0, min(features, _MAX_HELD), geometric, 0)
    for first in range(_MAX_HELD, features, _MAX_MORE):
        yield _Pass(first, min(features - first, _MAX_MORE), 0, geometric + first)


_BUILTINS = """,
        @builtin(subgroup_id) ring: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) width: u32"""
_MOVE_IN_SUBGROUP = """
      t = subgroupShuffle(t, (lane + width - 1u) % width);
      behind = subgroupShuffle(behind, (lane + width - 1u) % width);"""
_PLAIN_MEMORY = "var<workgroup> s_pixel: array<vec2<f32>, 256>;\n"
_PLAIN_RING = f"  let width = {_RING}u; let ring = lid / width; let lane = lid % width;\n"
_MOVE_IN_MEMORY = """
      s_pixel[n] = vec2<f32>(t, behind);
      workgroupBarrier();
      let arriving = s_pixel[ring * width + (step + 1u + width - lane) % width];
      t = arriving.x;
      behind = arriving.y;"""
_GEOMETRY = """
          var toward = 0.0;
          for (var f = 0u; f < HELD; f++) { toward += s_gradient[f * 256u + n] * own.features[f]; }
          if (FEATURES > HELD) {
            for (var f = HELD; f < FEATURES; f++) {
              toward += v_image(pixel * FEATURES + f) * features(FEATURES * own.at.id + f);
            }
          }
          let conic = own.at.conic;
          let v_alpha_ = select(0.0, before * toward - behind / rest, conic.w * s.falloff < MAX_ALPHA);
          behind += weight * toward;
          let v_power = -v_alpha_ * conic.w * s.falloff / s.ratio;
          let dx = s.d.x; let dy = s.d.y;
          var v_dx = v_power * (conic.x * dx + conic.y * dy);
          var v_dy = v_power * (conic.y * dx + conic.z * dy);
          v[2] += 0.5 * v_power * dx * dx; v[3] += v_power * dx * dy; v[4] += 0.5 * v_power * dy * dy;
$ray
          v[0] -= v_dx; v[1] -= v_dy;
          v[2u + CONIC] += v_alpha_ * s.falloff;
$magnitudes"""
_RAY = """
          let v_ratio = -s.sigma * v_power;
          let r = own.at.ray;
          v[5] += 2.0 * v_ratio * dx; v[6] += 2.0 * v_ratio * dy; v[7] += v_ratio * dx * dx;
          v[8] += 2.0 * v_ratio * dx * dy; v[9] += v_ratio * dy * dy;
          v_dx += 2.0 * v_ratio * (r.x + r.z * dx + r.w * dy);
          v_dy += 2.0 * v_ratio * (r.y + r.w * dx + own.at.last * dy);"""
_MAGNITUDES = """
          v[3u + CONIC] += abs(v_dx); v[4u + CONIC] += abs(v_dy);"""
_RESUME = """
    if (end < front + count && last_ids(at) >= end) {  // the entries behind were processed before
      t = states[2u * at]; behind = states[2u * at + 1u];
    }"""
_LEAVE = """
  if (place.inside) { states[2u * at] = t; states[2u * at + 1u] = behind; }"""


def _rounds(features: int, work: _Pass, width: int) -> int:
    """Maximum loop iterations per entry in rings of ``width``: for each pixel one, and those over features; and a share
    of those for each group of entries that begins: itself, its loading, and the sums over the rings."""
    step = 1 + (work.features + 1) + (features + 2 if work.geometric else 0)
    added = (width * _MAX_ROUND // WORKGROUP + 2) * (WORKGROUP // width + 1)
    sums = -(-work.values // _MAX_ROUND) * (1 + (_MAX_ROUND + 1) + added)
    group = 1 + (features + 1) + 4 * (4 + 1) + 2 * (work.held + 1) + 3 * (work.values + 1) + sums
    return step - -group // width


_ADD_UP = """
  let rank = i / P.values; let k = i % P.values;
  let g = u32(order(rank));
  var sum = 0.0;
  let last = min(u32(offsets(rank + 1u)), P.entries) * P.squares;
  let start = min(u32(offsets(rank)) * P.squares + P.skip, last);
  for (var e = start; e < min(start + P.part, last); e++) {
    if (rows(e) != 0.0) { sum += rows(P.rows + e * P.values + k); }
  }
  if (k < 2u) { v_means2d[2u * g + k] $put sum; }
  else if (k < 2u + P.conic) { v_conics[P.conic * g + k - 2u] $put sum; }
  else if (k == 2u + P.conic) { v_opacities[g] $put sum; }
$magnitudes  else { v_features[P.features * g + k + P.features - P.values] $put sum; }"""
_ADD_MAGNITUDES = "  else if (k < 5u + P.conic) { v_means2d_abs[2u * g + k - 3u - P.conic] $put sum; }\n"
_CLEAR_MARKS = Kernel("clear_marks", "  rows[i] = 0.0;")
_BACKGROUND = Kernel("background_gradient", "  out[i] = v_image(i) * transmittance(i / P.features);")


def rasterize_backward(
    gpu: Gpu, x: RasterizeBackwardOperands, attrs: Attrs, used: RasterizeBackwardResults, lists: Lists
) -> RasterizeBackwardResults:
    """Gradients of splat_rasterize; those of the background and the magnitudes only if they are used."""
    like = (x.means2d, x.conics, x.opacities, x.features, x.background, x.means2d)
    results = RasterizeBackwardResults(*(gpu.memory.allocate(b.shape, DType.F32) for b in like))
    rows = _rows(gpu, x, attrs, bool(used.v_means2d_abs), lists.emission)
    _add_up(gpu, rows, lists, squares_of(attrs), results, bool(used.v_means2d_abs))
    if used.v_background:
        pixels, features = x.transmittance.size, x.features.shape[1]
        parts = gpu.memory.allocate((pixels, features), DType.F32)
        reads = {"v_image": x.v_image, "transmittance": x.transmittance}
        gpu.each(_BACKGROUND, reads, {"out": parts}, parts.size, {"features": features})
        reduce(gpu, "sum", parts, (0,), results.v_background)
    return results


def _rows(gpu: Gpu, x: RasterizeBackwardOperands, attrs: Attrs, magnitudes: bool, emission: GpuBuffer) -> GpuBuffer:
    """Which rows were written [entries * workgroups of a tile], then the rows, in the order in which the entries were
    listed by Gaussian: gradients of mean, conic, opacity, magnitudes of the mean's if they are used, features."""
    entries, features = x.sorted_ids.size, x.features.shape[1]
    geometric = 3 + x.conics.shape[1] + 2 * magnitudes
    count = entries * squares_of(attrs)
    rows = gpu.memory.allocate((count * (1 + geometric + features),), DType.F32)
    gpu.each(_CLEAR_MARKS, {}, {"rows": rows}, count)
    params = composite_params(attrs, x.means2d.shape[0])
    params |= {"rows": count, "values": geometric + features}
    passes = list(_passes(features, geometric))
    rounds = max(_rounds(features, work, gpu.driver.subgroup_size or _RING) for work in passes)
    in_parts = tile_parts(gpu, x.tile_ranges, entries, rounds, 2 * _RING)
    writes = {"rows": rows}
    if len(in_parts) > 1:
        writes["states"] = gpu.memory.allocate((attrs["height"], attrs["width"], 2), DType.F32)
    reads = {**x._asdict(), "emission": emission}
    del reads["image"]
    for work in passes if entries else []:
        texts = _texts(gpu, attrs, work, magnitudes, len(in_parts) > 1)
        kernel = Kernel("composite_backward", composite_code(attrs, features, "composite_backward", **texts))
        for skip, length in reversed(in_parts):
            part = {**params, "skip": skip, "part": length}
            gpu.run(kernel, reads, writes, int(params["groups"]), part)
    return rows


def _texts(gpu: Gpu, attrs: Attrs, work: _Pass, magnitudes: bool, in_parts: bool) -> dict[str, str]:
    """What varies in the kernel."""
    subgroups, ray = gpu.driver.subgroup_size > 0, attrs["projection"] == "ray"
    size = -(-work.values // -(-work.values // _MAX_ROUND))  # of a round, all of them about equal
    kept = (11 if ray else 6) + work.held
    cells = max(size * (WORKGROUP + 1), kept * (_WIDEST_SUBGROUP if subgroups else _RING))
    capacity = max(work.held, 1)  # of arrays, which have at least one element
    constants = declared(
        FIRST=work.first, SUMMED=work.features, HELD=work.held, GEOMETRIC=work.geometric, COLUMN=work.column,
        VALUES=work.values, ROUND=size, CELLS=cells, CAPACITY=capacity, GRADIENTS=WORKGROUP * capacity,
    )  # fmt: skip
    geometry = Template(_GEOMETRY).substitute(ray=_RAY if ray else "", magnitudes=_MAGNITUDES if magnitudes else "")
    texts = {
        "constants": constants, "geometry": geometry if work.geometric else "", "resume": _RESUME if in_parts else "",
        "leave": _LEAVE if in_parts else "",
    }  # fmt: skip
    if subgroups:
        return texts | {"memory": "", "builtins": _BUILTINS, "ring": "", "move": _MOVE_IN_SUBGROUP}
    return texts | {"memory": _PLAIN_MEMORY, "builtins": "", "ring": _PLAIN_RING, "move": _MOVE_IN_MEMORY}


def _add_up(
    gpu: Gpu, rows: GpuBuffer, lists: Lists, squares: int, results: RasterizeBackwardResults, magnitudes: bool
) -> None:
    """Each Gaussian's sums, one number per thread."""
    conic, features = results.v_conics.shape[1], results.v_features.shape[1]
    values = 3 + conic + 2 * magnitudes + features
    without = {"v_background"} if magnitudes else {"v_background", "v_means2d_abs"}
    writes = {name: array for name, array in results._asdict().items() if name not in without}
    params: dict[str, int | float] = {
        "values": values, "conic": conic, "features": features, "squares": squares, "entries": lists.emission.size,
        "rows": lists.emission.size * squares,
    }  # fmt: skip
    reads = {"rows": rows, "order": lists.order, "offsets": lists.offsets}
    code = Template(_ADD_UP).safe_substitute(magnitudes=_ADD_MAGNITUDES if magnitudes else "")
    for skip, length in parts_of(gpu, lists.max_entries * squares, 1):
        kernel = Kernel("add_up_entries", Template(code).substitute(put="+=" if skip else "="))
        gpu.each(kernel, reads, writes, results.v_opacities.size * values, {**params, "skip": skip, "part": length})
