"""splat_camera: a look-at camera described by 23 floats."""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple.ir.attributes import Attr
from stipple.ir.graph import Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.splat import attributes as at

META_LENGTH = 23

ATTRS = (
    *at.SIZE,
    at.TILE,
    Attr("radius_scale", "float", "factor on every sigma", default=1.0, minimum=0.0, open_minimum=True),
    at.CUTOFF,
    at.MAX_STEPS,
    at.TRANSMITTANCE,
    at.MAX_ENTRIES,
)
META_PARAM_NAMES = tuple(a.name for a in ATTRS)
"""Names of meta[15:23], which must repeat the values that the graph was built with."""


class CameraOperands(NamedTuple):
    """Operands of splat_camera."""

    meta: Any


class CameraResults(NamedTuple):
    """viewmat [4, 4] world to camera, intrinsics [3, 3], background [3], clip [2] = (near, far)."""

    viewmat: Any
    intrinsics: Any
    background: Any
    clip: Any


class CameraBackwardOperands(NamedTuple):
    """Operands of splat_camera_backward."""

    meta: Any
    v_viewmat: Any
    v_intrinsics: Any
    v_background: Any


class CameraBackwardResults(NamedTuple):
    """The gradient of the meta."""

    v_meta: Any


_META = Operand("meta", str(META_LENGTH), finite=True)


def _infer(c: InferContext) -> CameraResults:
    f = c.float_dtype
    return CameraResults(c.result("4 4", f), c.result("3 3", f), c.result("3", f), c.result("2", f))


def _vjp(g: VjpContext) -> list[Value]:
    cotangents = (g.cotangent(n) for n in ("viewmat", "intrinsics", "background"))
    operands = CameraBackwardOperands(g.operands.meta, *cotangents)
    return [g.graph.add("splat_camera_backward", operands, g.attrs).outputs[0]]


register(
    OpDef(
        "splat_camera",
        (_META,),
        CameraResults._fields,
        _infer,
        "Camera of a look-at meta: position 3, target 3, up 3, fov_y in degrees, near, far, background 3, "
        "then the render parameters, which must equal the attributes.",
        attrs=ATTRS,
        vjp=_vjp,
        differentiable=frozenset({"viewmat", "intrinsics", "background"}),
        operand_record=CameraOperands,
        result_record=CameraResults,
    )
)
register(
    OpDef(
        "splat_camera_backward",
        (_META, Operand("v_viewmat", "4 4"), Operand("v_intrinsics", "3 3"), Operand("v_background", "3")),
        CameraBackwardResults._fields,
        lambda c: [c.operands.meta],
        "Gradient of splat_camera: position, target, up, fov_y and background; zeros elsewhere.",
        attrs=ATTRS,
        operand_record=CameraBackwardOperands,
        result_record=CameraBackwardResults,
    )
)


def splat_camera(meta: Value, **attrs: Any) -> CameraResults:
    """The camera that a 23-float look-at ``meta`` describes (layout: see the op's documentation).

    The image is upright: ``up`` points to the top edge. Pixels are square, the principal point is the centre.
    ``attrs`` are the render parameters that meta[15:] must repeat.
    """
    results: CameraResults = meta.graph.add("splat_camera", [meta], attrs).results
    return results
