// Gradients of the projection, one Gaussian a thread; those of the camera as one row of 19 numbers each.

struct Back { p: vec3<f32>, axes: mat3x3<f32>, scale: vec3<f32>, factor: f32 };
var<private> row0: vec3<f32>;
var<private> row1: vec3<f32>;
var<private> row2: vec3<f32>;
var<private> v_focal: vec2<f32>;
var<private> v_center: vec2<f32>;

fn ewa_back(i: u32, cam: Camera, p: vec3<f32>, axes: mat3x3<f32>, scale: vec3<f32>, v_comp: f32) -> Back {
  let raw = p.xy / p.z;
  let slope = clamp(raw, cam.low, cam.high);
  let j = cam.focal / p.z;
  let r2 = row(cam.rotation, 2u);
  let d = row(cam.rotation, 0u) - slope.x * r2;
  let e = row(cam.rotation, 1u) - slope.y * r2;
  let a = j.x * (d * axes); let b = j.y * (e * axes);
  let pp = a * scale; let q = b * scale;
  let xx = dot(pp, pp); let xy = dot(pp, q); let yy = dot(q, q);
  let bx = xx + P.eps2d; let by = yy + P.eps2d;
  let sharp = area_squared(pp, q);
  let inv = 1.0 / (sharp + P.eps2d * (xx + yy + P.eps2d));
  let ca = by * inv; let cb = -xy * inv; let cc = bx * inv;
  let ga = v_conics(3u * i); let gb = 0.5 * v_conics(3u * i + 1u); let gc = v_conics(3u * i + 2u);
  let t00 = ca * ga + cb * gb; let t01 = ca * gb + cb * gc;
  let t10 = cb * ga + cc * gb; let t11 = cb * gb + cc * gc;
  var vxx = -(t00 * ca + t01 * cb);
  var vxy = -(t00 * cb + t01 * cc);
  var vyy = -(t10 * cb + t11 * cc);
  var back: Back;
  back.factor = 1.0;
  if (ANTIALIASED) {
    let ratio = sharp * inv;
    back.factor = sqrt(max(ratio, MIN_COMPENSATION));
    if (ratio > MIN_COMPENSATION) {
      let v_ratio = v_comp / (2.0 * back.factor);
      vxx += v_ratio * (yy * inv - ratio * ca);
      vxy += v_ratio * (-xy * inv - ratio * cb);
      vyy += v_ratio * (xx * inv - ratio * cc);
    }
  }
  var gp = 2.0 * (vxx * pp + vxy * q);
  var gq = 2.0 * (vxy * pp + vyy * q);
  back.scale = gp * a + gq * b;
  gp *= scale; gq *= scale;
  let u = j.x * d; let w = j.y * e;
  // columns of the gradient in the axes
  back.axes = mat3x3<f32>(gp.x * u + gq.x * w, gp.y * u + gq.y * w, gp.z * u + gq.z * w);
  let h = axes * gp; let k = axes * gq;
  let v_jx = dot(h, d); let v_jy = dot(k, e);
  let v_slope = vec2<f32>(-j.x * dot(h, r2), -j.y * dot(k, r2));
  row0 += j.x * h;
  row1 += j.y * k;
  row2 -= j.x * slope.x * h + j.y * slope.y * k;
  v_focal += vec2<f32>(v_jx, v_jy) / p.z;
  back.p = vec3<f32>(0.0, 0.0, -(v_jx * j.x + v_jy * j.y) / p.z);
  if (raw.x == slope.x) {
    back.p.x = v_slope.x / p.z;
    back.p.z -= v_slope.x * raw.x / p.z;
  } else {
    v_focal.x -= v_slope.x * slope.x / cam.focal.x;
    v_center.x -= v_slope.x / cam.focal.x;
  }
  if (raw.y == slope.y) {
    back.p.y = v_slope.y / p.z;
    back.p.z -= v_slope.y * raw.y / p.z;
  } else {
    v_focal.y -= v_slope.y * slope.y / cam.focal.y;
    v_center.y -= v_slope.y / cam.focal.y;
  }
  return back;
}

