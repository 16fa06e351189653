"""Compile-time constants of the splat kernels."""

from __future__ import annotations

from collections.abc import Mapping

from stipple import numerics as nx
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import CONIC_LENGTH

Attrs = Mapping[str, AttrValue]

MAX_FEATURES = 512
"""Each thread of the forward holds the features of a pixel, in the 8192 bytes that WebGPU guarantees."""


def declared(**values: bool | int | float) -> str:
    """Declarations of constants: bool, u32 and f32."""
    lines = []
    for name, value in values.items():
        if isinstance(value, bool):
            lines.append(f"const {name}: bool = {str(value).lower()};\n")
        elif isinstance(value, int):
            lines.append(f"const {name}: u32 = {value}u;\n")
        else:
            lines.append(f"const {name}: f32 = {value};\n")
    return "".join(lines)


def footprint_constants(attrs: Attrs) -> str:
    """The representation of footprints, and their maximum extent."""
    return declared(
        RAY=attrs["projection"] == "ray",
        CONIC=CONIC_LENGTH[attrs["projection"]],
        EXTENT=0.5 * nx.EXTENT_SIGMA**2,
        MAX_ALPHA=nx.MAX_ALPHA,
    )


def camera_constants(attrs: Attrs, coefficients: int) -> str:
    """The camera model, with so many coefficients of distortion, and how Gaussians are projected."""
    rational = attrs["camera_model"] == "pinhole" and coefficients > 0
    return footprint_constants(attrs) + declared(
        ORTHO=attrs["camera_model"] == "ortho",
        FISHEYE=attrs["camera_model"] == "fisheye",
        RATIONAL=rational,
        ANTIALIASED=bool(attrs["antialiased"]),
        MAX_RADIUS=float(nx.MAX_RADIUS),
        MIN_COMPENSATION=nx.MIN_COMPENSATION,
        JACOBIAN_MARGIN=nx.DISTORTED_JACOBIAN_MARGIN if rational else nx.JACOBIAN_MARGIN,
    )
