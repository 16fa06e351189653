"""Where each Gaussian's entries are in the tile lists: the gradients of all of its entries are summed together.

splat_bin knows this; a pass over graphs hands it, as values of the graph, to the gradients of rasterization. For lists
from elsewhere it is found by a sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.kernels import Kernel
from stipple.backends.gpu.sorting import LOWER_BOUND, sort_pairs
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Node, Value
from stipple.ir.passes.rewrite import PassResult, Rewriter, rebuild


class Lists(NamedTuple):
    """In a list by Gaussian, the entries of rank r (Gaussian ``order[r]``) are ``offsets[r]`` to ``offsets[r + 1]``;
    ``emission`` is the position of each sorted entry in that list. ``max_entries`` bounds the entries of one
    Gaussian."""

    order: GpuBuffer
    offsets: GpuBuffer
    emission: GpuBuffer
    max_entries: int


_ENTRIES = Kernel("entries", "  keys[i] = clamp(ids(i), 0, i32(P.gaussians) - 1); places[i] = i32(i);")
_INVERT = Kernel("invert", "  out[u32(places(i))] = i32(i);")
_RANGES = Kernel("entry_ranges", "  out[i] = lower_bound(i32(i), P.total);", LOWER_BOUND)
_IDENTITY = Kernel("identity", "  out[i] = i32(i);")


def find_lists(gpu: Gpu, sorted_ids: GpuBuffer, count: int) -> Lists:
    """The lists of ``count`` Gaussians, by a stable sort of the entries."""
    total = sorted_ids.size
    keys, places, order = (gpu.memory.allocate((n,), DType.I32) for n in (total, total, count))
    gpu.each(_ENTRIES, {"ids": sorted_ids}, {"keys": keys, "places": places}, total, {"gaussians": count})
    keys, places = sort_pairs(gpu, keys, places, max(1, (max(count, 2) - 1).bit_length()))
    emission, offsets = gpu.memory.allocate((total,), DType.I32), gpu.memory.allocate((count + 1,), DType.I32)
    gpu.each(_INVERT, {"places": places}, {"out": emission}, total)
    gpu.each(_RANGES, {"keys": keys}, {"out": offsets}, count + 1, {"total": total})
    gpu.each(_IDENTITY, {}, {"out": order}, count)
    return Lists(order, offsets, emission, total)


class PassLists:
    """Replace splat_bin, and the gradients of rasterization that use its lists, by ops that pass on these positions."""

    name = "pass-lists"

    def run(self, graph: Graph) -> PassResult:
        bins = {
            node.operands.sorted_ids.node.id
            for node in graph.nodes
            if node.op == "splat_rasterize_backward" and node.operands.sorted_ids.node.op == "splat_bin"
        }
        if not bins:
            return PassResult(graph, 0)
        listed: dict[int, Node] = {}

        def visit(rw: Rewriter, node: Node) -> Sequence[Value] | None:
            if node.id in bins:
                listed[node.id] = rw.new.add("splat_bin_listed", rw.operands(node), rw.attrs(node))
                return listed[node.id].outputs[:2]
            maker = listed.get(node.operands.sorted_ids.node.id) if node.op == "splat_rasterize_backward" else None
            if maker is None:
                return None
            lists = maker.outputs[2:]
            return rw.new.add("splat_rasterize_backward_listed", [*rw.operands(node), *lists], rw.attrs(node)).outputs

        return PassResult(rebuild(graph, visit), len(bins), f"lists of {len(bins)} splat_bin")
