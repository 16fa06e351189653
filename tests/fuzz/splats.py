"""splat_render and its backward by definition: every Gaussian at every pixel, one number at a time in float64.

Gradients are central differences of that.

Pixels that lie next to a discrete choice (a cutoff, an early stop, the largest alpha, the order of two depths) are
*unsafe*: a rounding error decides what they show, so their spans hold anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuzz.spans import ANYTHING, Precision, Span
from fuzz.tensors import Tensor
from stipple import ir

Vector = list[float]
OPERANDS = ("means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "clip", "background")
OPS = frozenset({"splat_render", "splat_render_backward"})
ELSEWHERE = frozenset(name for name in ir.REGISTRY if name.startswith("splat_")) - OPS
"""Splat ops that the oracle does not define; tests/devices and tests/reference hold them. Prepare and rasterize run
here too, as what the standard passes make of a render."""

MARGIN = 2e-3
_MAX_ALPHA, _EXTENT, _FRAME_MARGIN, _MIN_COMPENSATION = 0.99, 3.33, 0.3, 2.5e-5
_STEP = 1e-5


@dataclass
class Scene:
    """Operands as plain numbers."""

    values: dict[str, Vector]
    attrs: Mapping[str, Any]
    coefficients: int
    channels: int

    @property
    def count(self) -> int:
        return len(self.values["opacities"])

    def row(self, name: str, i: int, width: int) -> Vector:
        return self.values[name][i * width : (i + 1) * width]


@dataclass
class Splat:
    """A Gaussian as it is seen: sigma at a pixel, and what it looks like."""

    sigma: Callable[[float, float], float]
    opacity: float
    depth: float
    color: Vector
    reach: float


@dataclass
class Image:
    rgba: list[Vector]
    depth: Vector
    safe: list[bool]


def render(scene: Scene, shifts: Mapping[int, tuple[float, float]] | None = None) -> Image:
    """The image, pixel by pixel. ``shifts`` moves projected means."""
    width, height = scene.attrs["width"], scene.attrs["height"]
    found = [(i, _seen(scene, i)) for i in range(scene.count)]
    close = any(s[1] for _, s in found)
    splats = [(s[0].depth, i, s[0]) for i, s in found if s[0] is not None]
    splats.sort(key=lambda item: item[:2])
    depths = [d for d, _, _ in splats]
    close = close or any(b - a < MARGIN for a, b in itertools.pairwise(depths))
    image = Image([], [], [])
    for y in range(height):
        for x in range(width):
            _pixel(scene, splats, x + 0.5, y + 0.5, shifts or {}, image, not close)
    return image


def _pixel(
    scene: Scene,
    splats: Sequence[tuple[float, int, Splat]],
    x: float,
    y: float,
    shifts: Mapping[int, tuple[float, float]],
    image: Image,
    safe: bool,
) -> None:
    attrs = scene.attrs
    threshold, most = attrs["transmittance_threshold"], attrs["max_splat_steps"] or len(splats)
    light, depth, steps = 1.0, 0.0, 0
    color = [0.0] * scene.channels
    for z, i, splat in splats:
        shift = shifts.get(i, (0.0, 0.0))
        sigma = splat.sigma(x - shift[0], y - shift[1])
        if abs(sigma - splat.reach) < MARGIN * (1 + splat.reach):
            safe = False
        if sigma > splat.reach:
            continue
        raw = splat.opacity * math.exp(-sigma)
        alpha = min(raw, _MAX_ALPHA)
        after = light * (1 - alpha)
        if abs(raw - _MAX_ALPHA) < MARGIN or (threshold and abs(after / threshold - 1) < 0.02):
            safe = False
        if after <= threshold or steps >= most:
            break
        for c in range(scene.channels):
            color[c] += light * alpha * splat.color[c]
        depth += light * alpha * z
        light = after
        steps += 1
    background = scene.values["background"]
    image.rgba.append([c + light * b for c, b in zip(color, background, strict=True)] + [1 - light])
    image.depth.append(depth)
    image.safe.append(safe)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(p * q for p, q in zip(a, b, strict=True))


def _seen(scene: Scene, i: int) -> tuple[Splat | None, bool]:
    """How a Gaussian is seen (None: it is not), and whether that was close."""
    attrs, values = scene.attrs, scene.values
    mean, quat, scale = scene.row("means", i, 3), scene.row("quats", i, 4), scene.row("scales", i, 3)
    opacity = values["opacities"][i]
    color = scene.row("colors", i, max(scene.coefficients, 1) * scene.channels)
    numbers = (*mean, *quat, *scale, opacity, *color)
    view = [values["viewmat"][4 * k : 4 * k + 4] for k in range(3)]
    fx, fy = values["intrinsics"][0], values["intrinsics"][4]
    cx, cy = values["intrinsics"][2], values["intrinsics"][5]
    near, far = values["clip"]
    if not all(math.isfinite(n) for n in numbers) or _dot(quat, quat) == 0 or opacity <= 0:
        return None, False
    if attrs["projection"] == "ray" and min(scale) <= 0:
        return None, False
    point = [_dot(row[:3], mean) + row[3] for row in view]
    z = point[2]
    close = min(abs(z - near), abs(z - far)) < MARGIN
    if not near <= z <= far:
        return None, close
    axes = _axes([q / math.sqrt(_dot(quat, quat)) for q in quat])
    frame = (fx, fy, cx, cy)
    if attrs["projection"] == "ray":
        sigma, compensation = _ray(point, axes, scale, view, frame), 1.0
    else:
        sigma, compensation, near_kink = _ewa(point, axes, scale, view, frame, attrs)
        close = close or near_kink
    opacity *= compensation
    reach = 0.5 * _EXTENT**2
    if attrs["alpha_cutoff"] > 0:
        limit = math.log(opacity / attrs["alpha_cutoff"])
        close = close or abs(limit) < MARGIN or abs(limit - reach) < MARGIN
        reach = min(reach, limit)
    shown, clipped = _color(scene, color, mean, view)
    if reach < 0:
        return None, close
    return Splat(sigma, opacity, z, shown, reach), close or clipped


def _axes(q: Vector) -> list[Vector]:
    """Rows of the rotation that a unit quaternion wxyz is."""
    w, x, y, z = q
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def _ewa(
    point: Vector,
    axes: list[Vector],
    scale: Vector,
    view: list[Vector],
    frame: tuple[float, ...],
    attrs: Mapping[str, Any],
) -> tuple[Callable[[float, float], float], float, bool]:
    """The local affine approximation: cov2d = J W cov W^T J^T + eps2d."""
    fx, fy, cx, cy = frame
    x, y, z = point
    slopes, near_kink = [], False
    for value, f, c, size in ((x / z, fx, cx, attrs["width"]), (y / z, fy, cy, attrs["height"])):
        margin = _FRAME_MARGIN * 0.5 * size / f
        low, high = -c / f - margin, (size - c) / f + margin
        near_kink = near_kink or min(abs(value - low), abs(value - high)) < MARGIN
        slopes.append(min(max(value, low), high))
    rows = []
    for f, slope, axis in ((fx, slopes[0], 0), (fy, slopes[1], 1)):
        to_world = [f / z * view[axis][k] - f * slope / z * view[2][k] for k in range(3)]
        rows.append([_dot(to_world, [axes[k][a] for k in range(3)]) * scale[a] for a in range(3)])
    eps = attrs["eps2d"]
    xx, xy, yy = _dot(rows[0], rows[0]), _dot(rows[0], rows[1]), _dot(rows[1], rows[1])
    det = (xx + eps) * (yy + eps) - xy * xy
    a, b, c = (yy + eps) / det, -xy / det, (xx + eps) / det
    compensation = 1.0
    if attrs["antialiased"]:
        ratio = (xx * yy - xy * xy) / det
        near_kink = near_kink or abs(ratio - _MIN_COMPENSATION) < MARGIN * _MIN_COMPENSATION
        compensation = math.sqrt(max(ratio, _MIN_COMPENSATION))
    u, v = fx * x / z + cx, fy * y / z + cy

    def sigma(px: float, py: float) -> float:
        dx, dy = px - u, py - v
        return 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy

    return sigma, compensation, near_kink


def _ray(
    point: Vector, axes: list[Vector], scale: Vector, view: list[Vector], frame: tuple[float, ...]
) -> Callable[[float, float], float]:
    """Half the squared distance of the pixel's ray from the mean, in the frame where the Gaussian is the unit one."""
    fx, fy, cx, cy = frame

    def to_unit(v: Vector) -> Vector:
        world = [math.fsum(view[k][j] * v[k] for k in range(3)) for j in range(3)]
        return [math.fsum(axes[k][a] * world[k] for k in range(3)) / scale[a] for a in range(3)]

    origin = to_unit([-p for p in point])

    def sigma(px: float, py: float) -> float:
        d = to_unit([(px - cx) / fx, (py - cy) / fy, 1.0])
        cross = (
            origin[1] * d[2] - origin[2] * d[1],
            origin[2] * d[0] - origin[0] * d[2],
            origin[0] * d[1] - origin[1] * d[0],
        )
        return 0.5 * _dot(cross, cross) / _dot(d, d)

    return sigma


