// NaN, infinity and zeros, as specified in docs/values.md. Shader compilers may assume that there is no NaN and no
// infinity (Metal's do), built-in functions may return anything for them, and WGSL has no constants for them. So they
// are recognised and selected by their bits, as integers, about which nothing is assumed.

const SIGN: u32 = 0x80000000u;
const INFINITY: u32 = 0x7f800000u;
const NAN: u32 = 0x7fc00000u;

// a float with these bits; through a variable, because a constant infinity is refused
fn from_bits(bits: u32) -> f32 {
  var held = bits;
  return bitcast<f32>(held);
}

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > INFINITY; }
fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & INFINITY) != INFINITY; }
fn ordered(a: f32, b: f32) -> bool { return !(is_nan(a) || is_nan(b)); }

// a where the condition holds, else b
fn either(condition: bool, a: f32, b: f32) -> f32 {
  return from_bits(select(bitcast<u32>(b), bitcast<u32>(a), condition));
}

// what was computed from x, or x where that is NaN
fn unless_nan(x: f32, value: f32) -> f32 { return either(is_nan(x), x, value); }

fn larger(a: f32, b: f32) -> f32 { return unless_nan(a, unless_nan(b, max(a, b))); }
fn smaller(a: f32, b: f32) -> f32 { return unless_nan(a, unless_nan(b, min(a, b))); }
fn signum(x: f32) -> f32 { return unless_nan(x, sign(x)); }

// max(x, 0), also for minus infinity; NaN stays NaN
fn rectified(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  return from_bits(select(bits, 0u, bits - SIGN <= INFINITY));
}

// the built-in function may be 1 / inverseSqrt
fn root(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  return either(bits == INFINITY || (bits & 0x7fffffffu) == 0u, x, sqrt(x));
}

// log(1 + exp(x)). 1 + e would lose a small e, so log(1 + e) is 2 atanh(s) by its series; s is a third at most.
fn log_plus(x: f32) -> f32 {
  let e = exp(-abs(x));
  let s = e / (2.0 + e);
  let z = s * s;
  let tail = 1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z / 13.0)));
  return rectified(x) + 2.0 * (s + s * z * (1.0 / 3.0 + z * tail));
}

// the built-in function may be inaccurate for small x: use the polynomial of the Cephes library (Moshier)
fn tangent(x: f32) -> f32 {
  if (abs(x) < 0.625) {
    let z = x * x;
    let high = (-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2;
    return x + x * z * ((high * z + 1.33314422036e-1) * z - 3.33332819422e-1);
  }
  return unless_nan(x, tanh(clamp(x, -15.0, 15.0)));
}

// x - x and x / x, which compilers would simplify to 0 and 1
fn without_itself(x: f32) -> f32 { return from_bits(select(NAN, 0u, is_finite(x))); }
fn by_itself(x: f32) -> f32 { return from_bits(select(NAN, 0x3f800000u, is_finite(x) && x != 0.0)); }

// as C's pow
fn power(x: f32, y: f32) -> f32 {
  if ((bitcast<u32>(y) << 1u) == 0u || bitcast<u32>(x) == 0x3f800000u) { return 1.0; }
  if (!ordered(x, y)) { return from_bits(NAN); }
  let size = bitcast<u32>(x) & 0x7fffffffu;
  let height = bitcast<u32>(y) & 0x7fffffffu;
  let rises = bitcast<u32>(y) < SIGN;
  let whole = height >= 0x4b000000u || floor(y) == y;
  let odd = whole && height < 0x4b800000u && (i32(y) & 1) != 0;
  var result = 0u;
  if (size == 0x3f800000u) {
    result = size;
  } else if (size == 0u || size == INFINITY || height == INFINITY) {
    result = select(0u, INFINITY, (size > 0x3f800000u) == rises);
  } else {
    result = bitcast<u32>(pow(bitcast<f32>(size), y));
  }
  if (bitcast<u32>(x) >= SIGN) {
    if (!whole && size != 0u && size != INFINITY) { return from_bits(NAN); }
    if (odd) { result |= SIGN; }
  }
  return from_bits(result);
}

// integers: the fraction is dropped, values saturate, NaN becomes 0
fn to_i32(x: f32) -> i32 {
  if (is_nan(x)) { return 0; }
  if (x >= 2147483648.0) { return 2147483647; }
  if (x <= -2147483648.0) { return i32(-2147483647) - 1; }
  return i32(x);
}

fn to_u8(x: f32) -> u32 {
  if (is_nan(x)) { return 0u; }
  return u32(clamp(x, 0.0, 255.0));
}
