// Back to front through each tile. For every entry the workgroup sums the gradients of its 256 pixels, always in the
// same order, and writes them to the entry's own row of slots: no atomics.

var<workgroup> top: atomic<i32>;
var<workgroup> highest: i32;

// what a pixel adds to the gradients of an entry's Gaussian: mean, conic, opacity, magnitudes of the mean's, features
fn values_of(slot: u32, s: Sample, takes: bool, v_alpha_: f32, weight: f32, v_pixel: array<f32, SUMS>)
    -> array<f32, VALUES> {
  var v = array<f32, VALUES>();
  if (!takes) { return v; }
  let conic = s_conic[slot];
  let free = conic.w * s.falloff < MAX_ALPHA;
  let v_alpha = select(0.0, v_alpha_, free);
  let v_power = -v_alpha * conic.w * s.falloff / s.ratio;
  let dx = s.d.x; let dy = s.d.y;
  var v_dx = v_power * (conic.x * dx + conic.y * dy);
  var v_dy = v_power * (conic.y * dx + conic.z * dy);
  v[2] = 0.5 * v_power * dx * dx; v[3] = v_power * dx * dy; v[4] = 0.5 * v_power * dy * dy;
$ray
  v[0] = -v_dx; v[1] = -v_dy;
  v[2u + CONIC] = v_alpha * s.falloff;
  v[3u + CONIC] = abs(v_dx); v[4u + CONIC] = abs(v_dy);
  for (var f = 0u; f < FEATURES; f++) { v[5u + CONIC + f] = weight * v_pixel[f]; }
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
  var last = -1; var t = 0.0; var behind = 0.0;
  var v_pixel = array<f32, SUMS>();
  if (place.inside) {
    let at = place.y * P.width + place.x;
    last = min(last_ids(at), end - 1);
    t = transmittance(at);
    behind = -v_alpha(at);
    for (var f = 0u; f < FEATURES; f++) {
      v_pixel[f] = v_image(at * FEATURES + f);
      behind += v_pixel[f] * background(f);
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
        let s = evaluate(slot, pixel);
        let takes = entry >= base && entry <= last && s.hits;
        var v_own = 0.0; var weight = 0.0;
        if (takes) {
          let i = s_id[slot];
          let rest = 1.0 - s.alpha;
          let before = t / rest;
          weight = s.alpha * before;
          var own = 0.0;
          for (var f = 0u; f < FEATURES; f++) { own += v_pixel[f] * features(FEATURES * i + f); }
          v_own = before * own - behind / rest;
          behind += weight * own;
          t = before;
        }
        var v = values_of(slot, s, takes, v_own, weight, v_pixel);
$gather
      }
$spread
    }
    until = base;
    workgroupBarrier();
  }
$leave
}
