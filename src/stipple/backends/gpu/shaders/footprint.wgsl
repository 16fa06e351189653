// The evaluation of one Gaussian at one pixel, on which forward and backward must agree to the bit.

var<workgroup> s_mean: array<vec2<f32>, BATCH>;
var<workgroup> s_conic: array<vec4<f32>, BATCH>;   // a, b, c, opacity
var<workgroup> s_ray: array<vec4<f32>, RAY_BATCH>; // p, q, e, f
var<workgroup> s_last: array<f32, RAY_BATCH>;      // g
var<workgroup> s_id: array<u32, BATCH>;

fn finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }

// a Gaussian that is not a finite ellipse or has a feature that is not finite gets opacity 0: it contributes nowhere
fn load_entry(slot: u32, entry: u32) {
  let i = u32(clamp(sorted_ids(entry), 0, i32(P.gaussians) - 1));
  let mean = vec2<f32>(means2d(2u * i), means2d(2u * i + 1u));
  var conic = vec4<f32>(conics(CONIC * i), conics(CONIC * i + 1u), conics(CONIC * i + 2u), opacities(i));
  var good = finite(mean.x) && finite(mean.y) && finite(conic.x) && finite(conic.y) && finite(conic.z) && finite(conic.w);
  if (RAY) {
    let ray = vec4<f32>(conics(CONIC * i + 3u), conics(CONIC * i + 4u), conics(CONIC * i + 5u), conics(CONIC * i + 6u));
    s_ray[slot] = ray;
    s_last[slot] = conics(CONIC * i + 7u);
    good = good && finite(ray.x) && finite(ray.y) && finite(ray.z) && finite(ray.w) && finite(s_last[slot]);
  }
  for (var f = 0u; f < FEATURES; f++) { good = good && finite(features(FEATURES * i + f)); }
  good = good && conic.x > 0.0 && conic.x * conic.z - conic.y * conic.y > 0.0;
  if (!good) { conic = vec4<f32>(1.0, 0.0, 1.0, 0.0); }
  s_mean[slot] = select(vec2<f32>(0.0), mean, good);
  s_conic[slot] = conic;
  s_id[slot] = i;
}

struct Sample { hits: bool, alpha: f32, falloff: f32, sigma: f32, ratio: f32, d: vec2<f32> };

fn evaluate(slot: u32, pixel: vec2<f32>) -> Sample {
  var at: Sample;
  let conic = s_conic[slot];
  at.d = pixel - s_mean[slot];
  let power = 0.5 * (conic.x * at.d.x * at.d.x + conic.z * at.d.y * at.d.y) + conic.y * at.d.x * at.d.y;
  at.ratio = 1.0;
  if (RAY) {
    let r = s_ray[slot];
    at.ratio = 1.0 + 2.0 * (r.x * at.d.x + r.y * at.d.y) + r.z * at.d.x * at.d.x
      + 2.0 * r.w * at.d.x * at.d.y + s_last[slot] * at.d.y * at.d.y;
  }
  at.sigma = select(1e30, power / max(at.ratio, 1e-30), at.ratio > 0.0);
  at.falloff = exp(-min(at.sigma, 80.0));
  at.alpha = min(conic.w * at.falloff, MAX_ALPHA);
  at.hits = at.sigma <= EXTENT && at.alpha >= P.alpha_cutoff && at.alpha > 0.0;
  return at;
}

struct Place { sub: u32, x: u32, y: u32, inside: bool };

// a workgroup processes 16 x 16 pixels of a tile
fn place_of(group: u32, lid: u32) -> Place {
  var place: Place;
  let tile = group / (SUB * SUB);
  place.sub = group % (SUB * SUB);
  let inner = vec2<u32>((place.sub % SUB) * 16u + lid % 16u, (place.sub / SUB) * 16u + lid / 16u);
  let corner = vec2<u32>(tile % P.columns, tile / P.columns) * P.tile;
  place.x = corner.x + inner.x;
  place.y = corner.y + inner.y;
  place.inside = inner.x < P.tile && inner.y < P.tile && place.x < P.width && place.y < P.height;
  return place;
}
