$constants// Back to front through the list of a tile, by Gaussian: a thread owns an entry, and the pixels come to it. The threads
// of a workgroup form rings of `width`, each with as many pixels of its own, which move to the next thread after every
// step with the light that is left and what lies behind. Thread 0 owns the hindmost entry, thread 1 the one before it,
// and so on; a thread that has seen all pixels of its ring takes the entry that is `width` places further in front. So
// an entry's gradients are sums in one thread's registers, and only those of the rings are added across threads.

var<workgroup> top: atomic<i32>;
var<workgroup> highest: i32;
var<workgroup> s_last: array<i32, 256>;            // of each pixel: the position of its last contributor
var<workgroup> s_gradient: array<f32, GRADIENTS>;  // of each feature and pixel
var<workgroup> cells: array<f32, CELLS>;           // entries that are about to begin, then sums of the rings
$memory
struct Owned { at: Footprint, features: array<f32, CAPACITY> };

// an entry as it is kept in cells
fn put_entry(width: u32, lane: u32, entry: u32) {
  let g = footprint_of(entry);
  var at = lane;
  cells[at] = g.mean.x; at += width;
  cells[at] = g.mean.y; at += width;
  for (var k = 0u; k < 4u; k++) { cells[at] = g.conic[k]; at += width; }
  if (RAY) {
    for (var k = 0u; k < 4u; k++) { cells[at] = g.ray[k]; at += width; }
    cells[at] = g.last; at += width;
  }
  for (var f = 0u; f < HELD; f++) { cells[at] = features(FEATURES * g.id + f); at += width; }
}

fn take_entry(width: u32, lane: u32) -> Owned {
  var own: Owned;
  var at = lane;
  own.at.mean.x = cells[at]; at += width;
  own.at.mean.y = cells[at]; at += width;
  for (var k = 0u; k < 4u; k++) { own.at.conic[k] = cells[at]; at += width; }
  if (RAY) {
    for (var k = 0u; k < 4u; k++) { own.at.ray[k] = cells[at]; at += width; }
    own.at.last = cells[at]; at += width;
  }
  for (var f = 0u; f < HELD; f++) { own.features[f] = cells[at]; at += width; }
  return own;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32$builtins) {
  let group = group_index(wid, nwg);
  if (group >= P.groups) { return; }
$ring
  let tile = group / (SUB * SUB);
  let front = tile_ranges(2u * tile); let count = tile_ranges(2u * tile + 1u) - front;
  let start = front + min(i32(P.skip), count); let end = front + min(i32(P.skip + P.part), count);
  if (start >= end) { return; }
  // the pixel that is at this thread before the first step and after the last
  let place = place_of(group, ring * width + (width - lane) % width);
  let at = place.y * P.width + place.x;
  let corner = vec2<f32>(f32(place.x - place.n % 16u), f32(place.y - place.n / 16u)) + 0.5;
  var last = -1; var t = 0.0; var behind = 0.0;
  if (place.inside) {
    last = min(last_ids(at), end - 1);
    t = transmittance(at);
    behind = -v_alpha(at);
    for (var f = 0u; f < FEATURES; f++) { behind += v_image(at * FEATURES + f) * background(f); }
    behind *= t;
    for (var f = 0u; f < HELD; f++) { s_gradient[f * 256u + place.n] = v_image(at * FEATURES + f); }
$resume
  }
  s_last[place.n] = last;
  if (lid == 0u) { atomicStore(&top, -1); }
  workgroupBarrier();
  atomicMax(&top, last);
  workgroupBarrier();
  if (lid == 0u) { highest = atomicLoad(&top); }
  let until = workgroupUniformLoad(&highest) + 1;
  var entry = -1;  // none yet
  var own: Owned;
  var v = array<f32, VALUES>();
  var ended = array<f32, VALUES>();  // the sums of the entry before
  // the entries from `next` on begin, one in each step; in the last round, only those that have begun go on
  for (var next = until - 1; next >= start - i32(width) && until > start; next -= i32(width)) {
    if (lid < width && next - i32(lid) >= start) { put_entry(width, lid, u32(next - i32(lid))); }
    workgroupBarrier();
    for (var step = 0u; step < width; step++) {
      if (step == lane) {
        entry = next - i32(lane);
        own = take_entry(width, lane);
        if (GEOMETRIC > 0u && FEATURES > HELD && entry >= start) { own.at.id = gaussian_of(u32(entry)); }
        ended = v;
        v = array<f32, VALUES>();
      }
      let n = ring * width + (step + width - lane) % width;
      if (entry >= start && entry <= s_last[n]) {
        let inner = vec2<u32>(n % 16u, n / 16u);
        let s = evaluate(own.at, corner + vec2<f32>(inner));
        if (s.hits) {
          let rest = 1.0 - s.alpha;
          let before = t / rest;
          let weight = s.alpha * before;
          t = before;
          let pixel = (u32(corner.y) + inner.y) * P.width + u32(corner.x) + inner.x;
          if (HELD > 0u) {
            for (var f = 0u; f < HELD; f++) { v[GEOMETRIC + f] += weight * s_gradient[f * 256u + n]; }
          } else {
            for (var f = 0u; f < SUMMED; f++) { v[f] += weight * v_image(pixel * FEATURES + FIRST + f); }
          }
$geometry
        }
      }
$move
    }
    workgroupBarrier();
    if (next < until - 1) {
      for (var first = 0u; first < VALUES; first += ROUND) {
        for (var k = 0u; k < ROUND && first + k < VALUES; k++) {
          cells[k * 257u + ring * width + lane] = ended[first + k];
        }
        workgroupBarrier();
        for (var c = lid; c < width * ROUND; c += 256u) {
          let k = c % ROUND; let owner = c / ROUND;
          let e = next + i32(width - owner);
          if (e >= start && first + k < VALUES) {
            var sum = 0.0;
            for (var r = owner; r < 256u; r += width) { sum += cells[k * 257u + r]; }
            let row = u32(emission(u32(e))) * SUB * SUB + place.sub;
            rows[P.rows + row * P.values + COLUMN + first + k] = sum;
            if (COLUMN + first + k == 0u) { rows[row] = 1.0; }  // the mark that it is written
          }
        }
        workgroupBarrier();
      }
    }
  }
$leave
}
