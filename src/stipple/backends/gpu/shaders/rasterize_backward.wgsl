// Back to front through each tile. For every entry the workgroup adds up the gradients of its 256 pixels, always in the
// same order, and writes them to the entry's own row of slots: no atomics.

var<workgroup> top: atomic<i32>;
var<workgroup> highest: i32;

fn values_of(slot: u32, seen: Seen, takes: bool, v_alpha_: f32, weight: f32, v_color: array<f32, COLOR>, v_z: f32)
    -> array<f32, VALUES> {
  var v = array<f32, VALUES>();
  if (!takes) { return v; }
  let conic = s_conic[slot];
  let free = conic.w * seen.falloff < MAX_ALPHA;
  let v_alpha = select(0.0, v_alpha_, free);
  let v_power = -v_alpha * conic.w * seen.falloff / seen.ratio;
  let dx = seen.d.x; let dy = seen.d.y;
  var v_dx = v_power * (conic.x * dx + conic.y * dy);
  var v_dy = v_power * (conic.y * dx + conic.z * dy);
  v[2] = 0.5 * v_power * dx * dx; v[3] = v_power * dx * dy; v[4] = 0.5 * v_power * dy * dy;
$ray
  v[0] = -v_dx; v[1] = -v_dy;
  v[2u + CONIC] = v_alpha * seen.falloff;
  v[3u + CONIC] = weight * v_z;
  v[4u + CONIC] = abs(v_dx); v[5u + CONIC] = abs(v_dy);
  for (var c = 0u; c < CHANNELS; c++) { v[6u + CONIC + c] = weight * v_color[c]; }
  return v;
}

$reduction

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32$builtins) {
  let group = group_index(wid, nwg);
  if (group >= P.groups) { return; }
  let place = place_of(group, lid);
  let pixel = vec2<f32>(f32(place.x), f32(place.y)) + 0.5;
  let tile = group / (SUB * SUB);
  let front = tile_ranges(2u * tile); let count = tile_ranges(2u * tile + 1u) - front;
  let start = front + min(i32(P.skip), count); let end = front + min(i32(P.skip + P.part), count);
  if (start >= end) { return; }
  var last = -1; var t = 0.0; var behind = 0.0; var v_z = 0.0;
  var v_color = array<f32, COLOR>();
  if (place.inside) {
    let at = place.y * P.width + place.x;
    last = min(last_ids(at), end - 1);
    t = transmittance(at);
    v_z = v_depth(at);
    behind = -v_rgba(at * (CHANNELS + 1u) + CHANNELS);
    for (var c = 0u; c < CHANNELS; c++) {
      v_color[c] = v_rgba(at * (CHANNELS + 1u) + c);
      behind += v_color[c] * background(c);
    }
    behind *= t;
$resume
  }
  if (lid == 0u) { atomicStore(&top, -1); }
  workgroupBarrier();
  atomicMax(&top, last);
  workgroupBarrier();
  if (lid == 0u) { highest = atomicLoad(&top); }
  var until = workgroupUniformLoad(&highest) + 1;
  while (until > start) {
    let base = max(start, until - i32(BATCH));
    for (var slot = i32(lid); slot < until - base; slot += 256) { load_entry(u32(slot), u32(base + slot)); }
    workgroupBarrier();
    for (var first = until - 1; first >= base; first -= i32(MINI)) {
      for (var m = 0u; m < MINI; m++) {
        let entry = first - i32(m);
        let slot = u32(max(entry - base, 0));
        let seen = evaluate(slot, pixel);
        let takes = entry >= base && entry <= last && seen.counts;
        var v_alpha = 0.0; var weight = 0.0;
        if (takes) {
          let i = s_id[slot];
          let rest = 1.0 - seen.alpha;
          let before = t / rest;
          weight = seen.alpha * before;
          var own = v_z * depths(i);
          for (var c = 0u; c < CHANNELS; c++) { own += v_color[c] * colors(CHANNELS * i + c); }
          v_alpha = before * own - behind / rest;
          behind += weight * own;
          t = before;
        }
        var v = values_of(slot, seen, takes, v_alpha, weight, v_color, v_z);
$gather
      }
$spread
    }
    until = base;
    workgroupBarrier();
  }
$leave
}
