"""Checks of operands: by the host if it knows their values, else by the device (faults.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import MAX_FEATURES
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.faults import FUNCTIONS, Explain
from stipple.backends.gpu.kernels import Arrays, Kernel, Params, shader_text
from stipple.backends.host import camera_check, checks
from stipple.errors import DeviceError
from stipple.ir.graph import Node

Array = np.ndarray
Operands = Sequence[GpuBuffer]


def check(gpu: Gpu, node: Node, x: Operands, dims: Mapping[str, int]) -> None:
    """Raise InputError for invalid operands whose values the host knows; have the device check the others."""
    checks.check_shapes(node, [b.shape for b in x], dims)
    for i, buffer in enumerate(x):
        operand = node.definition.operand(i)
        if operand.finite:
            _check_finite(gpu, f"{node.op}: {operand.name}", buffer)
    rule = _RULES.get(node.op)
    if rule is not None:
        rule(gpu, node, node.definition.named_operands(x))


class _Rule(NamedTuple):
    """A check of each element by the device. The body may call ``fault(word, value)`` for words below
    ``words``, each of which keeps its smallest value."""

    name: str
    body: str
    words: int
    functions: str = ""


def _look(gpu: Gpu, rule: _Rule, reads: Arrays, count: int, explain: Explain, params: Params | None = None) -> None:
    """Have the device check ``count`` elements; ``explain`` turns its words into a message."""
    if not count:
        return
    check = gpu.runs.faults.expect(rule.words, explain)
    writes = {"board": check.board, "unusable": gpu.runs.unusable()}
    functions = shader_text("special") + FUNCTIONS + rule.functions
    kernel = Kernel(f"check_{rule.name}", rule.body, functions, always=True)
    gpu.each(kernel, reads, writes, count, {**(params or {}), "board_start": check.start})


_FINITE = _Rule(
    "finite",
    """
  let bits = bitcast<u32>(x(i));
  if (is_nan(x(i))) { fault(0u, i32(i)); }
  else if (bits == INFINITY) { fault(1u, i32(i)); }
  else if (bits == (SIGN | INFINITY)) { fault(2u, i32(i)); }""",
    words=3,
)
_NOT_FINITE = (np.nan, np.inf, -np.inf)


def _check_finite(gpu: Gpu, what: str, buffer: GpuBuffer) -> None:
    if buffer.host is not None:
        checks.check_finite(what, buffer.host)
        return

    def explain(words: Array) -> str:
        kind = int(words.argmin())
        index = np.unravel_index(int(words[kind]), buffer.shape)
        return checks.finite_message(what, [int(n) for n in index], _NOT_FINITE[kind])

    _look(gpu, _FINITE, {"x": buffer}, buffer.size, explain)


_IDS = _Rule(
    "ids", "  let id = ids(i);\n  if (id < 0 || id >= i32(P.rows)) { fault(0u, id); fault(1u, ~id); }", words=2
)


def _check_ids(gpu: Gpu, node: Node, x: Any) -> None:
    rows, ids = x[0].shape[0], x.ids  # of gather's x, or scatter_add's base
    if ids.host is not None:
        checks.check_ids(node.op, ids.host, rows)
        return

    def explain(words: Array) -> str:
        return checks.ids_message(node.op, rows, int(words[0]), int(~words[1]))

    _look(gpu, _IDS, {"ids": ids}, ids.size, explain, {"rows": rows})


_STEP = _Rule("step", "  if (!(count_from_1(i) >= 1.0)) { fault(0u, bitcast<i32>(count_from_1(i))); }", words=1)


def _check_step(gpu: Gpu, node: Node, x: Any) -> None:
    step = x.step
    if step.host is not None:
        checks.check_step(node.op, float(step.host))
        return

    def explain(words: Array) -> str:
        return checks.step_message(node.op, float(words.view(np.float32)[0]))

    _look(gpu, _STEP, {"count_from_1": step}, 1, explain)


_RANGES = _Rule(
    "ranges",
    """
  let start = ranges(2u * i); let end = ranges(2u * i + 1u);
  if (start < 0 || start > end || end > i32(P.entries)) { fault(0u, i32(i)); }""",
    words=1,
)


_BINNING = ("splat_bin", "splat_bin_listed")


def _check_rasterizer(gpu: Gpu, node: Node, x: Any) -> None:
    """Lists that this device has computed for the same number of Gaussians are not checked."""
    _check_features(gpu, node, x.features)
    gaussians, ranges, ids = x.opacities.size, x.tile_ranges, x.sorted_ids
    source = node.operands.sorted_ids.node
    listed = source.op in _BINNING and source.operands.depths.shape == node.operands.opacities.shape
    if ids.host is not None:
        checks.check_sorted_ids(ids.host, gaussians)
    elif not listed:
        ids_message = checks.sorted_ids_message(gaussians)
        _look(gpu, _IDS, {"ids": ids}, ids.size, lambda words: ids_message, {"rows": gaussians})
    if ranges.host is not None:
        checks.check_tile_ranges(ranges.host, ids.size)
    elif not listed or node.operands.tile_ranges.node is not source:
        message = checks.tile_ranges_message(ids.size)
        _look(gpu, _RANGES, {"ranges": ranges}, ranges.shape[0], lambda words: message, {"entries": ids.size})


_CAMERA = _Rule(
    "camera",
    """
  var good = close(viewmat(12u), 0.0) && close(viewmat(13u), 0.0) && close(viewmat(14u), 0.0);
  good = good && close(viewmat(15u), 1.0) && close(intrinsics(1u), 0.0) && close(intrinsics(3u), 0.0);
  good = good && close(intrinsics(6u), 0.0) && close(intrinsics(7u), 0.0) && close(intrinsics(8u), 1.0);
  good = good && intrinsics(0u) > 0.0 && intrinsics(4u) > 0.0 && clip(0u) > 0.0 && clip(0u) < clip(1u);
  if (!good) {
    fault(0u, 0);
    for (var k = 0u; k < 16u; k++) { report(1u + k, viewmat(k)); }
    for (var k = 0u; k < 9u; k++) { report(17u + k, intrinsics(k)); }
    for (var k = 0u; k < 2u; k++) { report(26u + k, clip(k)); }
  }""",
    words=28,
    functions="""
