"""Prefix sums and a stable radix sort of 32-bit keys: integers only, so the order is exact.

The sort processes four bits per pass. A workgroup counts the digits of 1024 items, an exclusive sum over all counts (by
digit, then by workgroup) yields where each begins, and every item moves to its place.
"""

from __future__ import annotations

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel, shader_text
from stipple.ir.dtype import DType

_BLOCK = 1024
_DIGIT_BITS = 4
_RADIX = 1 << _DIGIT_BITS

_SCAN = """
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  let first = group * BLOCK + lid * ITEMS;
  var own = array<i32, 4>();
  var sum = 0u;
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < P.count) { own[k] = values(first + k); }
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

_COUNT = """
var<workgroup> digits: array<atomic<u32>, 16>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  let count = sorted_count();
  if (lid < 16u) { atomicStore(&digits[lid], 0u); }
  workgroupBarrier();
  for (var k = 0u; k < ITEMS; k++) {
    let at = group * BLOCK + k * 256u + lid;
    if (at < count) { atomicAdd(&digits[(u32(keys(at)) >> P.shift) & 15u], 1u); }
  }
  workgroupBarrier();
  if (lid < 16u && group < P.groups) { counts[lid * P.groups + group] = i32(atomicLoad(&digits[lid])); }
}
"""

_MOVE = """
// how often a digit occurs in a thread's items, then how often in those of the threads before it; digit d and d + 8
// share a word, at (d % 8, thread)
var<workgroup> counters: array<u32, 2048>;
fn occurrences(digit: u32, thread: u32) -> u32 {
  return (counters[(digit & 7u) * 256u + thread] >> (digit / 8u * 16u)) & 0xffffu;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  let count = sorted_count();
  if (group * BLOCK >= count) { return; }
  let first = group * BLOCK + lid * ITEMS;
  for (var d = 0u; d < 8u; d++) { counters[d * 256u + lid] = 0u; }
  var own = array<u32, 4>();
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < count) {
      own[k] = (u32(keys(first + k)) >> P.shift) & 15u;
      counters[(own[k] & 7u) * 256u + lid] += 1u << (own[k] / 8u * 16u);
    }
  }
  workgroupBarrier();
  // an exclusive sum over all words: 8 neighbours per thread
  var sum = 0u;
  for (var k = 0u; k < 8u; k++) { sum += counters[lid * 8u + k]; }
  var at = exclusive(lid, sum).x;
  for (var k = 0u; k < 8u; k++) {
    let held = counters[lid * 8u + k];
    counters[lid * 8u + k] = at;
    at += held;
  }
  workgroupBarrier();
  for (var k = 0u; k < ITEMS; k++) {
    if (first + k < count) {
      let digit = own[k];
      var rank = occurrences(digit, lid) - occurrences(digit, 0u);
      for (var j = 0u; j < k; j++) { rank += u32(own[j] == digit); }
      let place = u32(starts(digit * P.groups + group)) + rank;
      out_keys[place] = keys(first + k);
      out_values[place] = values(first + k);
    }
  }
}
"""


_PAD = Kernel("pad_one", "  if (i + 1u < P.count) { out[i] = values(i); } else { out[i] = 0; }")
_ADD_STARTS = Kernel("scan_add", "  out[i] += starts(i / 1024u);")


def exclusive_sum(gpu: Gpu, values: GpuBuffer) -> GpuBuffer:
    """Sums [n + 1] of all elements before each, the last of all; i32."""
    count = values.size
    whole = gpu.memory.allocate((count + 1,), DType.I32)
    padded = gpu.memory.allocate((count + 1,), DType.I32)
    gpu.each(_PAD, {"values": values}, {"out": padded}, count + 1)
    _scan(gpu, padded, whole)
    return whole


def _scan(gpu: Gpu, values: GpuBuffer, out: GpuBuffer) -> None:
    groups = -(-values.size // _BLOCK)
    totals = gpu.memory.allocate((groups,), DType.I32)
    kernel = Kernel("scan", _SCAN, shader_text("sort"))
    params = {"count": values.size, "groups": groups}
    gpu.run(kernel, {"values": values}, {"out": out, "totals": totals}, groups, params)
    if groups > 1:
        starts = gpu.memory.allocate((groups,), DType.I32)
        _scan(gpu, totals, starts)
        gpu.each(_ADD_STARTS, {"starts": starts}, {"out": out}, values.size)


LOWER_BOUND = """
// the index of the first of `count` ascending keys that is not less than `key`
fn lower_bound(key: i32, count: u32) -> i32 {
  var low = 0u; var high = count;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (keys(middle) < key) { low = middle + 1u; } else { high = middle; }
  }
  return i32(low);
}
"""
_ALL = "fn sorted_count() -> u32 { return P.count; }\n"
_SOME = "fn sorted_count() -> u32 { return min(u32(sums(P.last)), P.count); }\n"


def sort_pairs(
    gpu: Gpu, keys: GpuBuffer, values: GpuBuffer, bits: int, sums: GpuBuffer | None = None
) -> tuple[GpuBuffer, GpuBuffer]:
    """Keys ascending by their lowest ``bits`` (as unsigned), and their values; equal keys keep their order.

    With ``sums``, only the first pairs are sorted, as many as its last element, which the host need not know. The
    arguments' buffers are used as scratch; after an even number of passes they hold the result, and pairs that are not
    sorted stay in place.
    """
    count = keys.size
    groups = -(-count // _BLOCK)
    if not count:
        return keys, values
    allocate = gpu.memory.allocate
    other_keys, other_values = allocate(keys.shape, DType.I32), allocate(values.shape, DType.I32)
    counts, starts = allocate((_RADIX * groups,), DType.I32), allocate((_RADIX * groups,), DType.I32)
    common = (_ALL if sums is None else _SOME) + shader_text("sort")
    count_digits, move = Kernel("radix_count", _COUNT, common), Kernel("radix_move", _MOVE, common)
    known = {} if sums is None else {"sums": sums}
    for shift in range(0, bits, _DIGIT_BITS):
        params = {"count": count, "groups": groups, "shift": shift, "last": 0 if sums is None else sums.size - 1}
        gpu.run(count_digits, {"keys": keys, **known}, {"counts": counts}, groups, params)
        _scan(gpu, counts, starts)
        reads = {"keys": keys, "values": values, "starts": starts, **known}
        writes = {"out_keys": other_keys, "out_values": other_values}
        gpu.run(move, reads, writes, groups, params)
        keys, values, other_keys, other_values = other_keys, other_values, keys, values
    return keys, values