def _color(scene: Scene, color: Vector, mean: Vector, view: list[Vector]) -> tuple[Vector, bool]:
    """Colours, from harmonics of degree 0 or 1 where there are any; and whether one is about to be clamped at 0."""
    degree = scene.attrs["sh_degree"]
    if degree < 0:
        return color, False
    assert degree <= 1, "the oracle knows harmonics up to degree 1"
    position = [-math.fsum(view[k][j] * view[k][3] for k in range(3)) for j in range(3)]
    offset = [m - p for m, p in zip(mean, position, strict=True)]
    length = math.sqrt(_dot(offset, offset))
    x, y, z = (o / length for o in offset)
    c0, c1 = 0.5 / math.sqrt(math.pi), math.sqrt(0.75 / math.pi)
    basis = [c0, -c1 * y, c1 * z, -c1 * x][: (degree + 1) ** 2]
    sums = [
        0.5 + math.fsum(b * color[k * scene.channels + c] for k, b in enumerate(basis)) for c in range(scene.channels)
    ]
    return [max(s, 0.0) for s in sums], any(abs(s) < MARGIN for s in sums)


# --- as ops -----------------------------------------------------------------------------------------------
def compute(node: ir.Node, x: Sequence[Tensor], how: Precision) -> list[Tensor]:
    """Results of splat_render or its backward."""
    shapes = [tuple(v.shape) for v in node.outputs]
    blur = max((_width(s) for t in x for s in t.spans), default=0.0)
    sizes = {d.symbol: n for v, t in zip(node.inputs, x, strict=True) for d, n in zip(v.shape, t.shape, strict=True)}
    concrete = [tuple(d.resolve({k: n for k, n in sizes.items() if k}) for d in shape) for shape in shapes]
    dtype = x[0].dtype
    if blur > 1e-4:
        return [Tensor(s, dtype, [ANYTHING] * math.prod(s)) for s in concrete]
    colors = x[4]
    scene = Scene(
        {name: [_middle(s) for s in t.spans] for name, t in zip(OPERANDS, x, strict=False)},
        node.attrs,
        colors.shape[1] if len(colors.shape) == 3 else 0,
        colors.shape[-1],
    )
    error = (3e-4 if how.single else 1e-9) + 1e3 * blur
    if node.op == "splat_render":
        return _image_tensors(render(scene), concrete, dtype, scene, error)
    return _gradients(node, scene, x, concrete, how, blur)