fn close(x: f32, expected: f32) -> bool { return abs(x - expected) <= 1e-8 + 1e-5 * expected; }  // as NumPy's allclose
fn report(word: u32, x: f32) { atomicStore(&board[P.board_start + word], bitcast<i32>(x)); }
""",
)


def _check_camera(gpu: Gpu, node: Node, x: Any) -> None:
    held = (x.viewmat.host, x.intrinsics.host, x.clip.host)
    if all(array is not None for array in held):
        camera_check.check_camera(*held)
        return

    def explain(words: Array) -> str:
        parts = np.split(words[1:].view(np.float32), [16, 25])
        message = camera_check.camera_message(parts[0].reshape(4, 4), parts[1].reshape(3, 3), parts[2])
        return message or f"{node.op}: not a valid camera: {[part.tolist() for part in parts]}"

    reads = {"viewmat": x.viewmat, "intrinsics": x.intrinsics, "clip": x.clip}
    _look(gpu, _CAMERA, reads, 1, explain)


def _check_features(gpu: Gpu, node: Node, features: GpuBuffer) -> None:
    count = features.shape[-1]
    if count > MAX_FEATURES:
        raise DeviceError(
            f"{gpu.info.name} ({gpu.info.api}): {node.op}: each Gaussian has {count} features, the GPU draws at most "
            f"{MAX_FEATURES} at once; render them in parts, or continue with --device cpu"
        )


_RULES: Mapping[str, Callable[[Gpu, Node, Any], None]] = {
    "gather": _check_ids,
    "scatter_add": _check_ids,
    "adam": _check_step,
    "adam_visible": _check_step,
    "splat_project": _check_camera,
    "splat_project_backward": _check_camera,
    "splat_sh": lambda gpu, node, x: _check_features(gpu, node, x.sh),
    "splat_sh_backward": lambda gpu, node, x: _check_features(gpu, node, x.sh),
    "splat_rasterize": _check_rasterizer,
    "splat_rasterize_backward": _check_rasterizer,
    "splat_rasterize_backward_listed": _check_rasterizer,
}