fn ray_back(i: u32, cam: Camera, p: vec3<f32>, axes: mat3x3<f32>, scale: vec3<f32>) -> Back {
  let r = rays_of(cam, axes, scale, p);
  let d = -r.o / p.z;
  let s = p.z * p.z / dot(r.o, r.o);
  let g = 8u * i;
  let va = v_conics(g); let vb = v_conics(g + 1u); let vc = v_conics(g + 2u); let vp = v_conics(g + 3u);
  let vq = v_conics(g + 4u); let ve = v_conics(g + 5u); let vf = v_conics(g + 6u); let vg = v_conics(g + 7u);
  let v_norm = va * dot(r.nx, r.nx) + vb * dot(r.nx, r.ny) + vc * dot(r.ny, r.ny) + vp * dot(d, r.cx) + vq * dot(d, r.cy)
    + ve * dot(r.cx, r.cx) + vf * dot(r.cx, r.cy) + vg * dot(r.cy, r.cy);
  let v_nx = 2.0 * s * va * r.nx + s * vb * r.ny;
  let v_ny = s * vb * r.nx + 2.0 * s * vc * r.ny;
  let v_d = s * vp * r.cx + s * vq * r.cy - 2.0 * s * s * v_norm * d;
  let v_cx = s * vp * d + 2.0 * s * ve * r.cx + s * vf * r.cy + cross(v_nx, r.o);
  let v_cy = s * vq * d + s * vf * r.cx + 2.0 * s * vg * r.cy + cross(v_ny, r.o);
  let v_o = cross(r.cx, v_nx) + cross(r.cy, v_ny) - v_d / p.z;
  v_focal -= vec2<f32>(dot(r.cx, v_cx), dot(r.cy, v_cy)) / cam.focal;
  var back: Back;
  back.factor = 1.0;
  back.p = -(v_o * r.m);
  back.p.z += dot(r.o, v_d) / (p.z * p.z);
  let g0 = -p.x * v_o + v_cx / cam.focal.x;
  let g1 = -p.y * v_o + v_cy / cam.focal.y;
  let g2 = -p.z * v_o;
  let inv = 1.0 / scale;
  let b0 = row(axes, 0u) * inv; let b1 = row(axes, 1u) * inv; let b2 = row(axes, 2u) * inv;
  row0 += vec3<f32>(dot(g0, b0), dot(g0, b1), dot(g0, b2));
  row1 += vec3<f32>(dot(g1, b0), dot(g1, b1), dot(g1, b2));
  row2 += vec3<f32>(dot(g2, b0), dot(g2, b1), dot(g2, b2));
  let t = mat3x3<f32>(g0, g1, g2) * cam.rotation;   // columns: sum over j of R[j, c] g_j
  let x0 = t[0] * inv; let x1 = t[1] * inv; let x2 = t[2] * inv;  // rows of the gradient in the axes
  back.axes = transpose(mat3x3<f32>(x0, x1, x2));
  back.scale = -(b0 * t[0] + b1 * t[1] + b2 * t[2]) * inv;
  return back;
}

// gradient in a unit quaternion from that in its matrix
fn quat_back(q: vec4<f32>, v: mat3x3<f32>) -> vec4<f32> {
  let w = q.x; let x = q.y; let y = q.z; let z = q.w;
  let v01 = v[1][0]; let v02 = v[2][0]; let v10 = v[0][1]; let v12 = v[2][1]; let v20 = v[0][2]; let v21 = v[1][2];
  let v00 = v[0][0]; let v11 = v[1][1]; let v22 = v[2][2];
  return 2.0 * vec4<f32>(
    x * (v21 - v12) + y * (v02 - v20) + z * (v10 - v01),
    -2.0 * x * (v11 + v22) + y * (v01 + v10) + z * (v02 + v20) + w * (v21 - v12),
    x * (v01 + v10) - 2.0 * y * (v00 + v22) + z * (v12 + v21) + w * (v02 - v20),
    x * (v02 + v20) + y * (v12 + v21) - 2.0 * z * (v00 + v11) + w * (v10 - v01));
}

