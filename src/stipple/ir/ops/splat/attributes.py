"""Attributes that the splat ops share, and the lengths that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stipple import numerics as nx
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.op import InferContext, Operand
from stipple.ir.shape import Dim

PASS_THROUGH = -1
"""``sh_degree`` of colours that are not SH and are used as they are."""

CONIC_LENGTH: Mapping[str, int] = {"ewa": 3, "ray": 8}
"""Numbers that describe a footprint, by ``projection``."""

MAX_TILE_SIZE = 1024

SIZE = (
    Attr("width", "int", "image width in pixels", required=True, minimum=1, maximum=1 << 20),
    Attr("height", "int", "image height in pixels", required=True, minimum=1, maximum=1 << 20),
)
TILE = Attr("tile_size", "int", "tile edge in pixels", default=nx.TILE_SIZE, minimum=1, maximum=MAX_TILE_SIZE)
CUTOFF = Attr(
    "alpha_cutoff", "float", "smallest alpha that contributes", default=nx.ALPHA_CUTOFF, minimum=0.0, maximum=0.98
)
PROJECTION = Attr(
    "projection", "str", "how a Gaussian's footprint is evaluated", default="ewa", choices=tuple(CONIC_LENGTH)
)
CAMERA_MODEL = Attr(
    "camera_model", "str", "how a camera maps points to pixels", default="pinhole", choices=tuple(nx.DISTORTION_LENGTHS)
)
EPS2D = Attr("eps2d", "float", "variance added to projected covariances (ewa)", default=nx.EPS2D, minimum=0.0)
ANTIALIASED = Attr("antialiased", "bool", "scale opacity to compensate for eps2d (ewa)", default=False)
MAX_ENTRIES = Attr(
    "max_list_entries", "int", "keep only this many tile entries, nearest Gaussians first; 0: all", default=0, minimum=0
)
TRANSMITTANCE = Attr(
    "transmittance_threshold",
    "float",
    "a pixel is finished before its transmittance falls to this value",
    default=nx.TRANSMITTANCE_THRESHOLD,
    minimum=0.0,
    maximum=1.0,
)
MAX_STEPS = Attr(
    "max_splat_steps", "int", "at most this many Gaussians contribute to a pixel; 0: no limit", default=0, minimum=0
)

GAUSSIANS = (
    Operand("means", "N 3"),
    Operand("quats", "N 4"),
    Operand("scales", "N 3"),
    Operand("opacities", "N"),
)
CAMERA = (
    Operand("viewmat", "4 4", finite=True),
    Operand("intrinsics", "3 3", finite=True),
    Operand("distortion", "D", finite=True),
    Operand("clip", "2", finite=True),
)


def select_attrs(op_attrs: tuple[Attr, ...], attrs: Mapping[str, AttrValue]) -> dict[str, Any]:
    """The attributes among ``attrs`` that a schema has."""
    names = {a.name for a in op_attrs}
    return {k: v for k, v in attrs.items() if k in names}


def tile_count(width: int, height: int, tile_size: int) -> int:
    """Tiles that cover an image; the last row and column may be partial."""
    return -(-width // tile_size) * -(-height // tile_size)


def check_camera_model(c: InferContext) -> None:
    """GraphError for options that cannot be combined: distortion, camera model, projection, antialiasing."""
    model, length = c.attrs["camera_model"], c.dims["D"].value
    if length not in nx.DISTORTION_LENGTHS[model]:
        lengths = " or ".join(map(str, nx.DISTORTION_LENGTHS[model]))
        c.fail(f"distortion: expected {lengths} coefficients for camera_model={model!r}, got {c.operands.distortion}")
    if c.attrs["projection"] != "ray":
        return
    if c.attrs["antialiased"]:
        c.fail("antialiased: needs projection='ewa': 'ray' has no low-pass filter")
    if length:
        c.fail("projection='ray' needs a camera without distortion: rays must be affine in the pixel; use 'ewa'")


def conic_length(c: InferContext) -> Dim:
    return Dim.of(CONIC_LENGTH[c.attrs["projection"]])


def check_conics(c: InferContext) -> None:
    """GraphError unless ``conics`` has as many columns as the projection takes."""
    expected = (c.dims["N"], conic_length(c))
    if tuple(c.operands.conics.shape) != expected:
        c.fail(
            f"conics: expected shape [{expected[0]}, {expected[1]}] for projection {c.attrs['projection']!r}, "
            f"got {c.operands.conics.shape}"
        )


def bind_tiles(c: InferContext) -> None:
    """Bind T, the number of tiles."""
    c.dims["T"] = Dim.of(tile_count(c.attrs["width"], c.attrs["height"], c.attrs["tile_size"]))
