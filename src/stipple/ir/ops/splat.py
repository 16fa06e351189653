"""Splat ops: camera, prepare, rasterize, the fused render, and their backwards.

Shapes: N Gaussians, C colour channels, K SH coefficients per channel, E tile entries (known only after
prepare has run), T tiles in row-major order, an image of height x width pixels.

Prepared Gaussians are described by ``means2d`` [N, 2] in pixels and ``conics``, which give the exponent
sigma of a Gaussian at the offset (dx, dy) of a pixel centre from its mean:

* ``projection="ewa"``: conics [N, 3] = a, b, c and sigma = (a dx^2 + c dy^2) / 2 + b dx dy, the local affine
  approximation of Zwicker et al., "EWA Splatting", 2002, as 3DGS uses it.
* ``projection="ray"``: conics [N, 8] = a, b, c, p, q, e, f, g and sigma is the same quadratic divided by
  1 + 2 (p dx + q dy) + e dx^2 + 2 f dx dy + g dy^2: half the squared distance, in the Gaussian's own unit
  frame, between its mean and the pixel's ray. It is exact for any camera-space position; the evaluation is
  that of 3DGUT (Wu et al., "3DGUT: Enabling Distorted Cameras and Secondary Rays in Gaussian Splatting",
  2025), written as a ratio of two quadratics around the projected mean.

Culled Gaussians have radii 0 and zeros everywhere else. The rasterizer skips footprints that are no ellipse
(a <= 0 or a c <= b^2), and means, conics and opacities that are not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stipple import numerics as nx
from stipple.errors import GraphError
from stipple.ir.attributes import Attr, AttrValue
from stipple.ir.dtype import DType
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.shape import Dim, TensorType

if TYPE_CHECKING:
    from stipple.ir.graph import Graph, Node, Value

PASS_THROUGH = -1
"""``sh_degree`` of colours that are not spherical harmonics but go to the image as they are."""

CONIC_LENGTH: Mapping[str, int] = {"ewa": 3, "ray": 8}

META_LENGTH = 23

_SIZE = (
    Attr("width", "int", "image width in pixels", required=True, minimum=1, maximum=1 << 20),
    Attr("height", "int", "image height in pixels", required=True, minimum=1, maximum=1 << 20),
)
MAX_TILE_SIZE = 1024
_TILE = Attr("tile_size", "int", "tile edge in pixels", default=nx.TILE_SIZE, minimum=1, maximum=MAX_TILE_SIZE)
_CUTOFF = Attr(
    "alpha_cutoff", "float", "smallest alpha that counts", default=nx.ALPHA_CUTOFF, minimum=0.0, maximum=0.98
)
_PROJECTION = Attr(
    "projection", "str", "how a Gaussian's footprint is evaluated", default="ewa", choices=("ewa", "ray")
)
_MAX_ENTRIES = Attr(
    "max_list_entries",
    "int",
    "keep only this many tile entries, nearest Gaussians first; 0: all",
    default=0,
    minimum=0,
)
_PREPARE = (
    *_SIZE,
    _TILE,
    _CUTOFF,
    _PROJECTION,
    Attr("sh_degree", "int", "degree of the harmonics; -1: colours as they are", default=PASS_THROUGH,
         minimum=PASS_THROUGH, maximum=nx.MAX_SH_DEGREE),
    Attr("eps2d", "float", "variance added to projected covariances (ewa)", default=nx.EPS2D, minimum=0.0),
    Attr("antialiased", "bool", "scale opacity by what eps2d spreads (ewa)", default=False),
    _MAX_ENTRIES,
)  # fmt: skip
_RASTERIZE = (
    *_SIZE,
    _TILE,
    _CUTOFF,
    _PROJECTION,
    Attr(
        "transmittance_threshold",
        "float",
        "a pixel stops before its transmittance reaches this",
        default=nx.TRANSMITTANCE_THRESHOLD,
        minimum=0.0,
        maximum=1.0,
    ),
    Attr(
        "max_splat_steps",
        "int",
        "at most this many Gaussians contribute to a pixel; 0: no limit",
        default=0,
        minimum=0,
    ),
)
_RENDER = _PREPARE + tuple(a for a in _RASTERIZE if a not in _PREPARE)

_GAUSSIANS = (
    Operand("means", "N 3"),
    Operand("quats", "N 4"),
    Operand("scales", "N 3"),
    Operand("opacities", "N"),
)
_CAMERA = (
    Operand("viewmat", "4 4", finite=True),
    Operand("intrinsics", "3 3", finite=True),
    Operand("clip", "2", finite=True),
)


def select_attrs(op_attrs: tuple[Attr, ...], attrs: Mapping[str, AttrValue]) -> dict[str, AttrValue]:
    """The attributes among ``attrs`` that a schema has."""
    names = {a.name for a in op_attrs}
    return {k: v for k, v in attrs.items() if k in names}


PREPARE_ATTRS, RASTERIZE_ATTRS, RENDER_ATTRS = _PREPARE, _RASTERIZE, _RENDER

# --- camera -----------------------------------------------------------------------------------------------
_META_PARAMS = (
    *_SIZE,
    _TILE,
    Attr("radius_scale", "float", "factor on every sigma", default=1.0, minimum=0.0, open_minimum=True),
    _CUTOFF,
    next(a for a in _RASTERIZE if a.name == "max_splat_steps"),
    next(a for a in _RASTERIZE if a.name == "transmittance_threshold"),
    _MAX_ENTRIES,
)
META_PARAM_NAMES = tuple(a.name for a in _META_PARAMS)
"""Names of meta[15:23], which must repeat what the graph was built with."""


def _vjp_camera(g: VjpContext) -> list[Value]:
    operands = [g.inputs[0], g.cotangent(0), g.cotangent(1), g.cotangent(2)]
    return [g.graph.add("splat_camera_backward", operands, g.attrs).outputs[0]]


register(
    OpDef(
        "splat_camera",
        (Operand("meta", str(META_LENGTH), finite=True),),
        ("viewmat", "intrinsics", "background", "clip"),
        lambda c: [
            c.result("4 4", c.float_dtype),
            c.result("3 3", c.float_dtype),
            c.result("3", c.float_dtype),
            c.result("2", c.float_dtype),
        ],
        "Camera of a look-at meta: position 3, target 3, up 3, fov_y in degrees, near, far, background 3, "
        "then the render parameters, which must equal the attributes.",
        attrs=_META_PARAMS,
        vjp=_vjp_camera,
        differentiable=frozenset({"viewmat", "intrinsics", "background"}),
    )
)
register(
    OpDef(
        "splat_camera_backward",
        (
            Operand("meta", str(META_LENGTH), finite=True),
            Operand("v_viewmat", "4 4"),
            Operand("v_intrinsics", "3 3"),
            Operand("v_background", "3"),
        ),
        ("v_meta",),
        lambda c: [c.types[0]],
        "Gradient of splat_camera: position, target, up, fov_y and background; zeros elsewhere.",
        attrs=_META_PARAMS,
    )
)


# --- prepare ----------------------------------------------------------------------------------------------
def _channels(c: InferContext) -> Dim:
    """Colour channels; checks the colours' shape against sh_degree and the projection's options."""
    if c.attrs["projection"] == "ray" and c.attrs["antialiased"]:
        c.fail("antialiased: needs projection='ewa': a ray is evaluated without a low-pass filter")
    colors = c.types[4].shape
    count, degree = c.dims["N"], c.attrs["sh_degree"]
    if degree == PASS_THROUGH:
        if colors.rank != 2 or colors[0] != count:
            c.fail(f"colors: expected shape [{count}, C] with sh_degree = -1, got {colors}")
        return colors[1]
    if colors.rank != 3 or colors[0] != count:
        c.fail(f"colors: expected shape [{count}, K, C] with sh_degree = {degree}, got {colors}")
    coefficients, needed = colors[1].value, nx.sh_coeff_count(degree)
    if coefficients is None or coefficients < needed:
        c.fail(f"colors: sh_degree {degree} needs at least {needed} coefficients, got {colors}")
    return colors[2]


def _infer_prepare(c: InferContext) -> list[TensorType]:
    f, conic = c.float_dtype, CONIC_LENGTH[c.attrs["projection"]]
    c.dims["C"] = _channels(c)
    c.dims["E"] = c.fresh("E")
    c.dims["T"] = Dim.of(tile_count(c.attrs["width"], c.attrs["height"], c.attrs["tile_size"]))
    return [
        c.result("N 2", f),
        c.result(f"N {conic}", f),
        c.result("N C", f),
        c.result("N", f),
        c.result("N", f),
        c.result("N 2", DType.I32),
        c.result("T 2", DType.I32),
        c.result("E", DType.I32),
    ]


def tile_count(width: int, height: int, tile_size: int) -> int:
    """Tiles that cover an image; the last row and column may be partial."""
    return -(-width // tile_size) * -(-height // tile_size)


def _vjp_prepare(g: VjpContext) -> list[Value | None]:
    node = g.graph.add(
        "splat_prepare_backward",
        [*g.inputs, g.node.result("radii"), *(g.cotangent(i) for i in range(5))],
        g.attrs,
    )
    return [*node.outputs, None]


_PREPARED_FLOATS = ("means2d", "conics", "colors", "opacities", "depths")
register(
    OpDef(
        "splat_prepare",
        (*_GAUSSIANS, Operand("colors"), *_CAMERA),
        (*_PREPARED_FLOATS, "radii", "tile_ranges", "sorted_ids"),
        _infer_prepare,
        "Project, cull, evaluate harmonics, sort by depth (ties by index) and bin into tiles.",
        attrs=_PREPARE,
        vjp=_vjp_prepare,
        differentiable=frozenset(_PREPARED_FLOATS),
    )
)


def _infer_prepare_backward(c: InferContext) -> list[TensorType]:
    channels, conic = _channels(c), CONIC_LENGTH[c.attrs["projection"]]
    count = c.dims["N"]
    for name, wanted, given in (
        ("v_conics", Dim.of(conic), c.types[10]),
        ("v_colors", channels, c.types[11]),
    ):
        if tuple(given.shape) != (count, wanted):
            c.fail(f"{name}: expected shape [{count}, {wanted}], got {given.shape}")
    return [*c.types[:5], c.types[5], c.types[6]]


register(
    OpDef(
        "splat_prepare_backward",
        (
            *_GAUSSIANS,
            Operand("colors"),
            *_CAMERA,
            Operand("radii", "N 2", "i32"),
            Operand("v_means2d", "N 2"),
            Operand("v_conics"),
            Operand("v_colors"),
            Operand("v_opacities", "N"),
            Operand("v_depths", "N"),
        ),
        ("v_means", "v_quats", "v_scales", "v_opacities", "v_colors", "v_viewmat", "v_intrinsics"),
        _infer_prepare_backward,
        "Gradients of splat_prepare.",
        attrs=_PREPARE,
    )
)

# --- rasterize --------------------------------------------------------------------------------------------
_PREPARED = (
    Operand("means2d", "N 2"),
    Operand("conics"),
    Operand("colors", "N C"),
    Operand("opacities", "N"),
    Operand("depths", "N"),
    Operand("background", "C", finite=True),
    Operand("tile_ranges", "T 2", "i32"),
    Operand("sorted_ids", "E", "i32"),
)


def _check_prepared(c: InferContext) -> None:
    conic = CONIC_LENGTH[c.attrs["projection"]]
    if tuple(c.types[1].shape) != (c.dims["N"], Dim.of(conic)):
        c.fail(
            f"conics: expected shape [{c.dims['N']}, {conic}] for projection {c.attrs['projection']!r}, "
            f"got {c.types[1].shape}"
        )
    tiles = tile_count(c.attrs["width"], c.attrs["height"], c.attrs["tile_size"])
    if c.dims["T"] != tiles:
        c.fail(f"tile_ranges: expected shape [{tiles}, 2] for the image and tile size, got {c.types[6].shape}")


def _image_types(c: InferContext) -> list[TensorType]:
    c.dims["rgba"] = c.dims["C"] + 1
    return [c.result("height width rgba", c.float_dtype), c.result("height width", c.float_dtype)]


def _infer_rasterize(c: InferContext) -> list[TensorType]:
    _check_prepared(c)
    pixels = c.result("height width", DType.I32)
    return [*_image_types(c), c.result("height width", c.float_dtype), pixels]


def _vjp_rasterize(g: VjpContext) -> list[Value | None]:
    node = g.graph.add(
        "splat_rasterize_backward",
        [*g.inputs, *g.outputs, g.cotangent(0), g.cotangent(1)],
        g.attrs,
    )
    by_name = dict(zip(node.definition.results, node.outputs, strict=True))
    return [by_name.get(f"v_{o.name}") for o in _PREPARED]


register(
    OpDef(
        "splat_rasterize",
        _PREPARED,
        ("rgba", "depth", "transmittance", "last_ids"),
        _infer_rasterize,
        "Composite the sorted Gaussians of each tile front to back over the background. rgba holds the C "
        "channels and alpha = 1 - transmittance; depth is accumulated camera z; last_ids is the position in "
        "sorted_ids of each pixel's last contributor, -1 where there is none.",
        attrs=_RASTERIZE,
        vjp=_vjp_rasterize,
        differentiable=frozenset({"rgba", "depth"}),
    )
)


def _check_image_cotangents(c: InferContext, channels: Dim, v_rgba: TensorType) -> None:
    wanted = (c.attrs["height"], c.attrs["width"], channels + 1)
    if tuple(v_rgba.shape) != wanted:
        c.fail(f"v_rgba: expected shape [{', '.join(str(d) for d in wanted)}], got {v_rgba.shape}")


def _infer_rasterize_backward(c: InferContext) -> list[TensorType]:
    _check_prepared(c)
    _check_image_cotangents(c, c.dims["C"], c.types[8])
    _check_image_cotangents(c, c.dims["C"], c.types[12])
    return [*c.types[:6], c.types[0]]


register(
    OpDef(
        "splat_rasterize_backward",
        (
            *_PREPARED,
            Operand("rgba"),
            Operand("depth", "height width"),
            Operand("transmittance", "height width"),
            Operand("last_ids", "height width", "i32"),
            Operand("v_rgba"),
            Operand("v_depth", "height width"),
        ),
        (*(f"v_{n}" for n in _PREPARED_FLOATS), "v_background", "v_means2d_abs"),
        _infer_rasterize_backward,
        "Gradients of splat_rasterize, and per Gaussian the sum over pixels of the magnitudes of the 2D "
        "mean's gradient (Ye et al., AbsGS, 2024).",
        attrs=_RASTERIZE,
    )
)

# --- fused render -----------------------------------------------------------------------------------------
_RENDER_OPERANDS = (*_GAUSSIANS, Operand("colors"), *_CAMERA, Operand("background", finite=True))


def _check_background(c: InferContext, channels: Dim) -> None:
    if tuple(c.types[8].shape) != (channels,):
        c.fail(f"background: expected shape [{channels}] as colors have channels, got {c.types[8].shape}")


def _infer_render(c: InferContext) -> list[TensorType]:
    c.dims["C"] = _channels(c)
    _check_background(c, c.dims["C"])
    return _image_types(c)


def _vjp_render(g: VjpContext) -> list[Value | None]:
    node = g.graph.add("splat_render_backward", [*g.inputs, g.cotangent(0), g.cotangent(1)], g.attrs)
    by_name = dict(zip(node.definition.results, node.outputs, strict=True))
    return [by_name.get(f"v_{o.name}") for o in _RENDER_OPERANDS]


register(
    OpDef(
        "splat_render",
        _RENDER_OPERANDS,
        ("rgba", "depth"),
        _infer_render,
        "splat_prepare followed by splat_rasterize.",
        attrs=_RENDER,
        vjp=_vjp_render,
    )
)


def _infer_render_backward(c: InferContext) -> list[TensorType]:
    channels = _channels(c)
    _check_background(c, channels)
    _check_image_cotangents(c, channels, c.types[9])
    pixel_pair = c.result("N 2", c.float_dtype)
    return [*c.types[:7], c.types[8], pixel_pair, pixel_pair]


register(
    OpDef(
        "splat_render_backward",
        (*_RENDER_OPERANDS, Operand("v_rgba"), Operand("v_depth", "height width")),
        (
            "v_means",
            "v_quats",
            "v_scales",
            "v_opacities",
            "v_colors",
            "v_viewmat",
            "v_intrinsics",
            "v_background",
            "v_means2d",
            "v_means2d_abs",
        ),
        _infer_render_backward,
        "Gradients of splat_render, the 2D means' signed and absolute ones included.",
        attrs=_RENDER,
    )
)


# --- builders ---------------------------------------------------------------------------------------------
class Camera2d(NamedTuple):
    """What splat_camera makes: world-to-camera matrix, 3x3 intrinsics, background, (near, far)."""

    viewmat: Value
    intrinsics: Value
    background: Value
    clip: Value


class Prepared(NamedTuple):
    """What splat_prepare makes; see the module's docstring for the shapes."""

    means2d: Value
    conics: Value
    colors: Value
    opacities: Value
    depths: Value
    radii: Value
    tile_ranges: Value
    sorted_ids: Value


