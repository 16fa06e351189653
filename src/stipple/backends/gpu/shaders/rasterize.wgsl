// Compositing, front to back: a workgroup takes 16 x 16 pixels, its Gaussians in batches, and leaves when all are done.

var<workgroup> live: atomic<u32>;
var<workgroup> any_live: u32;

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
  var t = 1.0; var done = !place.inside; var last = -1; var steps = 0u; var z = 0.0; var over = false;
  var color = array<f32, COLOR>();
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
      let seen = evaluate(k, pixel);
      if (!seen.counts) { continue; }
      let after = t * (1.0 - seen.alpha);
      if (after <= P.threshold) { done = true; continue; }
      if (P.most_steps > 0u && steps >= P.most_steps) { done = true; over = true; continue; }
      let weight = seen.alpha * t;
      let i = s_id[k];
      for (var c = 0u; c < CHANNELS; c++) { color[c] += weight * colors(CHANNELS * i + c); }
      z += weight * depths(i);
      t = after;
      steps += 1u;
      last = i32(base + k);
    }
  }
  if (!place.inside) { return; }
  let at = place.y * P.width + place.x;
  for (var c = 0u; c < CHANNELS; c++) { rgba[at * (CHANNELS + 1u) + c] = color[c] + $behind; }
  rgba[at * (CHANNELS + 1u) + CHANNELS] = 1.0 - t;
  depth[at] = z;
  transmittance[at] = t;
  last_ids[at] = last;
$cut$leave
}
