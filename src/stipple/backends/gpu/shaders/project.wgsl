// Footprints, one Gaussian per thread; zeros for those that are culled.

// whether a camera-space point is between the clip planes and within the lens's range
fn covers(p: vec3<f32>) -> bool {
  if (!(p.z >= clip(0u) && p.z <= clip(1u))) { return false; }
  let s = p.xy / p.z;
  return !(FISHEYE || RATIONAL) || dot(s, s) <= P.max_slope_squared;
}

fn clear(i: u32) {
  means2d[2u * i] = 0.0; means2d[2u * i + 1u] = 0.0;
  for (var k = 0u; k < CONIC; k++) { conics[CONIC * i + k] = 0.0; }
  depths[i] = 0.0; compensation[i] = 0.0;
  radii[2u * i] = 0; radii[2u * i + 1u] = 0;
}

// how far from the mean a x^2 + 2b xy + c y^2 + 2p x + 2r y <= k reaches; beyond the image if it is not an ellipse
fn extents(a: f32, b: f32, c: f32, p: f32, r: f32, k: f32, uv: vec2<f32>, size: vec2<f32>) -> vec2<f32> {
  let det = a * c - b * b;
  if (!(a > 0.0 && det > 0.0)) { return abs(uv) + size + 1.0; }
  let x = (b * r - c * p) / det; let y = (b * p - a * r) / det;
  let top = max(k - (p * x + r * y), 0.0) / det;
  return vec2<f32>(abs(x) + sqrt(c * top), abs(y) + sqrt(a * top));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
  clear(i);
  let cam = load_camera();
  let mean = mean_of(i); let scale = scale_of(i); let raw = quat_of(i); let opacity = opacities(i);
  if (!(finite3(mean) && finite3(scale) && finite(opacity) && finite(raw.x + raw.y + raw.z + raw.w))) { return; }
  let p = cam.rotation * mean + cam.translation;
  if (!(covers(p) && opacity > 0.0)) { return; }
  let largest = largest_of(raw);
  if (!(largest > 0.0)) { return; }
  let axes = axes_of(normalize(raw / largest));
  let uv = pixel_of(cam, p);
  var conic = array<f32, 8>();
  var factor = 1.0;
  if (RAY) {
    if (!(min(scale.x, min(scale.y, scale.z)) > 0.0)) { return; }
    conic = ray_conic(rays_of(cam, axes, scale, p));
  } else {
    let e = ewa_of(cam, jacobian_of(cam, p), axes, scale);
    if (!(finite(e.det) && e.det > 0.0)) { return; }
    let abc = ewa_conic(e);
    conic[0] = abc.xx; conic[1] = abc.xy; conic[2] = abc.yy;
    factor = ewa_compensation(e);
  }
  var reach = EXTENT;
  if (P.alpha_cutoff > 0.0) { reach = min(reach, log(opacity * factor / P.alpha_cutoff)); }
  var total = uv.x + uv.y + p.z + opacity * factor;
  for (var k = 0u; k < 8u; k++) { total += conic[k]; }
  if (!(finite(total) && reach >= 0.0)) { return; }
  let size = vec2<f32>(f32(P.width), f32(P.height));
  let k2 = 2.0 * reach;
  var r = extents(conic[0] - k2 * conic[5], conic[1] - k2 * conic[6], conic[2] - k2 * conic[7], -k2 * conic[3],
    -k2 * conic[4], k2, uv, size);
  r = min(ceil(r), vec2<f32>(MAX_RADIUS));
  if (!(r.x > 0.0 && r.y > 0.0)) { return; }
  if (uv.x + r.x <= 0.0 || uv.x - r.x >= size.x || uv.y + r.y <= 0.0 || uv.y - r.y >= size.y) { return; }
  means2d[2u * i] = uv.x; means2d[2u * i + 1u] = uv.y;
  for (var k = 0u; k < CONIC; k++) { conics[CONIC * i + k] = conic[k]; }
  depths[i] = p.z; compensation[i] = factor;
  radii[2u * i] = i32(r.x); radii[2u * i + 1u] = i32(r.y);
}
