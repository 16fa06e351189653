// The tiles whose pixels a footprint's alpha-cutoff ellipse reaches, row by row, exactly.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let rank = group_index(wid, nwg) * 256u + lid;
  if (rank >= P.count) { return; }
  let i = u32(order(rank));
  var n = 0u;
$begin
  if (radii(2u * i) > 0) {
    let size = f32(P.tile);
    let columns = i32(P.columns); let rows = i32(P.rows);
    let u = means2d(2u * i); let v = means2d(2u * i + 1u);
    let rx = f32(radii(2u * i)); let ry = f32(radii(2u * i + 1u));
    let c0 = max(0, i32(floor(max((u - rx) / size, -1.0))));
    let c1 = min(columns, i32(floor(min((u + rx) / size, f32(columns)))) + 1);
    let r0 = max(0, i32(floor(max((v - ry) / size, -1.0))));
    let r1 = min(rows, i32(floor(min((v + ry) / size, f32(rows)))) + 1);
    var a = conics(CONIC * i); var b = conics(CONIC * i + 1u); var c = conics(CONIC * i + 2u);
    var reach = EXTENT;
    if (P.alpha_cutoff > 0.0) { reach = min(reach, log(opacities(i) / P.alpha_cutoff)); }
    let k = 2.0 * reach * (1.0 + 1e-4) + 1e-4;  // never lose a pixel to rounding
    var p = 0.0; var r = 0.0;
    if (RAY) {
      a -= k * conics(CONIC * i + 5u); b -= k * conics(CONIC * i + 6u); c -= k * conics(CONIC * i + 7u);
      p = -k * conics(CONIC * i + 3u); r = -k * conics(CONIC * i + 4u);
    }
    let det = a * c - b * b;
    // if rounding could change the sign, use the bounding box
    let bounded = a > 0.0 && det > 1e-5 * a * c;
    var cx = 0.0; var cy = 0.0; var half_y = -1.0; var tip = 0.0; var slope = 0.0; var wide = 0.0; var narrowing = 0.0;
    if (bounded) {
      cx = (b * r - c * p) / det; cy = (b * p - a * r) / det;
      let top = k - (p * cx + r * cy);
      if (top >= 0.0) {
        half_y = sqrt(a * top / det);
        tip = b * half_y / sqrt(a * c);
        slope = b / a; wide = top / a; narrowing = det / (a * a);
      }
    }
    for (var row_ = r0; row_ < r1; row_++) {
      var first = c0; var last = c1 - 1;
      if (bounded) {
        let y0 = f32(row_) * size + 0.5 - v;
        let y1 = min(f32(row_ + 1) * size, f32(P.height)) - 0.5 - v;
        let low = max(y0 - cy, -half_y); let high = min(y1 - cy, half_y);
        if (half_y < 0.0 || low > high) { continue; }
        var y = clamp(-tip, low, high);
        let right = cx - slope * y + sqrt(max(wide - narrowing * y * y, 0.0));
        y = clamp(tip, low, high);
        let left = cx - slope * y - sqrt(max(wide - narrowing * y * y, 0.0));
        first = max(first, i32(ceil((u + left + 0.5 - size) / size - 1e-4)));
        last = min(last, i32(floor((u + right - 0.5) / size + 1e-4)));
      }
$row
      n += u32(max(last - first + 1, 0));
    }
  }
$end
}