class Rasterized(NamedTuple):
    """What splat_rasterize makes."""

    rgba: Value
    depth: Value
    transmittance: Value
    last_ids: Value


class Rendered(NamedTuple):
    """What splat_render makes."""

    rgba: Value
    depth: Value


def splat_camera(meta: Value, **attrs: Any) -> Camera2d:
    """The camera that a 23-float look-at ``meta`` describes (layout: see the op's documentation).

    The image is upright: ``up`` points to the top edge. Pixels are square, the principal point is the centre.
    ``attrs`` are the render parameters that meta[15:] must repeat.
    """
    return Camera2d(*meta.graph.add("splat_camera", [meta], attrs).outputs)


def clip_planes(graph: Graph, near: float = nx.NEAR, far: float = nx.FAR, dtype: DType | str = DType.F32) -> Value:
    """The constant (near, far) that prepare and render take."""
    return graph.constant([near, far], dtype)


def splat_prepare(
    means: Value,
    quats: Value,
    scales: Value,
    opacities: Value,
    colors: Value,
    viewmat: Value,
    intrinsics: Value,
    clip: Value | None = None,
    **attrs: Any,
) -> Prepared:
    """Project, cull, sort and bin Gaussians.

    means [N, 3] in world units; quats [N, 4] wxyz, normalised inside; scales [N, 3], linear sigma > 0;
    opacities [N] in [0, 1]; colors [N, C], or [N, K, C] with ``sh_degree`` >= 0; viewmat [4, 4] world to
    camera (+x right, +y down, +z forward); intrinsics [3, 3] in pixels without skew; clip (near, far).
    Gaussians that hold NaN or infinity, have a zero quaternion or lie outside (near, far) are culled.
    """
    graph = means.graph
    planes = clip_planes(graph, dtype=means.dtype) if clip is None else clip
    inputs = [means, quats, scales, opacities, colors, viewmat, intrinsics, planes]
    return Prepared(*graph.add("splat_prepare", inputs, attrs).outputs)


