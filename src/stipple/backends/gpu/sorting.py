"""Sums over prefixes and a stable radix sort of 32-bit keys: integers only, so the order is exact.

The sort takes four bits a pass. A workgroup counts the digits of 1024 items, an exclusive sum over all counts (digits
in order, and within one the workgroups in order) says where each begins, and every item moves to its place.
"""

from __future__ import annotations

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu, shader_text
from stipple.ir.dtype import DType

_BLOCK = 1024
_RADIX = 16

_SCAN = """
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  let first = group * BLOCK + lid * ITEMS;
  var own = array<i32, 4>();
  var sum = 0u;
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < P.count) { own[k] = values[first + k]; }
    sum += u32(own[k]);
  }
  let placed = exclusive(lid, sum);
  var at = placed.x;
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < P.count) { out[first + k] = i32(at); }
    at += u32(own[k]);
  }
  if (lid == 0u && group < P.groups) { totals[group] = i32(placed.y); }
}
"""

_DIGITS = """
var<workgroup> counters: array<u32, 4096>;
// how often each digit occurs in this thread's items, by digit and thread
fn count_digits(first: u32, lid: u32, count: u32, shift: u32) -> array<u32, 4> {
  for (var d = 0u; d < 16u; d++) { counters[d * 256u + lid] = 0u; }
  var own = array<u32, 4>();
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < count) {
      own[k] = (u32(keys[first + k]) >> shift) & 15u;
      counters[own[k] * 256u + lid] += 1u;
    }
  }
  return own;
}
"""

_COUNT = """
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  let own = count_digits(group * BLOCK + lid * ITEMS, lid, P.count, P.shift);
  workgroupBarrier();
  if (lid < 16u && group < P.groups) {
    var sum = 0u;
    for (var t = 0u; t < 256u; t++) { sum += counters[lid * 256u + t]; }
    counts[lid * P.groups + group] = i32(sum);
  }
}
"""

_MOVE = """
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  let first = group * BLOCK + lid * ITEMS;
  let own = count_digits(first, lid, P.count, P.shift);
  workgroupBarrier();
  // an exclusive sum over (digit, thread): a thread takes 16 neighbours
  var sum = 0u;
  for (var k = 0u; k < 16u; k++) { sum += counters[lid * 16u + k]; }
  var at = exclusive(lid, sum).x;
  for (var k = 0u; k < 16u; k++) {
    let held = counters[lid * 16u + k];
    counters[lid * 16u + k] = at;
    at += held;
  }
  workgroupBarrier();
  if (group >= P.groups) { return; }
  var seen = array<u32, 16>();
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < P.count) {
      let digit = own[k];
      let rank = counters[digit * 256u + lid] + seen[digit] - counters[digit * 256u];
      seen[digit] += 1u;
      let place = u32(starts[digit * P.groups + group]) + rank;
      out_keys[place] = keys[first + k];
      out_values[place] = values[first + k];
    }
  }
}
"""


def exclusive_sum(gpu: Gpu, values: GpuBuffer) -> GpuBuffer:
    """Sums [n + 1] of all elements before each, the last of all; i32."""
    count = values.size
    whole = gpu.allocate((count + 1,), DType.I32)
    padded = gpu.allocate((count + 1,), DType.I32)
    body = "  if (i + 1u < P.count) { out[i] = values[i]; } else { out[i] = 0; }"
    gpu.each("pad_one", body, {"values": values}, {"out": padded}, count + 1)
    _scan(gpu, padded, whole)
    return whole


def _scan(gpu: Gpu, values: GpuBuffer, out: GpuBuffer) -> None:
    groups = -(-values.size // _BLOCK)
    totals = gpu.allocate((groups,), DType.I32)
    code = shader_text("sort") + _SCAN
    gpu.run(
        "scan",
        code,
        {"values": values},
        {"out": out, "totals": totals},
        {"count": values.size, "groups": groups},
        groups,
    )
    if groups > 1:
        starts = gpu.allocate((groups,), DType.I32)
        _scan(gpu, totals, starts)
        gpu.each("scan_add", "  out[i] += starts[i / 1024u];", {"starts": starts}, {"out": out}, values.size)


def sort_pairs(gpu: Gpu, keys: GpuBuffer, values: GpuBuffer, bits: int) -> tuple[GpuBuffer, GpuBuffer]:
    """Keys ascending by their lowest ``bits`` (as unsigned), and their values; equal keys keep their order.

    The buffers that are given are used as scratch.
    """
    count = keys.size
    groups = -(-count // _BLOCK)
    if not count:
        return keys, values
    other_keys, other_values = gpu.allocate(keys.shape, DType.I32), gpu.allocate(values.shape, DType.I32)
    counts, starts = gpu.allocate((_RADIX * groups,), DType.I32), gpu.allocate((_RADIX * groups,), DType.I32)
    common = shader_text("sort") + _DIGITS
    for shift in range(0, bits, 4):
        params = {"count": count, "groups": groups, "shift": shift}
        gpu.run("radix_count", common + _COUNT, {"keys": keys}, {"counts": counts}, params, groups)
        _scan(gpu, counts, starts)
        reads = {"keys": keys, "values": values, "starts": starts}
        writes = {"out_keys": other_keys, "out_values": other_values}
        gpu.run("radix_move", common + _MOVE, reads, writes, params, groups)
        keys, values, other_keys, other_values = other_keys, other_values, keys, values
    return keys, values
