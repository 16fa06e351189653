// Gaussians in world space and in camera space.

// no NaN is ever compared: drivers may assume that there are none
fn finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
fn finite3(v: vec3<f32>) -> bool { return finite(v.x) && finite(v.y) && finite(v.z); }

fn mean_of(i: u32) -> vec3<f32> { return vec3<f32>(means(3u * i), means(3u * i + 1u), means(3u * i + 2u)); }
fn scale_of(i: u32) -> vec3<f32> { return vec3<f32>(scales(3u * i), scales(3u * i + 1u), scales(3u * i + 2u)); }
fn quat_of(i: u32) -> vec4<f32> {
  return vec4<f32>(quats(4u * i), quats(4u * i + 1u), quats(4u * i + 2u), quats(4u * i + 3u));
}
fn largest_of(q: vec4<f32>) -> f32 { return max(max(abs(q.x), abs(q.y)), max(abs(q.z), abs(q.w))); }

// columns are the axes; q = (w, x, y, z), of length one
fn axes_of(q: vec4<f32>) -> mat3x3<f32> {
  let w = q.x; let x = q.y; let y = q.z; let z = q.w;
  return mat3x3<f32>(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

fn row(m: mat3x3<f32>, r: u32) -> vec3<f32> { return vec3<f32>(m[0][r], m[1][r], m[2][r]); }

// gradients of a camera-space mean, of the axes (by columns) and of the scales
struct PosedGradient { p: vec3<f32>, axes: mat3x3<f32>, scale: vec3<f32> };

// gradient of a unit quaternion from that of its matrix
fn axes_backward(q: vec4<f32>, v: mat3x3<f32>) -> vec4<f32> {
  let w = q.x; let x = q.y; let y = q.z; let z = q.w;
  let v01 = v[1][0]; let v02 = v[2][0]; let v10 = v[0][1]; let v12 = v[2][1]; let v20 = v[0][2]; let v21 = v[1][2];
  let v00 = v[0][0]; let v11 = v[1][1]; let v22 = v[2][2];
  return 2.0 * vec4<f32>(
    x * (v21 - v12) + y * (v02 - v20) + z * (v10 - v01),
    -2.0 * x * (v11 + v22) + y * (v01 + v10) + z * (v02 + v20) + w * (v21 - v12),
    x * (v01 + v10) - 2.0 * y * (v00 + v22) + z * (v12 + v21) + w * (v02 - v20),
    x * (v02 + v20) + y * (v12 + v21) - 2.0 * z * (v00 + v11) + w * (v10 - v01));
}