def splat_rasterize(prepared: Prepared, background: Value, **attrs: Any) -> Rasterized:
    """Composite prepared Gaussians over ``background`` [C] into rgba [H, W, C + 1] and depth [H, W]."""
    p = prepared
    inputs = [p.means2d, p.conics, p.colors, p.opacities, p.depths, background, p.tile_ranges, p.sorted_ids]
    return Rasterized(*background.graph.add("splat_rasterize", inputs, attrs).outputs)


def splat_render(
    means: Value,
    quats: Value,
    scales: Value,
    opacities: Value,
    colors: Value,
    viewmat: Value,
    intrinsics: Value,
    background: Value,
    clip: Value | None = None,
    **attrs: Any,
) -> Rendered:
    """Render Gaussians: rgba [H, W, C + 1] and accumulated depth [H, W]. Operands as for splat_prepare."""
    graph = means.graph
    planes = clip_planes(graph, dtype=means.dtype) if clip is None else clip
    inputs = [means, quats, scales, opacities, colors, viewmat, intrinsics, planes, background]
    return Rendered(*graph.add("splat_render", inputs, attrs).outputs)


def splat_backward_node(graph: Graph) -> Node:
    """The node that holds 2D-mean gradients after ``grad``: of rasterize or render, if there is exactly one.

    Its results ``v_means2d`` and ``v_means2d_abs`` steer densification.
    """
    wanted = ("splat_rasterize_backward", "splat_render_backward")
    found = [n for n in graph.nodes if n.op in wanted]
    if len(found) != 1:
        raise GraphError(f"expected one splat backward node in the graph, found {len(found)}")
    return found[0]
