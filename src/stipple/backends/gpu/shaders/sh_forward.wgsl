// Colours of visible Gaussians, one Gaussian per thread. NaN and infinity are kept.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
  if (radii(2u * i) <= 0) {
    for (var c = 0u; c < CHANNELS; c++) { colors[i * CHANNELS + c] = 0.0; }
    return;
  }
  let values = basis(normalize(offset_of(i)));
  for (var c = 0u; c < CHANNELS; c++) { colors[i * CHANNELS + c] = rectified(unclamped(i, c, values)); }
}