def _middle(a: Span) -> float:
    return math.nan if a[0] > a[1] else (a[0] if a[0] == a[1] else (a[0] + a[1]) / 2)


def _width(a: Span) -> float:
    if a[0] >= a[1]:
        return 0.0
    return math.inf if a[2] or math.isinf(a[0]) or math.isinf(a[1]) else (a[1] - a[0]) / (1 + abs(a[0]))


def _image_tensors(
    image: Image, shapes: Sequence[tuple[int, ...]], dtype: str, scene: Scene, error: float
) -> list[Tensor]:
    most = max([1.0, *(abs(v) for pixel in image.rgba for v in pixel)])
    deepest = max([1.0, *image.depth])
    rgba: list[Span] = []
    depth: list[Span] = []
    for pixel, z, safe in zip(image.rgba, image.depth, image.safe, strict=True):
        rgba += [(v - error * most, v + error * most, False) if safe else ANYTHING for v in pixel]
        depth.append((z - error * deepest, z + error * deepest, False) if safe else ANYTHING)
    return [Tensor(shapes[0], dtype, rgba), Tensor(shapes[1], dtype, depth)]


def _gradients(
    node: ir.Node, scene: Scene, x: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], how: Precision, blur: float
) -> list[Tensor]:
    """Central differences of the image, weighted by what arrives."""
    v_rgba, v_depth = ([_middle(s) for s in t.spans] for t in x[-2:])
    dtype = x[0].dtype
    channels = scene.channels + 1
    image = render(scene)
    weighed = [any(v_rgba[k * channels : (k + 1) * channels]) or v_depth[k] != 0 for k in range(len(v_depth))]
    certain = not any(w and not s for w, s in zip(weighed, image.safe, strict=True))

    def loss(scene: Scene, shifts: Mapping[int, tuple[float, float]] | None = None) -> float:
        made = render(scene, shifts)
        flat = [c for pixel in made.rgba for c in pixel]
        return _dot(flat, v_rgba) + _dot(made.depth, v_depth)

    made = []
    names = [*OPERANDS[:7], "background", "means2d", "means2d_abs"]
    for name, shape, used in zip(names, shapes, node.used(), strict=True):
        size = math.prod(shape)
        if not certain or not used or name == "means2d_abs":
            made.append(Tensor(shape, dtype, [ANYTHING] * size))
            continue
        slopes = [_slope(scene, name, k, loss) for k in range(size)]
        error = ((2e-3 if how.single else 1e-5) + 1e3 * blur) * max([1e-2, *(abs(s) for s in slopes)])
        made.append(Tensor(shape, dtype, [(s - error, s + error, False) for s in slopes]))
    return made


def _slope(scene: Scene, name: str, k: int, loss: Callable[..., float]) -> float:
    if name == "means2d":
        shift = [0.0, 0.0]
        shift[k % 2] = _STEP
        above = loss(scene, {k // 2: (shift[0], shift[1])})
        below = loss(scene, {k // 2: (-shift[0], -shift[1])})
        return (above - below) / (2 * _STEP)
    fixed = {"viewmat": range(12, 16), "intrinsics": (1, 3, 6, 7, 8)}
    if k in fixed.get(name, ()):
        return 0.0
    values = scene.values[name]
    kept = values[k]
    if not math.isfinite(kept):
        return 0.0
    ends = []
    for step in (_STEP, -_STEP):
        values[k] = kept + step
        ends.append(loss(scene))
    values[k] = kept
    return (ends[0] - ends[1]) / (2 * _STEP)
