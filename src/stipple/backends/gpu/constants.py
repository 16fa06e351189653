"""What the splat kernels know when they are compiled."""

from __future__ import annotations

from collections.abc import Mapping

from stipple import numerics as nx
from stipple.ir.attributes import AttrValue
from stipple.ir.ops.splat import CONIC_LENGTH, PASS_THROUGH

Attrs = Mapping[str, AttrValue]

MAX_CHANNELS = 256
"""Each thread holds a colour, and in gradients two, of the 8192 bytes that WebGPU promises it."""


def constants(attrs: Attrs, channels: int = 0) -> str:
    """Declarations of attributes, of the channels of a colour (where a kernel knows colours), and of the numerics."""
    ray, degree = attrs["projection"] == "ray", attrs.get("sh_degree", PASS_THROUGH)
    numbers = {
        "RAY": (str(ray).lower(), "bool"),
        "ANTIALIASED": (str(bool(attrs.get("antialiased", False))).lower(), "bool"),
        "CONIC": (f"{CONIC_LENGTH[attrs['projection']]}u", "u32"),
        "CHANNELS": (f"{channels}u", "u32"),
        "COLOR": (f"{max(channels, 1)}u", "u32"),  # an array has an element at least
        "DEGREE": (str(degree), "i32"),
        "BASIS": (f"{nx.sh_coeff_count(max(degree, 0))}u", "u32"),
        "EXTENT": (f"{0.5 * nx.EXTENT_SIGMA**2}", "f32"),
        "MAX_ALPHA": (f"{nx.MAX_ALPHA}", "f32"),
        "MAX_RADIUS": (f"{float(nx.MAX_RADIUS)}", "f32"),
        "MIN_COMPENSATION": (f"{nx.MIN_COMPENSATION}", "f32"),
        "JACOBIAN_MARGIN": (f"{nx.JACOBIAN_MARGIN}", "f32"),
        "SH_OFFSET": (f"{nx.SH_OFFSET}", "f32"),
    }
    return "".join(f"const {name}: {kind} = {value};\n" for name, (value, kind) in numbers.items())
