// The evaluation of one Gaussian at one pixel, on which forward and backward must agree to the bit.

struct Footprint {
  mean: vec2<f32>,
  conic: vec4<f32>,  // a, b, c, opacity
  ray: vec4<f32>,    // p, q, e, f
  last: f32,         // g
  id: u32,
};

fn finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }

fn gaussian_of(entry: u32) -> u32 { return u32(clamp(sorted_ids(entry), 0, i32(P.gaussians) - 1)); }

// a Gaussian that is not a finite ellipse or has a feature that is not finite gets opacity 0: it contributes nowhere
fn footprint_of(entry: u32) -> Footprint {
  let i = gaussian_of(entry);
  var g: Footprint;
  g.id = i;
  g.mean = vec2<f32>(means2d(2u * i), means2d(2u * i + 1u));
  g.conic = vec4<f32>(conics(CONIC * i), conics(CONIC * i + 1u), conics(CONIC * i + 2u), opacities(i));
  var good = finite(g.mean.x) && finite(g.mean.y);
  good = good && finite(g.conic.x) && finite(g.conic.y) && finite(g.conic.z) && finite(g.conic.w);
  if (RAY) {
    g.ray = vec4<f32>(conics(CONIC * i + 3u), conics(CONIC * i + 4u), conics(CONIC * i + 5u), conics(CONIC * i + 6u));
    g.last = conics(CONIC * i + 7u);
    good = good && finite(g.ray.x) && finite(g.ray.y) && finite(g.ray.z) && finite(g.ray.w) && finite(g.last);
  }
  for (var f = 0u; f < FEATURES; f++) { good = good && finite(features(FEATURES * i + f)); }
  good = good && g.conic.x > 0.0 && g.conic.x * g.conic.z - g.conic.y * g.conic.y > 0.0;
  if (!good) {
    g.mean = vec2<f32>(0.0);
    g.conic = vec4<f32>(1.0, 0.0, 1.0, 0.0);
  }
  return g;
}

struct Sample { hits: bool, alpha: f32, falloff: f32, sigma: f32, ratio: f32, d: vec2<f32> };

fn evaluate(g: Footprint, pixel: vec2<f32>) -> Sample {
  var at: Sample;
  let conic = g.conic;
  at.d = pixel - g.mean;
  let power = 0.5 * (conic.x * at.d.x * at.d.x + conic.z * at.d.y * at.d.y) + conic.y * at.d.x * at.d.y;
  at.ratio = 1.0;
  if (RAY) {
    let r = g.ray;
    at.ratio = 1.0 + 2.0 * (r.x * at.d.x + r.y * at.d.y) + r.z * at.d.x * at.d.x
      + 2.0 * r.w * at.d.x * at.d.y + g.last * at.d.y * at.d.y;
  }
  at.sigma = select(1e30, power / max(at.ratio, 1e-30), at.ratio > 0.0);
  at.falloff = exp(-min(at.sigma, 80.0));
  at.alpha = min(conic.w * at.falloff, MAX_ALPHA);
  at.hits = at.sigma <= EXTENT && at.alpha >= P.alpha_cutoff && at.alpha > 0.0;
  return at;
}

struct Place { n: u32, sub: u32, x: u32, y: u32, inside: bool };

// pixel n of the 16 x 16 of a tile that a workgroup processes
fn place_of(group: u32, n: u32) -> Place {
  var place: Place;
  place.n = n;
  let tile = group / (SUB * SUB);
  place.sub = group % (SUB * SUB);
  let inner = vec2<u32>((place.sub % SUB) * 16u + n % 16u, (place.sub / SUB) * 16u + n / 16u);
  let corner = vec2<u32>(tile % P.columns, tile / P.columns) * P.tile;
  place.x = corner.x + inner.x;
  place.y = corner.y + inner.y;
  place.inside = inner.x < P.tile && inner.y < P.tile && place.x < P.width && place.y < P.height;
  return place;
}