fn store_camera(i: u32, v_position: vec3<f32>, v_translation: vec3<f32>) {
$camera
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let i = group_index(wid, nwg) * 256u + lid;
  if (i >= P.count) { return; }
  if (radii(2u * i) <= 0) {
    for (var k = 0u; k < 3u; k++) { v_means[3u * i + k] = 0.0; v_scales[3u * i + k] = 0.0; }
    for (var k = 0u; k < 4u; k++) { v_quats[4u * i + k] = 0.0; }
    v_opacities[i] = 0.0;
    for (var k = 0u; k < P.coefficients * CHANNELS; k++) { v_colors[i * P.coefficients * CHANNELS + k] = 0.0; }
    store_camera(i, vec3<f32>(0.0), vec3<f32>(0.0));
    return;
  }
  let cam = load_camera();
  let mean = mean_of(i); let scale = scale_of(i); let raw = quat_of(i);
  let p = cam.rotation * mean + cam.translation;
  let largest = largest_of(raw);
  let scaled = raw / largest;
  let turn = 1.0 / length(scaled);
  let q = scaled * turn;
  let axes = axes_of(q);
  var back: Back;
  if (RAY) { back = ray_back(i, cam, p, axes, scale); }
  else { back = ewa_back(i, cam, p, axes, scale, v_seen(i) * opacities(i)); }
  v_opacities[i] = v_seen(i) * back.factor;
  let v_uv = vec2<f32>(v_means2d(2u * i), v_means2d(2u * i + 1u));
  let direct = cam.focal / p.z * v_uv;
  var v_p = back.p + vec3<f32>(direct, v_depths(i) - dot(direct, p.xy) / p.z);
  v_focal += v_uv * p.xy / p.z;
  v_center += v_uv;
  var v_mean = v_p * cam.rotation;
  row0 += v_p.x * mean; row1 += v_p.y * mean; row2 += v_p.z * mean;
  let v_q = quat_back(q, back.axes);
  let v_raw = (v_q - q * dot(q, v_q)) * (turn / largest);
  for (var k = 0u; k < 4u; k++) { v_quats[4u * i + k] = v_raw[k]; }
  for (var k = 0u; k < 3u; k++) { v_scales[3u * i + k] = back.scale[k]; }

  var v_position = vec3<f32>(0.0);
  if (DEGREE >= 0) {
    let offset = mean - position(cam);
    let inverse = 1.0 / length(offset);
    let direction = offset * inverse;
    let values = basis(direction);
    var weights = array<f32, BASIS>();
    for (var c = 0u; c < CHANNELS; c++) {
      var sum = SH_OFFSET;
      for (var k = 0u; k < BASIS; k++) { sum += values[k] * colors((i * P.coefficients + k) * CHANNELS + c); }
      let v = select(0.0, v_shown(i * CHANNELS + c), sum > 0.0);
      for (var k = 0u; k < BASIS; k++) {
        let at = (i * P.coefficients + k) * CHANNELS + c;
        v_colors[at] = values[k] * v;
        weights[k] += colors(at) * v;
      }
      for (var k = BASIS; k < P.coefficients; k++) { v_colors[(i * P.coefficients + k) * CHANNELS + c] = 0.0; }
    }
    if (DEGREE > 0) {
      let g = basis_gradient(direction, weights);
      let v_offset = (g - direction * dot(g, direction)) * inverse;
      v_mean += v_offset;
      v_position = -v_offset;
    }
  } else {
    for (var c = 0u; c < CHANNELS; c++) { v_colors[i * CHANNELS + c] = v_shown(i * CHANNELS + c); }
  }
  for (var k = 0u; k < 3u; k++) { v_means[3u * i + k] = v_mean[k]; }
  store_camera(i, v_position, v_p);
}
