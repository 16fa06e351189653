// Footprints by exact evaluation along rays, forward and backward: half the squared distance between a Gaussian's mean
// and a pixel's ray in its unit frame, as in 3DGUT (Wu et al., 2025). The formulas are derived in the reference's
// ray.py.

// a camera's rays in a Gaussian's unit frame
struct Rays {
  matrix: mat3x3<f32>,     // camera to unit frame
  column_x: vec3<f32>,     // change of the ray's direction per pixel in x (ortho: of its origin)
  column_y: vec3<f32>,
  direction: vec3<f32>,    // of the ray through the projected mean
  lever: vec3<f32>,        // first factor of the moments: the camera's centre (ortho: the direction)
  moment_x: vec3<f32>,
  moment_y: vec3<f32>,
  norm: f32,               // 1 / |direction|^2
};

fn rays_of(c: Camera, axes: mat3x3<f32>, scale: vec3<f32>, p: vec3<f32>) -> Rays {
  let inverse = 1.0 / scale;
  let rotated = transpose(axes) * transpose(c.rotation);
  var r: Rays;
  r.matrix = mat3x3<f32>(inverse * rotated[0], inverse * rotated[1], inverse * rotated[2]);
  r.column_x = r.matrix[0] / c.focal.x;
  r.column_y = r.matrix[1] / c.focal.y;
  if (ORTHO) {
    r.lever = r.matrix[2];
    r.direction = r.lever;
    r.norm = 1.0 / dot(r.lever, r.lever);
  } else {
    r.lever = -(r.matrix * p);
    r.direction = -r.lever / p.z;
    r.norm = p.z * p.z / dot(r.lever, r.lever);
  }
  r.moment_x = cross(r.lever, r.column_x);
  r.moment_y = cross(r.lever, r.column_y);
  return r;
}

fn ray_conic(r: Rays) -> array<f32, 8> {
  let s = r.norm;
  var conic = array<f32, 8>();
  conic[0] = s * dot(r.moment_x, r.moment_x);
  conic[1] = s * dot(r.moment_x, r.moment_y);
  conic[2] = s * dot(r.moment_y, r.moment_y);
  if (!ORTHO) {
    conic[3] = s * dot(r.direction, r.column_x);
    conic[4] = s * dot(r.direction, r.column_y);
    conic[5] = s * dot(r.column_x, r.column_x);
    conic[6] = s * dot(r.column_x, r.column_y);
    conic[7] = s * dot(r.column_y, r.column_y);
  }
  return conic;
}

fn ray_backward(c: Camera, p: vec3<f32>, axes: mat3x3<f32>, scale: vec3<f32>, v: array<f32, 8>) -> PosedGradient {
  let r = rays_of(c, axes, scale, p);
  let s = r.norm;
  var v_norm = v[0] * dot(r.moment_x, r.moment_x) + v[1] * dot(r.moment_x, r.moment_y)
    + v[2] * dot(r.moment_y, r.moment_y);
  if (!ORTHO) {
    v_norm += v[3] * dot(r.direction, r.column_x) + v[4] * dot(r.direction, r.column_y)
      + v[5] * dot(r.column_x, r.column_x) + v[6] * dot(r.column_x, r.column_y) + v[7] * dot(r.column_y, r.column_y);
  }
  var v_direction = -2.0 * s * s * v_norm * r.direction;
  let v_moment_x = s * (2.0 * v[0] * r.moment_x + v[1] * r.moment_y);
  let v_moment_y = s * (v[1] * r.moment_x + 2.0 * v[2] * r.moment_y);
  var v_lever = cross(r.column_x, v_moment_x) + cross(r.column_y, v_moment_y);
  var v_column_x = cross(v_moment_x, r.lever);
  var v_column_y = cross(v_moment_y, r.lever);
  var back: PosedGradient;
  var v0 = vec3<f32>(0.0); var v1 = vec3<f32>(0.0); var v2 = vec3<f32>(0.0);  // columns of the gradient of the matrix
  if (ORTHO) {
    v2 = v_direction + v_lever;
  } else {
    v_direction += s * (v[3] * r.column_x + v[4] * r.column_y);
    v_column_x += s * (v[3] * r.direction + 2.0 * v[5] * r.column_x + v[6] * r.column_y);
    v_column_y += s * (v[4] * r.direction + v[6] * r.column_x + 2.0 * v[7] * r.column_y);
    v_lever -= v_direction / p.z;
    v0 = -p.x * v_lever; v1 = -p.y * v_lever; v2 = -p.z * v_lever;
    back.p = -(v_lever * r.matrix);
    back.p.z += dot(r.lever, v_direction) / (p.z * p.z);
  }
  v0 += v_column_x / c.focal.x;
  v1 += v_column_y / c.focal.y;
  v_focal -= vec2<f32>(dot(r.column_x, v_column_x), dot(r.column_y, v_column_y)) / c.focal;
  let inverse = 1.0 / scale;
  let b0 = row(axes, 0u) * inverse; let b1 = row(axes, 1u) * inverse; let b2 = row(axes, 2u) * inverse;
  v_row0 += vec3<f32>(dot(v0, b0), dot(v0, b1), dot(v0, b2));
  v_row1 += vec3<f32>(dot(v1, b0), dot(v1, b1), dot(v1, b2));
  v_row2 += vec3<f32>(dot(v2, b0), dot(v2, b1), dot(v2, b2));
  let t = mat3x3<f32>(v0, v1, v2) * c.rotation;
  back.axes = transpose(mat3x3<f32>(t[0] * inverse, t[1] * inverse, t[2] * inverse));
  back.scale = -(b0 * t[0] + b1 * t[1] + b2 * t[2]) * inverse;
  return back;
}
