// Gradients of the projection, one Gaussian per thread; those of the camera as one row of numbers each, if they are
// used.

fn store_camera(i: u32) {
$store_camera
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
  if (radii(2u * i) <= 0) {
    for (var k = 0u; k < 3u; k++) { v_means[3u * i + k] = 0.0; v_scales[3u * i + k] = 0.0; }
    for (var k = 0u; k < 4u; k++) { v_quats[4u * i + k] = 0.0; }
    store_camera(i);
    return;
  }
  let cam = load_camera();
  let mean = mean_of(i); let scale = scale_of(i); let raw = quat_of(i);
  let p = cam.rotation * mean + cam.translation;
  let largest = largest_of(raw);
  let scaled = raw / largest;
  let inverse = 1.0 / length(scaled);
  let q = scaled * inverse;
  let axes = axes_of(q);
  var back: PosedGradient;
  if (RAY) {
    var v_conic = array<f32, 8>();
    for (var k = 0u; k < 8u; k++) { v_conic[k] = v_conics(8u * i + k); }
    back = ray_backward(cam, p, axes, scale, v_conic);
  } else {
    let v_conic = Symmetric(v_conics(3u * i), v_conics(3u * i + 1u), v_conics(3u * i + 2u));
    back = ewa_backward(cam, p, axes, scale, v_conic, v_compensation(i));
  }
  var v_p = back.p + pixel_backward(cam, p, vec2<f32>(v_means2d(2u * i), v_means2d(2u * i + 1u)));
  v_p.z += v_depths(i);
  v_row0 += v_p.x * mean; v_row1 += v_p.y * mean; v_row2 += v_p.z * mean;
  v_translation = v_p;
  let v_mean = v_p * cam.rotation;
  let v_q = axes_backward(q, back.axes);
  let v_raw = (v_q - q * dot(q, v_q)) * (inverse / largest);
  for (var k = 0u; k < 4u; k++) { v_quats[4u * i + k] = v_raw[k]; }
  for (var k = 0u; k < 3u; k++) { v_scales[3u * i + k] = back.scale[k]; v_means[3u * i + k] = v_mean[k]; }
  store_camera(i);
}
