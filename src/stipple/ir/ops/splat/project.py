"""splat_project: Gaussians to footprints on the image.

``means2d`` [N, 2] are in pixels. ``conics`` give the exponent sigma of a Gaussian at the offset (dx, dy) of a pixel
centre from its mean:

* ``projection="ewa"``: conics [N, 3] = a, b, c and sigma = (a dx^2 + c dy^2) / 2 + b dx dy, the local affine
  approximation of Zwicker et al., "EWA Splatting", 2002, as 3DGS uses it, for any camera model.
* ``projection="ray"``: conics [N, 8] = a, b, c, p, q, e, f, g and sigma is the same quadratic divided by
  1 + 2 (p dx + q dy) + e dx^2 + 2 f dx dy + g dy^2: half the squared distance, in the Gaussian's own unit
  frame, between its mean and the pixel's ray. It is exact where rays are affine in the pixel; the evaluation is
  that of 3DGUT (Wu et al., "3DGUT: Enabling Distorted Cameras and Secondary Rays in Gaussian Splatting",
  2025), written as a ratio of two quadratics around the projected mean.

Camera models: ``pinhole``, with ``distortion`` of length 0, or 8 for OpenCV's rational model as k1 to k6, p1, p2
(OpenCV orders them k1 k2 p1 p2 k3 k4 k5 k6); ``fisheye``, OpenCV's equidistant model with k1 to k4; ``ortho``, with
focal lengths in pixels per world unit. Points beyond the radius at which a distortion stops growing are culled.

Culled Gaussians have radii 0 and zeros everywhere else. The opacity used in the image is ``opacities * compensation``;
``compensation`` is 1 for visible Gaussians, or less with ``antialiased``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stipple import numerics as nx
from stipple.ir.dtype import DType
from stipple.ir.graph import Graph, Value
from stipple.ir.op import InferContext, OpDef, Operand, VjpContext, register
from stipple.ir.ops.splat import attributes as at
from stipple.ir.shape import TensorType

ATTRS = (*at.SIZE, at.CUTOFF, at.PROJECTION, at.CAMERA_MODEL, at.EPS2D, at.ANTIALIASED)


class ProjectOperands(NamedTuple):
    """Operands of splat_project; see :func:`splat_project`."""

    means: Any
    quats: Any
    scales: Any
    opacities: Any
    viewmat: Any
    intrinsics: Any
    distortion: Any
    clip: Any


class ProjectResults(NamedTuple):
    """means2d [N, 2] in pixels, conics [N, 3] or [N, 8], depths [N] (camera z), radii [N, 2] i32 in pixels,
    compensation [N]."""

    means2d: Any
    conics: Any
    depths: Any
    radii: Any
    compensation: Any


class ProjectBackwardOperands(NamedTuple):
    """Operands of splat_project_backward."""

    means: Any
    quats: Any
    scales: Any
    opacities: Any
    viewmat: Any
    intrinsics: Any
    distortion: Any
    clip: Any
    radii: Any
    v_means2d: Any
    v_conics: Any
    v_depths: Any
    v_compensation: Any


class ProjectBackwardResults(NamedTuple):
    """Gradients of the operands of splat_project."""

    v_means: Any
    v_quats: Any
    v_scales: Any
    v_viewmat: Any
    v_intrinsics: Any
    v_distortion: Any


def _infer(c: InferContext) -> ProjectResults:
    at.check_camera_model(c)
    f = c.float_dtype
    return ProjectResults(
        means2d=c.result("N 2", f),
        conics=c.result(f"N {at.conic_length(c)}", f),
        depths=c.result("N", f),
        radii=c.result("N 2", DType.I32),
        compensation=c.result("N", f),
    )


def _vjp(g: VjpContext) -> ProjectOperands:
    cotangents = (g.cotangent(n) for n in ("means2d", "conics", "depths", "compensation"))
    operands = ProjectBackwardOperands._make([*g.operands, g.results.radii, *cotangents])
    v: ProjectBackwardResults = g.graph.add("splat_project_backward", operands, g.attrs).results
    return ProjectOperands(
        means=v.v_means,
        quats=v.v_quats,
        scales=v.v_scales,
        opacities=None,
        viewmat=v.v_viewmat,
        intrinsics=v.v_intrinsics,
        distortion=v.v_distortion,
        clip=None,
    )


register(
    OpDef(
        "splat_project",
        (*at.GAUSSIANS, *at.CAMERA),
        ProjectResults._fields,
        _infer,
        "Project Gaussians to footprints, and cull those that are not visible.",
        attrs=ATTRS,
        vjp=_vjp,
        differentiable=frozenset({"means2d", "conics", "depths", "compensation"}),
        operand_record=ProjectOperands,
        result_record=ProjectResults,
    )
)


def _infer_backward(c: InferContext) -> ProjectBackwardResults:
    at.check_camera_model(c)
    x: ProjectBackwardOperands = c.operands
    expected: TensorType = c.result(f"N {at.conic_length(c)}", c.float_dtype)
    if x.v_conics != expected:
        c.fail(f"v_conics: expected {expected}, got {x.v_conics}")
    return ProjectBackwardResults(x.means, x.quats, x.scales, x.viewmat, x.intrinsics, x.distortion)


register(
    OpDef(
        "splat_project_backward",
        (
            *at.GAUSSIANS,
            *at.CAMERA,
            Operand("radii", "N 2", "i32"),
            Operand("v_means2d", "N 2"),
            Operand("v_conics"),
            Operand("v_depths", "N"),
            Operand("v_compensation", "N"),
        ),
        ProjectBackwardResults._fields,
        _infer_backward,
        "Gradients of splat_project.",
        attrs=ATTRS,
        operand_record=ProjectBackwardOperands,
        result_record=ProjectBackwardResults,
    )
)


def clip_planes(graph: Graph, near: float = nx.NEAR, far: float = nx.FAR, dtype: DType | str = DType.F32) -> Value:
    """The clip planes (near, far) as a constant: distances along the camera's z axis."""
    return graph.constant([near, far], dtype)


def no_distortion(graph: Graph, dtype: DType | str = DType.F32) -> Value:
    """The ``distortion`` of a camera that has none."""
    return graph.add("full", (), {"shape": [0], "value": 0.0, "dtype": dtype}).outputs[0]


def splat_project(
    means: Value,
    quats: Value,
    scales: Value,
    opacities: Value,
    viewmat: Value,
    intrinsics: Value,
    clip: Value | None = None,
    distortion: Value | None = None,
    **attrs: Any,
) -> ProjectResults:
    """Project Gaussians to footprints on the image.

    means [N, 3] in world units; quats [N, 4] wxyz, normalised inside; scales [N, 3], linear sigma > 0; opacities [N] in
    [0, 1]; viewmat [4, 4] world to camera (+x right, +y down, +z forward); intrinsics [3, 3] in pixels without skew;
    clip (near, far); distortion as described in the module's documentation. Gaussians that hold NaN or infinity, have a
    zero quaternion, are outside (near, far) or reach no pixel are culled. ``attrs`` are the op's attributes; width and
    height are required.
    """
    graph = means.graph
    planes = clip_planes(graph, dtype=means.dtype) if clip is None else clip
    lens = no_distortion(graph, means.dtype) if distortion is None else distortion
    operands = ProjectOperands(means, quats, scales, opacities, viewmat, intrinsics, lens, planes)
    results: ProjectResults = graph.add("splat_project", operands, attrs).results
    return results
