// Footprints by the local affine approximation (Zwicker et al., "EWA Splatting", 2002), forward and backward.

// the rows of (Jacobian x rotation x axes), the covariance before eps2d, its determinant and that with eps2d
struct Ewa { u: vec3<f32>, w: vec3<f32>, a: vec3<f32>, b: vec3<f32>, cov: Symmetric, sharp: f32, det: f32 };

// |a|^2 |b|^2 - (a b)^2 as the square of the cross product: for a needle the difference would be nothing but rounding
fn area_squared(a: vec3<f32>, b: vec3<f32>) -> f32 {
  let c = cross(a, b);
  return dot(c, c);
}

fn ewa_of(c: Camera, j: Jacobian, axes: mat3x3<f32>, scale: vec3<f32>) -> Ewa {
  var e: Ewa;
  e.u = j.x * c.rotation;
  e.w = j.y * c.rotation;
  e.a = e.u * axes;
  e.b = e.w * axes;
  let p = e.a * scale; let q = e.b * scale;
  e.cov = Symmetric(dot(p, p), dot(p, q), dot(q, q));
  e.sharp = area_squared(p, q);
  e.det = e.sharp + P.eps2d * (e.cov.xx + e.cov.yy + P.eps2d);
  return e;
}

fn ewa_conic(e: Ewa) -> Symmetric {
  return Symmetric((e.cov.yy + P.eps2d) / e.det, -e.cov.xy / e.det, (e.cov.xx + P.eps2d) / e.det);
}

// the factor on the opacity that compensates for eps2d
fn ewa_compensation(e: Ewa) -> f32 {
  if (!ANTIALIASED) { return 1.0; }
  return sqrt(max(e.sharp / e.det, MIN_COMPENSATION));
}

fn ewa_backward(c: Camera, p: vec3<f32>, axes: mat3x3<f32>, scale: vec3<f32>, v_conic: Symmetric, v_comp: f32)
    -> PosedGradient {
  let j = jacobian_of(c, p);
  let e = ewa_of(c, j, axes, scale);
  let conic = ewa_conic(e);
  let half_xy = 0.5 * v_conic.xy;
  let t00 = conic.xx * v_conic.xx + conic.xy * half_xy; let t01 = conic.xx * half_xy + conic.xy * v_conic.yy;
  let t10 = conic.xy * v_conic.xx + conic.yy * half_xy; let t11 = conic.xy * half_xy + conic.yy * v_conic.yy;
  var v = Symmetric(
    -(t00 * conic.xx + t01 * conic.xy), -(t00 * conic.xy + t01 * conic.yy), -(t10 * conic.xy + t11 * conic.yy));
  if (ANTIALIASED) {
    let ratio = e.sharp / e.det;
    if (ratio > MIN_COMPENSATION) {
      let v_ratio = v_comp / (2.0 * sqrt(ratio));
      v.xx += v_ratio * (e.cov.yy / e.det - ratio * conic.xx);
      v.xy += v_ratio * (-e.cov.xy / e.det - ratio * conic.xy);
      v.yy += v_ratio * (e.cov.xx / e.det - ratio * conic.yy);
    }
  }
  var v_a = 2.0 * (v.xx * e.a + v.xy * e.b) * scale;
  var v_b = 2.0 * (v.xy * e.a + v.yy * e.b) * scale;
  var back: PosedGradient;
  back.scale = v_a * e.a + v_b * e.b;
  v_a *= scale; v_b *= scale;
  back.axes = mat3x3<f32>(v_a.x * e.u + v_b.x * e.w, v_a.y * e.u + v_b.y * e.w, v_a.z * e.u + v_b.z * e.w);
  let v_u = axes * v_a; let v_w = axes * v_b;
  v_row0 += j.x.x * v_u + j.y.x * v_w;
  v_row1 += j.x.y * v_u + j.y.y * v_w;
  v_row2 += j.x.z * v_u + j.y.z * v_w;
  back.p = jacobian_backward(c, p, Jacobian(c.rotation * v_u, c.rotation * v_w));
  return back;
}
