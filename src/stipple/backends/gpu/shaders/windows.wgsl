// Sums over the window around each pixel, of one channel of 16 x 16 pixels: the arrays are loaded as far as windows reach
// (zeros beyond the image), summed along rows, then across them.

const WIDE: u32 = 16u + 2u * HALF;
var<workgroup> s_loaded: array<f32, LOADED>;
var<workgroup> s_along: array<f32, ALONG>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
  let group = group_index(wid, nwg);
  if (group >= P.groups) { return; }
  let channel = group % P.channels; let block = group / P.channels;
  let corner = vec2<u32>(block % P.blocks, block / P.blocks) * 16u;
  for (var k = lid; k < WIDE * WIDE; k += 256u) {
    let shifted = corner + vec2<u32>(k % WIDE, k / WIDE);  // by HALF, so that there are no negative numbers
    let inside = all(shifted >= vec2<u32>(HALF)) && all(shifted < vec2<u32>(P.width, P.height) + HALF);
    let at = ((shifted.y - HALF) * P.width + shifted.x - HALF) * P.channels + channel;
$load
  }
  workgroupBarrier();
  for (var k = lid; k < 16u * WIDE; k += 256u) {
    let first = k / 16u * WIDE + k % 16u;
$along
  }
  workgroupBarrier();
  let x = corner.x + lid % 16u; let y = corner.y + lid / 16u;
  if (x >= P.width || y >= P.height) { return; }
  let i = (y * P.width + x) * P.channels + channel;
$across
$finish
}
