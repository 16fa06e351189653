// Sine and cosine in float32. The built-in ones may be wrong by 5e-4 (WGSL and Vulkan guarantee 2^-11), and on some
// devices are. A multiple of pi / 2 is subtracted in three parts (Cody and Waite), and the rest is evaluated by the
// polynomials of the Cephes library (Moshier): accurate to about 1e-7, for arguments up to 8192. Needs special.wgsl.

const MAX_REDUCED = 8192.0;

fn by_quarters(x: f32, quarters: i32) -> f32 {
  let q = round(x * 0.636619772);
  let r = ((x - q * 1.5703125) - q * 4.837512969970703e-4) - q * 7.549789954891882e-8;
  let z = r * r;
  let s = r + r * z * ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1);
  let c = 1.0 - 0.5 * z + z * z * ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2);
  let n = i32(q) + quarters;
  let value = select(s, c, (n & 1) != 0);
  return select(value, -value, (n & 2) != 0);
}

fn sine(x: f32) -> f32 {
  if (!is_finite(x)) { return from_bits(NAN); }
  if (abs(x) > MAX_REDUCED) { return sin(x); }
  return by_quarters(x, 0);
}

fn cosine(x: f32) -> f32 {
  if (!is_finite(x)) { return from_bits(NAN); }
  if (abs(x) > MAX_REDUCED) { return cos(x); }
  return by_quarters(x, 1);
}
