"""What operands must be: by the host where it knows their values, else by the device (faults.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stipple.backends.gpu.buffers import GpuBuffer
from stipple.backends.gpu.constants import MOST_CHANNELS
from stipple.backends.gpu.device import Gpu, shader_text
from stipple.backends.gpu.faults import FUNCTIONS, Explain
from stipple.backends.gpu.kernels import Params
from stipple.backends.host import camera_check, checks
from stipple.errors import DeviceError
from stipple.ir.graph import Node

Array = np.ndarray
Operands = Sequence[GpuBuffer]


def check(gpu: Gpu, node: Node, x: Operands, dims: Mapping[str, int]) -> None:
    """Raise InputError for operands that the host knows and the op does not accept; have the device look at others."""
    checks.check_shapes(node, [b.shape for b in x], dims)
    for i, buffer in enumerate(x):
        operand = node.definition.operand(i)
        if operand.finite:
            _check_finite(gpu, f"{node.op}: {operand.name}", buffer)
    rule = _RULES.get(node.op)
    if rule is not None:
        rule(gpu, node, x)


def _look(
    gpu: Gpu,
    name: str,
    body: str,
    reads: Mapping[str, GpuBuffer],
    count: int,
    params: Params,
    words: int,
    explain: Explain,
    functions: str = "",
) -> None:
    """Have the device look at ``count`` elements. The body may call ``fault(word, value)`` for words below ``words``,
    each of which keeps its smallest value; ``explain`` tells what they mean."""
    if not count:
        return
    found = gpu.faults.expect(words, explain)
    writes = {"board": found.board, "spoiled": gpu.spoiled()}
    functions = shader_text("special") + FUNCTIONS + functions
    gpu.each(
        f"check_{name}", body, reads, writes, count, {**params, "board_start": found.start}, functions, always=True
    )


_FINITE = """
  let bits = bitcast<u32>(x[i]);
  if (is_nan(x[i])) { fault(0u, i32(i)); }
  else if (bits == INFINITY) { fault(1u, i32(i)); }
  else if (bits == (SIGN | INFINITY)) { fault(2u, i32(i)); }"""
_NOT_FINITE = (np.nan, np.inf, -np.inf)


def _check_finite(gpu: Gpu, what: str, buffer: GpuBuffer) -> None:
    if buffer.host is not None:
        checks.check_finite(what, buffer.host)
        return

    def explain(words: Array) -> str:
        kind = int(words.argmin())
        index = np.unravel_index(int(words[kind]), buffer.shape)
        return checks.finite_message(what, [int(n) for n in index], _NOT_FINITE[kind])

    _look(gpu, "finite", _FINITE, {"x": buffer}, buffer.size, {}, 3, explain)


_IDS = "  let id = ids[i];\n  if (id < 0 || id >= i32(P.rows)) { fault(0u, id); fault(1u, ~id); }"


def _check_ids(gpu: Gpu, node: Node, x: Operands) -> None:
    rows, ids = x[0].shape[0], x[1]
    if ids.host is not None:
        checks.check_ids(node.op, ids.host, rows)
        return

    def explain(words: Array) -> str:
        return checks.ids_message(node.op, rows, int(words[0]), int(~words[1]))

    _look(gpu, "ids", _IDS, {"ids": ids}, ids.size, {"rows": rows}, 2, explain)


def _check_step(gpu: Gpu, node: Node, x: Operands) -> None:
    step = x[5]
    if step.host is not None:
        checks.check_step(node.op, float(step.host))
        return

    def explain(words: Array) -> str:
        return checks.step_message(node.op, float(words.view(np.float32)[0]))

    body = "  if (!(step[i] >= 1.0)) { fault(0u, bitcast<i32>(step[i])); }"
    _look(gpu, "step", body, {"step": step}, 1, {}, 1, explain)


_RANGES = """
  let start = ranges[2u * i]; let end = ranges[2u * i + 1u];
  if (start < 0 || start > end || end > i32(P.entries)) { fault(0u, i32(i)); }"""


def _check_rasterizer(gpu: Gpu, node: Node, x: Operands) -> None:
    """Lists that this device has made are right."""
    _check_channels(gpu, node, x[2])
    gaussians, ranges, ids = x[0].shape[0], x[6], x[7]
    if ids.host is not None:
        checks.check_sorted_ids(ids.host, gaussians)
    elif "lists" not in ids.notes:
        message = checks.sorted_ids_message(gaussians)
        _look(gpu, "ids", _IDS, {"ids": ids}, ids.size, {"rows": gaussians}, 2, lambda words: message)
    if ranges.host is not None:
        checks.check_tile_ranges(ranges.host, ids.size)
    elif ranges.notes.get("entries") != ids.size:
        told = checks.tile_ranges_message(ids.size)
        _look(gpu, "ranges", _RANGES, {"ranges": ranges}, ranges.shape[0], {"entries": ids.size}, 1, lambda words: told)


_CAMERA = """
  var good = close(viewmat[12], 0.0) && close(viewmat[13], 0.0) && close(viewmat[14], 0.0) && close(viewmat[15], 1.0);
  good = good && close(intrinsics[1], 0.0) && close(intrinsics[3], 0.0) && close(intrinsics[6], 0.0);
  good = good && close(intrinsics[7], 0.0) && close(intrinsics[8], 1.0);
  good = good && intrinsics[0] > 0.0 && intrinsics[4] > 0.0 && clip[0] > 0.0 && clip[0] < clip[1];
  if (!good) {
    fault(0u, 0);
    for (var k = 0u; k < 16u; k++) { tell(1u + k, viewmat[k]); }
    for (var k = 0u; k < 9u; k++) { tell(17u + k, intrinsics[k]); }
    for (var k = 0u; k < 2u; k++) { tell(26u + k, clip[k]); }
  }"""
_CAMERA_FUNCTIONS = """
fn close(x: f32, wanted: f32) -> bool { return abs(x - wanted) <= 1e-8 + 1e-5 * wanted; }  // as NumPy's allclose
fn tell(word: u32, x: f32) { atomicStore(&board[P.board_start + word], bitcast<i32>(x)); }
"""


def _check_projection(gpu: Gpu, node: Node, x: Operands) -> None:
    _check_channels(gpu, node, x[4])
    viewmat, intrinsics, clip = x[5:8]
    if viewmat.host is not None and intrinsics.host is not None and clip.host is not None:
        camera_check.check_camera(viewmat.host, intrinsics.host, clip.host)
        return

    def explain(words: Array) -> str:
        told = np.split(words[1:].view(np.float32), [16, 25])
        message = camera_check.camera_message(told[0].reshape(4, 4), told[1].reshape(3, 3), told[2])
        return message or f"{node.op}: this is no camera: {[part.tolist() for part in told]}"

    reads = {"viewmat": viewmat, "intrinsics": intrinsics, "clip": clip}
    _look(gpu, "camera", _CAMERA, reads, 1, {}, 28, explain, _CAMERA_FUNCTIONS)


def _check_channels(gpu: Gpu, node: Node, colors: GpuBuffer) -> None:
    channels = colors.shape[-1]
    if channels > MOST_CHANNELS:
        raise DeviceError(
            f"{gpu.info.name} ({gpu.info.api}): {node.op}: colors have {channels} channels, the GPU draws at most "
            f"{MOST_CHANNELS} at once; render them in parts, or go on with --device cpu"
        )


_RULES: Mapping[str, Callable[[Gpu, Node, Operands], None]] = {
    "gather": _check_ids,
    "scatter_add": _check_ids,
    "adam": _check_step,
    "adam_visible": _check_step,
    "splat_prepare": _check_projection,
    "splat_render": _check_projection,
    "splat_render_backward": _check_projection,
    "splat_rasterize": _check_rasterizer,
    "splat_rasterize_backward": _check_rasterizer,
}
