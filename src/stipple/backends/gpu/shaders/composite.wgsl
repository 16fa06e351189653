// Compositing, front to back: a workgroup processes 16 x 16 pixels, its Gaussians in batches, and ends when all pixels
// are done.

var<workgroup> live: atomic<u32>;
var<workgroup> any_live: u32;
var<workgroup> s_mean: array<vec2<f32>, BATCH>;
var<workgroup> s_conic: array<vec4<f32>, BATCH>;
var<workgroup> s_ray: array<vec4<f32>, RAY_BATCH>;
var<workgroup> s_last: array<f32, RAY_BATCH>;
var<workgroup> s_id: array<u32, BATCH>;
var<workgroup> s_features: array<f32, KEPT>;

fn load_entry(slot: u32, entry: u32) {
  let g = footprint_of(entry);
  s_mean[slot] = g.mean;
  s_conic[slot] = g.conic;
  s_id[slot] = g.id;
  if (KEEPS) {
    for (var f = 0u; f < FEATURES; f++) { s_features[f * BATCH + slot] = features(FEATURES * g.id + f); }
  }
  if (RAY) { s_ray[slot] = g.ray; s_last[slot] = g.last; }
}

fn feature(slot: u32, f: u32) -> f32 {
  if (KEEPS) { return s_features[f * BATCH + slot]; }
  return features(FEATURES * s_id[slot] + f);
}

fn loaded(slot: u32) -> Footprint {
  var g: Footprint;
  g.mean = s_mean[slot];
  g.conic = s_conic[slot];
  g.id = s_id[slot];
  if (RAY) { g.ray = s_ray[slot]; g.last = s_last[slot]; }
  return g;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  if (group >= P.groups) { return; }
  let place = place_of(group, lid);
  let pixel = vec2<f32>(f32(place.x), f32(place.y)) + 0.5;
  let tile = group / (SUB * SUB);
  let front = u32(tile_ranges(2u * tile)); let count = u32(tile_ranges(2u * tile + 1u)) - front;
  let start = front + min(P.skip, count); let end = front + min(P.skip + P.part, count);
  let at = place.y * P.width + place.x;
  var t = 1.0; var done = !place.inside; var over = false;
  var last = -1; var median = -1; var steps = 0u;
  var sum = array<f32, SUMS>();
$resume
  if (lid == 0u) { atomicStore(&live, 0u); }
  workgroupBarrier();
  for (var base = start; base < end; base += BATCH) {
    if (!done) { atomicOr(&live, 1u); }
    workgroupBarrier();
    if (lid == 0u) { any_live = atomicLoad(&live); atomicStore(&live, 0u); }
    if (workgroupUniformLoad(&any_live) == 0u) { break; }
    for (var slot = lid; slot < BATCH && base + slot < end; slot += 256u) { load_entry(slot, base + slot); }
    workgroupBarrier();
    let held = min(BATCH, end - base);
    for (var k = 0u; k < held && !done; k++) {
      let g = loaded(k);
      let s = evaluate(g, pixel);
      if (!s.hits) { continue; }
      let after = t * (1.0 - s.alpha);
      if (after <= P.threshold) { done = true; continue; }
      if (P.max_steps > 0u && steps >= P.max_steps) { done = true; over = true; continue; }
      let weight = s.alpha * t;
      for (var f = 0u; f < FEATURES; f++) { sum[f] += weight * feature(k, f); }
      if (t > 0.5) { median = i32(g.id); }  // the last contributor while more than half of the light is left
      t = after;
      steps += 1u;
      last = i32(base + k);
    }
  }
  if (!place.inside) { return; }
  for (var f = 0u; f < FEATURES; f++) { image[at * FEATURES + f] = sum[f] + $behind; }
  transmittance[at] = t;
  last_ids[at] = last;
$leave
}
