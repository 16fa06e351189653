// Gradients of SH coefficients and means, one Gaussian per thread; zeros where a colour is not finite.

fn clear(i: u32) {
  for (var k = 0u; k < 3u; k++) { v_means[3u * i + k] = 0.0; }
  for (var k = 0u; k < P.coefficients * CHANNELS; k++) { v_sh[i * P.coefficients * CHANNELS + k] = 0.0; }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
  if (radii(2u * i) <= 0) { clear(i); return; }
  let offset = offset_of(i);
  let inverse = 1.0 / length(offset);
  let direction = offset * inverse;
  let values = basis(direction);
  var colors = array<f32, COLORS>();
  var good = true;
  for (var c = 0u; c < CHANNELS; c++) {
    colors[c] = unclamped(i, c, values);
    good = good && is_finite(colors[c]);
  }
  if (!good) { clear(i); return; }
  var weights = array<f32, BASIS>();
  for (var c = 0u; c < CHANNELS; c++) {
    let v = select(0.0, v_colors(i * CHANNELS + c), colors[c] > 0.0);
    for (var k = 0u; k < BASIS; k++) {
      let at = (i * P.coefficients + k) * CHANNELS + c;
      v_sh[at] = values[k] * v;
      weights[k] += sh(at) * v;
    }
    for (var k = BASIS; k < P.coefficients; k++) { v_sh[(i * P.coefficients + k) * CHANNELS + c] = 0.0; }
  }
  let g = basis_gradient(direction, weights);
  let v_mean = (g - direction * dot(g, direction)) * inverse;
  for (var k = 0u; k < 3u; k++) { v_means[3u * i + k] = v_mean[k]; }
}
