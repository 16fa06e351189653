// Colours from SH before clamping, shared by forward and backward.

// from the camera's centre to a mean
fn offset_of(i: u32) -> vec3<f32> {
  let t = vec3<f32>(viewmat(3u), viewmat(7u), viewmat(11u));
  let center = -vec3<f32>(
    viewmat(0u) * t.x + viewmat(4u) * t.y + viewmat(8u) * t.z,
    viewmat(1u) * t.x + viewmat(5u) * t.y + viewmat(9u) * t.z,
    viewmat(2u) * t.x + viewmat(6u) * t.y + viewmat(10u) * t.z);
  return vec3<f32>(means(3u * i), means(3u * i + 1u), means(3u * i + 2u)) - center;
}

fn unclamped(i: u32, channel: u32, values: array<f32, BASIS>) -> f32 {
  var sum = SH_OFFSET;
  for (var k = 0u; k < BASIS; k++) { sum += values[k] * sh((i * P.coefficients + k) * CHANNELS + channel); }
  return sum;
}
