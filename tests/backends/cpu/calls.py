"""The CPU's functions of ops called alone, with results in new arrays, full of NaN or of a number that no kernel
writes: what is left unwritten shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stipple.backends.cpu import binning, image, project, rasterize, sh, ssim
from stipple.backends.cpu.threads import Threads
from stipple.ir.dtype import DType
from stipple.ir.op import lookup
from stipple.ir.shape import Dim, Shape, TensorType

UNWRITTEN = -77


def _called(op: str, function: Callable[..., Any]) -> Callable[..., Any]:
    definition = lookup(op)

    def call(x: Any, attrs: Mapping[str, Any], threads: Threads, used: Any = None) -> Any:
        types = [TensorType(Shape(np.shape(a)), DType.of(np.asarray(a).dtype)) for a in x]
        known = {a.name for a in definition.attrs}
        given = definition.normalise_attrs({n: v for n, v in attrs.items() if n in known})
        results = definition.infer_types(types, given, Dim.of)
        used = [True] * len(results) if used is None else used
        out = definition.result_record(*(_unwritten(t) if u else None for t, u in zip(results, used, strict=True)))
        returned = function(x, attrs, threads, out)
        return out if returned is None else returned

    return call


def _unwritten(type_: TensorType) -> np.ndarray | None:
    if type_.shape.symbols:
        return None
    return np.full(type_.shape.resolve({}), np.nan if type_.dtype is DType.F32 else UNWRITTEN, type_.dtype.numpy)


rasterized = _called("splat_rasterize", rasterize.rasterize)
rasterize_backward = _called("splat_rasterize_backward", rasterize.rasterize_backward)
projected = _called("splat_project", project.project)
project_backward = _called("splat_project_backward", project.project_backward)
sh_colors = _called("splat_sh", sh.sh)
sh_backward = _called("splat_sh_backward", sh.sh_backward)
binned = _called("splat_bin", binning.bin_tiles)
l1 = _called("image_l1", image.l1)
l1_backward = _called("image_l1_backward", image.l1_backward)
ssim_of = _called("image_ssim", ssim.ssim)
ssim_backward = _called("image_ssim_backward", ssim.ssim_backward)
l1_ssim = _called("image_l1_ssim", ssim.l1_ssim)
l1_ssim_backward = _called("image_l1_ssim_backward", ssim.l1_ssim_backward)
