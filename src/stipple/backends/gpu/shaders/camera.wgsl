// The camera, as its operands lie in memory, and what all projection kernels share.

struct Camera {
  rotation: mat3x3<f32>,   // world to camera
  translation: vec3<f32>,
  focal: vec2<f32>,
  center: vec2<f32>,
  low: vec2<f32>,          // limits of x/z and y/z that the Jacobian follows
  high: vec2<f32>,
};

fn load_camera() -> Camera {
  var c: Camera;
  c.rotation = mat3x3<f32>(
    viewmat(0u), viewmat(4u), viewmat(8u),
    viewmat(1u), viewmat(5u), viewmat(9u),
    viewmat(2u), viewmat(6u), viewmat(10u));
  c.translation = vec3<f32>(viewmat(3u), viewmat(7u), viewmat(11u));
  c.focal = vec2<f32>(intrinsics(0u), intrinsics(4u));
  c.center = vec2<f32>(intrinsics(2u), intrinsics(5u));
  let size = vec2<f32>(f32(P.width), f32(P.height));
  let margin = JACOBIAN_MARGIN * 0.5 * size / c.focal;
  c.low = -c.center / c.focal - margin;
  c.high = (size - c.center) / c.focal + margin;
  return c;
}

fn position(c: Camera) -> vec3<f32> { return -(transpose(c.rotation) * c.translation); }

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

struct Rays { m: mat3x3<f32>, o: vec3<f32>, cx: vec3<f32>, cy: vec3<f32>, nx: vec3<f32>, ny: vec3<f32> };

// the camera's rays in a Gaussian's unit frame: its centre, their change per pixel, and the moments of that
fn rays_of(c: Camera, axes: mat3x3<f32>, scale: vec3<f32>, p: vec3<f32>) -> Rays {
  let i = 1.0 / scale;
  let turned = transpose(axes) * transpose(c.rotation);
  var r: Rays;
  r.m = mat3x3<f32>(i * turned[0], i * turned[1], i * turned[2]);
  r.o = -(r.m * p);
  r.cx = r.m[0] / c.focal.x;
  r.cy = r.m[1] / c.focal.y;
  r.nx = cross(r.o, r.cx);
  r.ny = cross(r.o, r.cy);
  return r;
}

// |a|^2 |b|^2 - (a b)^2 as the square of the cross product: for a needle the difference would be rounding alone
fn area_squared(a: vec3<f32>, b: vec3<f32>) -> f32 {
  let c = cross(a, b);
  return dot(c, c);
}
