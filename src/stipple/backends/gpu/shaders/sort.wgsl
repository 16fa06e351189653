// A stable radix sort of 32-bit keys with 32-bit values, four bits per pass, and exclusive sums.
// A workgroup processes 1024 items, a thread four neighbours.

const ITEMS = 4u;
const BLOCK = 1024u;

// sums in a workgroup: places[lid] becomes the exclusive sum of all before it; returns the total
var<workgroup> ladder: array<u32, 256>;
fn exclusive(lid: u32, value: u32) -> vec2<u32> {
  ladder[lid] = value;
  workgroupBarrier();
  for (var reach = 1u; reach < 256u; reach = reach * 2u) {
    var lower = 0u;
    if (lid >= reach) { lower = ladder[lid - reach]; }
    workgroupBarrier();
    ladder[lid] += lower;
    workgroupBarrier();
  }
  let total = ladder[255];
  let before = ladder[lid] - value;
  workgroupBarrier();
  return vec2<u32>(before, total);
}
