// Footprints and colours, one Gaussian a thread. The formulas are the reference backend's.

fn clear(i: u32) {
  means2d[2u * i] = 0.0; means2d[2u * i + 1u] = 0.0;
  for (var k = 0u; k < CONIC; k++) { conics[CONIC * i + k] = 0.0; }
  for (var k = 0u; k < CHANNELS; k++) { seen_colors[CHANNELS * i + k] = 0.0; }
  seen_opacities[i] = 0.0; depths[i] = 0.0;
  radii[2u * i] = 0; radii[2u * i + 1u] = 0;
  seen[i] = 0;
}

// how far from the mean a x^2 + 2b xy + c y^2 + 2p x + 2r y <= k reaches
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
  let mean = mean_of(i); let scale = scale_of(i); let raw = quat_of(i);
  var opacity = opacities(i);
  if (!(finite3(mean) && finite3(scale) && finite(opacity) && finite(raw.x + raw.y + raw.z + raw.w))) { return; }
  let p = cam.rotation * mean + cam.translation;
  if (!(p.z >= clip(0u) && p.z <= clip(1u) && opacity > 0.0)) { return; }
  let largest = largest_of(raw);
  if (!(largest > 0.0)) { return; }
  let axes = axes_of(normalize(raw / largest));
  let uv = cam.focal * p.xy / p.z + cam.center;
  let size = vec2<f32>(f32(P.width), f32(P.height));
  var conic = array<f32, 8>();
  if (RAY) {
    if (!(min(scale.x, min(scale.y, scale.z)) > 0.0)) { return; }
    let r = rays_of(cam, axes, scale, p);
    let s = p.z * p.z / dot(r.o, r.o);
    let t = -s / p.z;
    conic = array<f32, 8>(s * dot(r.nx, r.nx), s * dot(r.nx, r.ny), s * dot(r.ny, r.ny), t * dot(r.o, r.cx),
      t * dot(r.o, r.cy), s * dot(r.cx, r.cx), s * dot(r.cx, r.cy), s * dot(r.cy, r.cy));
  } else {
    let slope = clamp(p.xy / p.z, cam.low, cam.high);
    let j = cam.focal / p.z;
    let u = j.x * (row(cam.rotation, 0u) - slope.x * row(cam.rotation, 2u));
    let w = j.y * (row(cam.rotation, 1u) - slope.y * row(cam.rotation, 2u));
    let a = (u * axes) * scale;
    let b = (w * axes) * scale;
    let xx = dot(a, a); let xy = dot(a, b); let yy = dot(b, b);
    let bx = xx + P.eps2d; let by = yy + P.eps2d;
    let sharp = area_squared(a, b);
    let det = sharp + P.eps2d * (xx + yy + P.eps2d);
    if (!(finite(det) && det > 0.0)) { return; }
    if (ANTIALIASED) { opacity *= sqrt(max(sharp / det, MIN_COMPENSATION)); }
    conic[0] = by / det; conic[1] = -xy / det; conic[2] = bx / det;
  }
  var reach = EXTENT;
  if (P.alpha_cutoff > 0.0) { reach = min(reach, log(opacity / P.alpha_cutoff)); }
  var total = uv.x + uv.y + p.z + opacity;
  for (var k = 0u; k < 8u; k++) { total += conic[k]; }
  if (!(finite(total) && reach >= 0.0)) { return; }
  let k2 = 2.0 * reach;
  var r = extents(conic[0] - k2 * conic[5], conic[1] - k2 * conic[6], conic[2] - k2 * conic[7], -k2 * conic[3],
    -k2 * conic[4], k2, uv, size);
  r = min(ceil(r), vec2<f32>(MAX_RADIUS));
  if (!(r.x > 0.0 && r.y > 0.0)) { return; }
  if (uv.x + r.x <= 0.0 || uv.x - r.x >= size.x || uv.y + r.y <= 0.0 || uv.y - r.y >= size.y) { return; }

  var color = array<f32, COLOR>();
  var good = true;
  if (DEGREE >= 0) {
    let values = basis(normalize(mean - position(cam)));
    for (var c = 0u; c < CHANNELS; c++) {
      var sum = SH_OFFSET;
      for (var k = 0u; k < BASIS; k++) { sum += values[k] * colors((i * P.coefficients + k) * CHANNELS + c); }
      good = good && finite(sum);
      color[c] = max(sum, 0.0);
    }
  } else {
    for (var c = 0u; c < CHANNELS; c++) {
      color[c] = colors(i * CHANNELS + c);
      good = good && finite(color[c]);
    }
  }
  if (!good) { return; }
  means2d[2u * i] = uv.x; means2d[2u * i + 1u] = uv.y;
  for (var k = 0u; k < CONIC; k++) { conics[CONIC * i + k] = conic[k]; }
  for (var c = 0u; c < CHANNELS; c++) { seen_colors[CHANNELS * i + c] = color[c]; }
  seen_opacities[i] = opacity; depths[i] = p.z;
  radii[2u * i] = i32(r.x); radii[2u * i + 1u] = i32(r.y);
  seen[i] = 1;
}
