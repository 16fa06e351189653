"""splat_sh: colours from spherical harmonics (SH), with the signs and layout of 3DGS."""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple import numerics as nx
from stipple.ir.attributes import Attr
from stipple.ir.graph import Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register

ATTRS = (Attr("sh_degree", "int", "degree that is evaluated", required=True, minimum=0, maximum=nx.MAX_SH_DEGREE),)


class ShOperands(NamedTuple):
    """Operands of splat_sh; see :func:`splat_sh`."""

    means: Any
    sh: Any
    viewmat: Any
    radii: Any


class ShResults(NamedTuple):
    """colors [N, C]."""

    colors: Any


class ShBackwardOperands(NamedTuple):
    """Operands of splat_sh_backward."""

    means: Any
    sh: Any
    viewmat: Any
    radii: Any
    v_colors: Any


class ShBackwardResults(NamedTuple):
    """Gradients of the operands of splat_sh."""

    v_means: Any
    v_sh: Any
    v_viewmat: Any


_OPERANDS = (
    Operand("means", "N 3"),
    Operand("sh", "N K C"),
    Operand("viewmat", "4 4", finite=True),
    Operand("radii", "N 2", "i32"),
)


def _check_coefficients(c: InferContext) -> None:
    needed, given = nx.sh_coeff_count(c.attrs["sh_degree"]), c.dims["K"].value
    if given is None or given < needed:
        c.fail(f"sh: sh_degree {c.attrs['sh_degree']} needs at least {needed} coefficients, got {c.operands.sh}")


def _infer(c: InferContext) -> ShResults:
    _check_coefficients(c)
    return ShResults(c.result("N C", c.float_dtype))


def _vjp(g: VjpContext) -> ShOperands:
    operands = ShBackwardOperands._make([*g.operands, g.cotangent("colors")])
    v: ShBackwardResults = g.graph.add("splat_sh_backward", operands, g.attrs).results
    return ShOperands(means=v.v_means, sh=v.v_sh, viewmat=v.v_viewmat, radii=None)


register(
    OpDef(
        "splat_sh",
        _OPERANDS,
        ShResults._fields,
        _infer,
        "Colours of visible Gaussians: SH + 0.5, clamped at 0; zeros where radii are 0. NaN and infinity are kept.",
        attrs=ATTRS,
        vjp=_vjp,
        operand_record=ShOperands,
        result_record=ShResults,
    )
)


def _infer_backward(c: InferContext) -> ShBackwardResults:
    _check_coefficients(c)
    x: ShBackwardOperands = c.operands
    return ShBackwardResults(x.means, x.sh, x.viewmat)


register(
    OpDef(
        "splat_sh_backward",
        (*_OPERANDS, Operand("v_colors", "N C")),
        ShBackwardResults._fields,
        _infer_backward,
        "Gradients of splat_sh; zeros for Gaussians that are culled or whose colour is not finite.",
        attrs=ATTRS,
        operand_record=ShBackwardOperands,
        result_record=ShBackwardResults,
    )
)


def splat_sh(means: Value, sh: Value, viewmat: Value, radii: Value, sh_degree: int) -> Value:
    """Colours [N, C] of visible Gaussians: max(SH + 0.5, 0), zeros where ``radii`` [N, 2] are 0.

    means [N, 3]; sh [N, K, C] with K >= (sh_degree + 1)^2; viewmat [4, 4]. The viewing direction is from the camera's
    centre, whatever the camera model.
    """
    node = means.graph.add("splat_sh", ShOperands(means, sh, viewmat, radii), {"sh_degree": sh_degree})
    return node.outputs[0]
