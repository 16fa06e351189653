"""Image losses and their gradients. Images are [H, W, C] in [0, 1]."""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple.ir.attributes import Attr
from stipple.ir.graph import Value
from stipple.ir.op import OpDef, Operand, VjpContext, register
from stipple.ir.ops.structure import one
from stipple.ir.shape import Shape, TensorType


class LossOperands(NamedTuple):
    """Two images [H, W, C] in [0, 1]."""

    image: Any
    target: Any


class LossBackwardOperands(NamedTuple):
    """Two images and the gradient of their loss."""

    image: Any
    target: Any
    v_out: Any


class LossResults(NamedTuple):
    """A scalar."""

    loss: Any


class LossGradients(NamedTuple):
    """Gradients of the two images."""

    v_image: Any
    v_target: Any


class L1SsimResults(NamedTuple):
    """l1 and ssim, scalars; slopes [3, H, W, C], which their gradient needs."""

    l1: Any
    ssim: Any
    slopes: Any


class L1SsimBackwardOperands(NamedTuple):
    """Two images, the slopes of image_l1_ssim, and the gradients of its losses."""

    image: Any
    target: Any
    slopes: Any
    v_l1: Any
    v_ssim: Any


_PAIR = (Operand("image", "H W C"), Operand("target", "H W C"))
_PADDING = Attr(
    "padding",
    "str",
    "same: windows extend beyond the border, into zeros; valid: they do not",
    default="same",
    choices=("same", "valid"),
)


def _loss_vjp(g: VjpContext) -> list[Value]:
    node = g.graph.add(f"{g.node.op}_backward", [*g.inputs, g.cotangent()], g.attrs)
    return list(node.outputs)


for _name, _doc, _attrs in (
    ("image_l1", "Mean absolute difference of two images, a scalar; gradient 0 where they are equal.", ()),
    (
        "image_ssim",
        "Mean structural similarity of two images over an 11x11 Gaussian window (sigma 1.5), a scalar.",
        (_PADDING,),
    ),
):
    register(
        OpDef(
            _name,
            _PAIR,
            LossResults._fields,
            lambda c: [TensorType(Shape(), c.float_dtype)],
            _doc,
            attrs=_attrs,
            vjp=_loss_vjp,
            operand_record=LossOperands,
            result_record=LossResults,
        )
    )
    register(
        OpDef(
            f"{_name}_backward",
            (*_PAIR, Operand("v_out", "")),
            LossGradients._fields,
            lambda c: [c.result("H W C", c.float_dtype)] * 2,
            f"Gradients of {_name}.",
            attrs=_attrs,
            operand_record=LossBackwardOperands,
            result_record=LossGradients,
        )
    )


def _both_vjp(g: VjpContext) -> list[Value]:
    operands = [*g.operands, g.results.slopes, g.cotangent("l1"), g.cotangent("ssim")]
    return list(g.graph.add("image_l1_ssim_backward", operands, g.attrs).outputs)


register(
    OpDef(
        "image_l1_ssim",
        _PAIR,
        L1SsimResults._fields,
        lambda c: [TensorType(Shape(), c.float_dtype)] * 2 + [c.result("3 H W C", c.float_dtype)],
        "image_l1 and image_ssim in one pass. slopes keeps, for the gradient of image, the derivatives of the mean "
        "SSIM with respect to each window's mean, mean square and mean product.",
        attrs=(_PADDING,),
        vjp=_both_vjp,
        differentiable=frozenset({"l1", "ssim"}),
        operand_record=LossOperands,
        result_record=L1SsimResults,
    )
)
register(
    OpDef(
        "image_l1_ssim_backward",
        (*_PAIR, Operand("slopes", "3 H W C"), Operand("v_l1", ""), Operand("v_ssim", "")),
        LossGradients._fields,
        lambda c: [c.result("H W C", c.float_dtype)] * 2,
        "Gradients of image_l1_ssim.",
        attrs=(_PADDING,),
        operand_record=L1SsimBackwardOperands,
        result_record=LossGradients,
    )
)


def image_l1(image: Value, target: Value) -> Value:
    """Mean absolute difference of two [H, W, C] images: a scalar."""
    return one("image_l1", [image, target])


def image_ssim(image: Value, target: Value, padding: str = "same") -> Value:
    """Mean SSIM of two [H, W, C] images in [0, 1]: a scalar, 1 where they are equal.

    Window 11x11, Gaussian with sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, each channel on its own (Wang et al.,
    2004, with the window and the zero padding that 3DGS trains with). ``padding="valid"`` keeps only windows
    that are entirely inside the image, which must then be at least 11x11.
    """
    return one("image_ssim", [image, target], padding=padding)


class L1Ssim(NamedTuple):
    """The two losses of image_l1_ssim, scalars."""

    l1: Value
    ssim: Value


def image_l1_ssim(image: Value, target: Value, padding: str = "same") -> L1Ssim:
    """:func:`image_l1` and :func:`image_ssim` of two images at once: one pass, and half the work for gradients."""
    operands = LossOperands(image, target)
    results: L1SsimResults = image.graph.add("image_l1_ssim", operands, {"padding": padding}).results
    return L1Ssim(results.l1, results.ssim)
