"""Random scenes, cameras and the graphs that render them, shared by the tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from compositor import composite
from stipple import ir
from stipple.runtime import Executable, Session

OPERANDS = ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "background")


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A random rotation matrix."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def look_at(position: Any, target: Any, up: Any) -> np.ndarray:
    """World-to-camera matrix, written out by hand: +x right, +y down, +z forward."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = [right, down, forward]
    viewmat[:3, 3] = -viewmat[:3, :3] @ np.asarray(position, float)
    return viewmat


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


@dataclass(frozen=True)
class Scene:
    """Operands of splat_render as float64 arrays, and its attributes."""

    arrays: dict[str, np.ndarray]
    attrs: dict[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Scene:
        """The scene with some operands (by name) or attributes replaced."""
        arrays = {k: np.asarray(v, float) for k, v in changes.items() if k in OPERANDS}
        attrs = {k: v for k, v in changes.items() if k not in OPERANDS}
        return replace(self, arrays={**self.arrays, **arrays}, attrs={**self.attrs, **attrs})

    def feeds(self, dtype: Any = np.float64) -> dict[str, np.ndarray]:
        return {k: v.astype(dtype) for k, v in self.arrays.items()}


def random_scene(
    seed: int,
    count: int = 12,
    width: int = 20,
    height: int = 14,
    channels: int = 3,
    sh_degree: int = -1,
    opaque: bool = False,
    off_center: bool = True,
    **attrs: Any,
) -> Scene:
    """Gaussians before a rotated camera, some beyond the frame, of all shapes and sizes."""
    rng = np.random.default_rng(seed)
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation(rng)
    viewmat[:3, 3] = rng.normal(size=3)
    camera_points = np.column_stack(
        [rng.uniform(-1.2, 1.2, count), rng.uniform(-0.9, 0.9, count), rng.uniform(1.5, 4, count)]
    )
    camera_points[:, :2] *= camera_points[:, 2:] / 2.5
    means = (camera_points - viewmat[:3, 3]) @ viewmat[:3, :3]
    coefficients = () if sh_degree < 0 else ((sh_degree + 1) ** 2,)
    colors = rng.uniform(0, 1, (count, *coefficients, channels)) - (0.3 if coefficients else 0)
    shift = rng.uniform(-2, 2, 2) if off_center else np.zeros(2)
    return Scene(
        {
            "means": means,
            "quats": rng.normal(size=(count, 4)),
            "scales": np.exp(rng.uniform(np.log(0.05), np.log(0.5), (count, 3))),
            "opacities": rng.uniform(0.9, 1.0, count) if opaque else rng.uniform(0.1, 0.95, count),
            "colors": colors,
            "viewmat": viewmat,
            "intrinsics": intrinsics(16.0, 17.5, width / 2 + shift[0], height / 2 + shift[1]),
            "background": rng.uniform(0, 1, channels),
        },
        {"width": width, "height": height, "sh_degree": sh_degree, **attrs},
    )


def declare(graph: ir.Graph, scene: Scene, dtype: str = "f64") -> dict[str, ir.Value]:
    """Inputs of a graph for a scene's operands; the number of Gaussians is symbolic."""
    values = {}
    for name, array in scene.arrays.items():
        per_gaussian = name in OPERANDS[:5]
        shape = ["N", *array.shape[1:]] if per_gaussian else array.shape
        values[name] = graph.input(name, shape, dtype)
    return values


def split_attrs(attrs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of prepare and those of rasterize."""
    from stipple.ir.ops import splat

    return splat.select_attrs(splat.PREPARE_ATTRS, attrs), splat.select_attrs(splat.RASTERIZE_ATTRS, attrs)


class Images(NamedTuple):
    """rgba, depth, and what else splat_rasterize says of each pixel."""

    rgba: ir.Value
    depth: ir.Value
    transmittance: ir.Value
    last_ids: ir.Value
    median_ids: ir.Value
    counts: ir.Value


def prepare_and_rasterize(values: dict[str, ir.Value], attrs: dict[str, Any]) -> tuple[ir.PrepareResults, Images]:
    """The decomposed render of declared operands: features are the colours and the depth."""
    for_prepare, for_rasterize = split_attrs(attrs)
    operands = [values[name] for name in OPERANDS[:7]]
    p = ir.splat_prepare(*operands, **for_prepare)
    background = values["background"]
    channels = background.shape[0].value
    features = ir.concat([p.colors, ir.reshape(p.depths, [p.depths.shape[0], 1])], 1)
    behind = ir.concat([background, ir.full(background.graph, [1], 0.0, background.dtype)])
    r = ir.splat_rasterize(
        p.means2d, p.conics, p.opacities, features, behind, p.tile_ranges, p.sorted_ids, **for_rasterize
    )
    size = [attrs["height"], attrs["width"]]
    rgba = ir.concat([ir.narrow(r.image, 2, 0, channels), ir.reshape(r.alpha, [*size, 1])], 2)
    depth = ir.reshape(ir.narrow(r.image, 2, channels, 1), size)
    return p, Images(rgba, depth, r.transmittance, r.last_ids, r.median_ids, r.counts)


def forward_graph(scene: Scene, dtype: str = "f64") -> ir.Graph:
    """Everything that prepare and rasterize make, as outputs."""
    graph = ir.Graph("forward")
    prepared, image = prepare_and_rasterize(declare(graph, scene, dtype), scene.attrs)
    for name, value in {**prepared._asdict(), **image._asdict()}.items():
        graph.output(name, value)
    return graph


def render(scene: Scene, device: str = "reference", dtype: str = "f64") -> dict[str, np.ndarray]:
    """All results of a scene's render."""
    exe = Session(device).compile(forward_graph(scene, dtype))
    return exe.run(scene.feeds(np.float64 if dtype == "f64" else np.float32))


def loss_weights(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Random weights of a linear loss over rgba and depth; 0 at pixels next to a discrete choice (an
    edge, an early stop, the largest alpha), where a derivative says nothing about the other side."""
    rng = np.random.default_rng(99)
    height, width = scene.attrs["height"], scene.attrs["width"]
    safe = composite(render(scene), scene.arrays["background"], scene.attrs).safe
    assert safe.mean() > 0.8 or safe.size == 1, "scene lies on too many boundaries"
    channels = scene.arrays["background"].size + 1
    w_rgba = rng.normal(size=(height, width, channels)) * safe[..., None]
    return w_rgba, rng.normal(size=(height, width)) * safe


def gradient_executable(scene: Scene, fused: bool = False, dtype: str = "f64") -> Executable:
    """Loss and gradients of a scene under ``loss_weights``; outputs ``loss``, ``v_...`` for each operand, and
    of the 2D means signed and absolute."""
    graph = ir.Graph("gradients")
    values = declare(graph, scene, dtype)
    if fused:
        operands = [values[name] for name in OPERANDS]
        rgba, depth = ir.splat_render(*operands, **scene.attrs)
    else:
        rgba, depth = prepare_and_rasterize(values, scene.attrs)[1][:2]
    w_rgba, w_depth = loss_weights(scene)
    loss = ir.sum(rgba * graph.constant(w_rgba, dtype)) + ir.sum(depth * graph.constant(w_depth, dtype))
    graph.output("loss", loss)
    for name, value in zip(OPERANDS, ir.grad(graph, loss, [values[n] for n in OPERANDS]), strict=True):
        graph.output(f"v_{name}", value)
    node = ir.splat_backward_node(graph)
    graph.output("v_means2d", node.result("v_means2d"))
    graph.output("v_means2d_abs", node.result("v_means2d_abs"))
    return Session("reference").compile(graph)


def relative_error(given: np.ndarray, wanted: np.ndarray) -> float:
    """L2 norm of the difference over the norm of what is wanted."""
    return float(np.linalg.norm(given - wanted) / max(np.linalg.norm(wanted), 1e-12))
