// The camera models: projection of points, its Jacobian, and the gradients of both. The formulas are derived in the
// reference backend's camera.py: all models but ortho use slopes s = (x/z, y/z), which a lens maps to D(s) = s F(|s|^2)
// + tangential terms; D has the symmetric derivative H(s).

struct Camera {
  rotation: mat3x3<f32>,   // world to camera
  translation: vec3<f32>,
  focal: vec2<f32>,
  center: vec2<f32>,
  low: vec2<f32>,          // limits of the slopes at which a pinhole's Jacobian is evaluated
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

// --- the lens ---------------------------------------------------------------------------------------------
struct Radial { value: f32, first: f32, second: f32 };  // F and its first two derivatives in t = |s|^2

fn polynomial(t: f32, c1: f32, c2: f32, c3: f32) -> Radial {
  return Radial(1.0 + t * (c1 + t * (c2 + t * c3)), c1 + t * (2.0 * c2 + t * 3.0 * c3), 2.0 * c2 + 6.0 * t * c3);
}

fn rational_factor(t: f32) -> Radial {
  let n = polynomial(t, distortion(0u), distortion(1u), distortion(2u));
  let q = polynomial(t, distortion(3u), distortion(4u), distortion(5u));
  var f: Radial;
  f.value = n.value / q.value;
  f.first = (n.first - f.value * q.first) / q.value;
  f.second = (n.second - 2.0 * f.first * q.first - f.value * q.second) / q.value;
  return f;
}

// The built-in function may be wrong by 4096 units in the last place; this is the Cephes library's (Moshier), x >= 0.
fn arc_tangent(x: f32) -> f32 {
  var base = 0.0; var y = x;
  if (x > 2.414213562) { base = 1.570796327; y = -1.0 / x; }
  else if (x > 0.414213562) { base = 0.785398163; y = (x - 1.0) / (x + 1.0); }
  let z = y * y;
  let tail = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1;
  return base + (tail * z * y + y);
}

const NEAR_AXIS = 0.25;  // below this squared slope, a series is used; above it, differences keep enough digits
const SERIES = 15u;

// A = atan(r) / r and its derivatives in t = r^2
fn arc_ratio(t: f32) -> Radial {
  var a = Radial(0.0, 0.0, 0.0);
  if (t < NEAR_AXIS) {
    for (var m = 0u; m < SERIES; m++) {  // Horner: 1 - t/3 + t^2/5 - ...
      let n = SERIES - 1u - m;
      let coefficient = select(1.0, -1.0, n % 2u == 1u) / f32(2u * n + 1u);
      a.second = a.second * t + 2.0 * a.first;
      a.first = a.first * t + a.value;
      a.value = a.value * t + coefficient;
    }
    return a;
  }
  let r = sqrt(t);
  a.value = arc_tangent(r) / r;
  a.first = (1.0 / (1.0 + t) - a.value) / (2.0 * t);
  a.second = (-1.0 / ((1.0 + t) * (1.0 + t)) - 3.0 * a.first) / (2.0 * t);
  return a;
}

// theta^2 = t A^2 and its derivatives
fn squared_angle(t: f32, a: Radial) -> Radial {
  let inverse = 1.0 / (1.0 + t);
  return Radial(t * a.value * a.value, a.value * inverse, (a.first - a.value * inverse) * inverse);
}

fn fisheye_factor(t: f32) -> Radial {
  let a = arc_ratio(t);
  let u = squared_angle(t, a);
  let k1 = distortion(0u); let k2 = distortion(1u); let k3 = distortion(2u); let k4 = distortion(3u);
  let v = u.value;
  let p = 1.0 + v * (k1 + v * (k2 + v * (k3 + v * k4)));
  let p1 = k1 + v * (2.0 * k2 + v * (3.0 * k3 + v * 4.0 * k4));
  let p2 = 2.0 * k2 + v * (6.0 * k3 + v * 12.0 * k4);
  var f: Radial;
  f.value = a.value * p;
  f.first = a.first * p + a.value * p1 * u.first;
  f.second = a.second * p + 2.0 * a.first * p1 * u.first + a.value * (p2 * u.first * u.first + p1 * u.second);
  return f;
}

fn radial_factor(t: f32) -> Radial {
  if (FISHEYE) { return fisheye_factor(t); }
  if (RATIONAL) { return rational_factor(t); }
  return Radial(1.0, 0.0, 0.0);
}

fn tangential() -> vec2<f32> {
  if (RATIONAL) { return vec2<f32>(distortion(6u), distortion(7u)); }
  return vec2<f32>(0.0);
}

// D(s)
fn distort(s: vec2<f32>) -> vec2<f32> {
  if (!(FISHEYE || RATIONAL)) { return s; }
  let p = tangential();
  let t = dot(s, s);
  let cross_term = 2.0 * s.x * s.y;
  return s * radial_factor(t).value + p * cross_term + p.yx * (t + 2.0 * s * s);
}

struct Symmetric { xx: f32, xy: f32, yy: f32 };

// H(s)
fn distortion_derivative(s: vec2<f32>) -> Symmetric {
  if (!(FISHEYE || RATIONAL)) { return Symmetric(1.0, 0.0, 1.0); }
  let p = tangential();
  let f = radial_factor(dot(s, s));
  return Symmetric(
    f.value + 2.0 * f.first * s.x * s.x + 2.0 * p.x * s.y + 6.0 * p.y * s.x,
    2.0 * f.first * s.x * s.y + 2.0 * p.x * s.x + 2.0 * p.y * s.y,
    f.value + 2.0 * f.first * s.y * s.y + 6.0 * p.x * s.y + 2.0 * p.y * s.x);
}

// --- points -----------------------------------------------------------------------------------------------
fn pixel_of(c: Camera, p: vec3<f32>) -> vec2<f32> {
  if (ORTHO) { return c.focal * p.xy + c.center; }
  return c.focal * distort(p.xy / p.z) + c.center;
}

struct Jacobian { x: vec3<f32>, y: vec3<f32> };  // of a pixel's x and y with respect to the camera-space point

// beyond the frame and its margin, a pinhole's Jacobian is that at the limit
fn held_slopes(c: Camera, s: vec2<f32>) -> vec2<f32> {
  if (FISHEYE) { return s; }
  return clamp(s, c.low, c.high);
}

// how x/z and y/z change with a point
fn slope_jacobian(s: vec2<f32>, z: f32) -> Jacobian {
  return Jacobian(vec3<f32>(1.0, 0.0, -s.x) / z, vec3<f32>(0.0, 1.0, -s.y) / z);
}

fn jacobian_of(c: Camera, p: vec3<f32>) -> Jacobian {
  if (ORTHO) { return Jacobian(vec3<f32>(c.focal.x, 0.0, 0.0), vec3<f32>(0.0, c.focal.y, 0.0)); }
  let s = held_slopes(c, p.xy / p.z);
  let h = distortion_derivative(s);
  let outer = slope_jacobian(s, p.z);
  return Jacobian(c.focal.x * (h.xx * outer.x + h.xy * outer.y), c.focal.y * (h.xy * outer.x + h.yy * outer.y));
}

// --- gradients --------------------------------------------------------------------------------------------
// one Gaussian's contribution to those of the camera
var<private> v_row0: vec3<f32>;         // of the rotation
var<private> v_row1: vec3<f32>;
var<private> v_row2: vec3<f32>;
var<private> v_translation: vec3<f32>;
var<private> v_focal: vec2<f32>;
var<private> v_center: vec2<f32>;
var<private> v_lens: array<f32, 8>;     // of the distortion

// from the gradients of F and F' to the radial coefficients
fn radial_backward(t: f32, v_value: f32, v_first: f32) {
  if (RATIONAL) {
    let q = polynomial(t, distortion(3u), distortion(4u), distortion(5u));
    let f = rational_factor(t);
    let v_n = v_value / q.value - v_first * q.first / (q.value * q.value);
    let v_n1 = v_first / q.value;
    let v_q = -v_n * f.value - v_n1 * f.first;
    let v_q1 = -v_n1 * f.value;
    let powers = vec3<f32>(t, t * t, t * t * t);
    let slopes = vec3<f32>(1.0, 2.0 * t, 3.0 * t * t);
    for (var k = 0u; k < 3u; k++) {
      v_lens[k] += powers[k] * v_n + slopes[k] * v_n1;
      v_lens[3u + k] += powers[k] * v_q + slopes[k] * v_q1;
    }
  }
  if (FISHEYE) {
    let a = arc_ratio(t);
    let u = squared_angle(t, a);
    var power = 1.0;  // u^(m - 1)
    for (var m = 0u; m < 4u; m++) {
      v_lens[m] += power * (u.value * (v_value * a.value + v_first * a.first) + v_first * a.value * f32(m + 1u) * u.first);
      power *= u.value;
    }
  }
}

// gradient of slopes from that of D(s)
fn distort_backward(s: vec2<f32>, v: vec2<f32>) -> vec2<f32> {
  if (!(FISHEYE || RATIONAL)) { return v; }
  let h = distortion_derivative(s);
  let t = dot(s, s);
  radial_backward(t, dot(s, v), 0.0);
  if (RATIONAL) {
    let along = 2.0 * s.x * s.y;
    v_lens[6] += along * v.x + (t + 2.0 * s.y * s.y) * v.y;
    v_lens[7] += (t + 2.0 * s.x * s.x) * v.x + along * v.y;
  }
  return vec2<f32>(h.xx * v.x + h.xy * v.y, h.xy * v.x + h.yy * v.y);
}

// gradient of slopes from that of H(s); xy stands for both entries
fn derivative_backward(s: vec2<f32>, v: Symmetric) -> vec2<f32> {
  if (!(FISHEYE || RATIONAL)) { return vec2<f32>(0.0); }
  let p = tangential();
  let t = dot(s, s);
  let f = radial_factor(t);
  let v_value = v.xx + v.yy;
  let v_first = 2.0 * (s.x * s.x * v.xx + s.x * s.y * v.xy + s.y * s.y * v.yy);
  let v_t = v_value * f.first + v_first * f.second;
  radial_backward(t, v_value, v_first);
  if (RATIONAL) {
    v_lens[6] += 2.0 * s.y * v.xx + 2.0 * s.x * v.xy + 6.0 * s.y * v.yy;
    v_lens[7] += 6.0 * s.x * v.xx + 2.0 * s.y * v.xy + 2.0 * s.x * v.yy;
  }
  return vec2<f32>(
    2.0 * s.x * v_t + f.first * (4.0 * s.x * v.xx + 2.0 * s.y * v.xy) + p.x * 2.0 * v.xy + p.y * (6.0 * v.xx + 2.0 * v.yy),
    2.0 * s.y * v_t + f.first * (2.0 * s.x * v.xy + 4.0 * s.y * v.yy) + p.x * (2.0 * v.xx + 6.0 * v.yy) + p.y * 2.0 * v.xy);
}

// gradient of a point from that of its x/z and y/z
fn slopes_backward(p: vec3<f32>, v: vec2<f32>) -> vec3<f32> {
  let v_xy = v / p.z;
  return vec3<f32>(v_xy, -dot(v_xy, p.xy / p.z));
}

// gradient of a camera-space point from that of its pixel
fn pixel_backward(c: Camera, p: vec3<f32>, v: vec2<f32>) -> vec3<f32> {
  v_center += v;
  if (ORTHO) {
    v_focal += p.xy * v;
    return vec3<f32>(c.focal * v, 0.0);
  }
  let s = p.xy / p.z;
  v_focal += distort(s) * v;
  return slopes_backward(p, distort_backward(s, c.focal * v));
}

// gradient of a camera-space point from that of its Jacobian
fn jacobian_backward(c: Camera, p: vec3<f32>, v: Jacobian) -> vec3<f32> {
  let j = jacobian_of(c, p);
  v_focal += vec2<f32>(dot(j.x, v.x), dot(j.y, v.y)) / c.focal;
  if (ORTHO) { return vec3<f32>(0.0); }
  let slopes = p.xy / p.z;
  let s = held_slopes(c, slopes);
  let h = distortion_derivative(s);
  let outer = slope_jacobian(s, p.z);
  let w = Jacobian(c.focal.x * v.x, c.focal.y * v.y);
  let v_h = Symmetric(dot(w.x, outer.x), dot(w.x, outer.y) + dot(w.y, outer.x), dot(w.y, outer.y));
  let v_outer = Jacobian(h.xx * w.x + h.xy * w.y, h.xy * w.x + h.yy * w.y);
  let v_slopes = derivative_backward(s, v_h) - vec2<f32>(v_outer.x.z, v_outer.y.z) / p.z;
  // within the limits a slope is x/z; beyond, it is a limit that depends on focal length and centre
  let held = s != slopes;
  let v_held = select(vec2<f32>(0.0), v_slopes, held);
  v_focal -= v_held * s / c.focal;
  v_center -= v_held / c.focal;
  var v_p = slopes_backward(p, select(v_slopes, vec2<f32>(0.0), held));
  v_p.z -= (dot(v_outer.x, outer.x) + dot(v_outer.y, outer.y)) / p.z;
  return v_p;
}
