"""The splat ops for the oracle: values by definition (``splats.py``), gradients by central differences of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuzz import composites, splats
from fuzz.cameras import Camera
from fuzz.spans import ANYTHING, INT_LIMITS, NAN, Precision, Span
from fuzz.splat_lists import bin_tiles, layers_of_tiles, refuse_bad_lists
from fuzz.splats import Pixel, Scene, Shifts, Vector
from fuzz.tensors import Shape, Tensor, UndecidedError
from stipple import ir
from stipple.ir.ops import splat

OPS = frozenset(
    {
        *composites.NAMES,
        "splat_render",
        "splat_project",
        "splat_project_backward",
        "splat_sh",
        "splat_sh_backward",
        "splat_bin",
        "splat_rasterize",
        "splat_rasterize_backward",
    }
)
ELSEWHERE = frozenset(
    {
        "splat_prepare",
        "splat_bin_listed",
        "splat_rasterize_backward_listed",
        "splat_camera",
        "splat_camera_backward",
        "splat_noise",
        "splat_pack_prepared",
        "splat_unpack_prepared",
    }
)
"""Splat ops that the oracle does not define. Prepare is part of the expanded render, the listed ones are
what a GPU's pass makes of the others; tests/backends hold the rest."""
_STEP = 1e-5
_LARGEST_RADIUS = 1 << 30
_FIXED: Mapping[str, Sequence[int]] = {"viewmat": range(12, 16), "intrinsics": (1, 3, 6, 7, 8)}
"""Elements that an operand must have: they carry no gradient."""
_ANY_INT: Span = (*INT_LIMITS["i32"], False)


@dataclass
class Call:
    """A node, its operands as plain numbers, and how exactly a device computes it."""

    node: ir.Node
    x: Mapping[str, Tensor]
    values: dict[str, Vector]
    shapes: Sequence[Shape | None]
    how: Precision
    blur: float

    @classmethod
    def of(cls, node: ir.Node, x: Sequence[Tensor], dims: Mapping[str, int], how: Precision) -> Call:
        names = [o.name for o in node.definition.operands]
        return cls(
            node,
            dict(zip(names, x, strict=True)),
            {n: [_middle(s) for s in t.spans] for n, t in zip(names, x, strict=True)},
            [v.shape.resolve(dims) if v.shape.symbols <= dims.keys() else None for v in node.outputs],
            how,
            max((_width(s) for t in x for s in t.spans if t.dtype not in INT_LIMITS), default=0.0),
        )

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.node.attrs

    @property
    def error(self) -> float:
        """The error of a value relative to the largest of its tensor."""
        return (3e-4 if self.how.single else 1e-9) + 1e3 * self.blur

    @property
    def scene(self) -> Scene:
        colors = self.x["colors"].shape if "colors" in self.x else (0, 0)
        return Scene(self.values, self.attrs, colors[1] if len(colors) == 3 else 0, colors[-1])

    def tensors(self, spans: Mapping[str, Sequence[Span]]) -> list[Tensor]:
        """Results by name; what is left out, or unused, is anything."""
        made = []
        for name, value, shape in zip(self.node.definition.results, self.node.outputs, self.shapes, strict=True):
            found = spans.get(name)
            if shape is None:  # a generated size
                assert found is not None
                made.append(Tensor((len(found),), value.dtype.value, found))
                continue
            if found is None or not getattr(self.node.used(), name):
                whatever = _ANY_INT if value.dtype.value == "i32" else ANYTHING
                found = [whatever] * math.prod(shape)
            made.append(Tensor(shape, value.dtype.value, found))
        return made


def compute(node: ir.Node, x: Sequence[Tensor], dims: Mapping[str, int], how: Precision) -> list[Tensor]:
    """Results of one of OPS."""
    call = Call.of(node, x, dims, how)
    if call.blur > 1e-4:
        if node.op == "splat_bin":
            raise UndecidedError("splat_bin of values that are not certain")
        return call.tensors({})
    return _OPS[node.op](call)


def _middle(a: Span) -> float:
    return math.nan if a[0] > a[1] else (a[0] if a[0] == a[1] else (a[0] + a[1]) / 2)


def _width(a: Span) -> float:
    if a[0] >= a[1]:
        return 0.0
    return math.inf if a[2] or math.isinf(a[0]) or math.isinf(a[1]) else (a[1] - a[0]) / (1 + abs(a[0]))


def _around(values: Sequence[float], error: float, known: Sequence[bool] | None = None) -> list[Span]:
    """Spans around values, as wide as the largest of them says (at least that of 1); anything where not known."""
    margin = error * max([1.0, *(abs(v) for v in values if math.isfinite(v))])
    sure = [True] * len(values) if known is None else known
    return [(v - margin, v + margin, False) if k else ANYTHING for v, k in zip(values, sure, strict=True)]


def _whole(values: Sequence[int], known: Sequence[bool]) -> list[Span]:
    return [(v, v, False) if k else _ANY_INT for v, k in zip(values, known, strict=True)]


# --- gradients --------------------------------------------------------------------------------------------
Losses = Callable[[Shifts], Sequence[float]]
"""Parts of a loss, one a pixel or a Gaussian, of the operands as they are now."""


def _gradients(call: Call, names: Mapping[str, str], certain: bool, losses: Losses) -> list[Tensor]:
    """Central differences of a loss. ``names`` says which operand each result is the gradient of."""
    if not certain:
        return call.tensors({})
    made: dict[str, list[Span]] = {}
    for result, shape in zip(call.node.definition.results, call.shapes, strict=True):
        if not getattr(call.node.used(), result):
            continue
        slopes = [_slope(call, names.get(result, ""), result, k, losses) for k in range(math.prod(shape or ()))]
        error = ((2e-3 if call.how.single else 1e-5) + 1e3 * call.blur) * max([1e-2, *(abs(s) for s in slopes)])
        made[result] = [(s - error, s + error, False) for s in slopes]
    return call.tensors(made)


def _slope(call: Call, operand: str, result: str, k: int, losses: Losses) -> float:
    if operand:
        if k in _FIXED.get(operand, ()) or not math.isfinite(call.values[operand][k]):
            return 0.0
        values = call.values[operand]
        kept, ends = values[k], []
        for step in (_STEP, -_STEP):
            values[k] = kept + step
            ends.append(losses({}))
        values[k] = kept
    else:  # of the projected means, which are no operand
        shift = (_STEP, 0.0) if k % 2 == 0 else (0.0, _STEP)
        ends = [losses({k // 2: (sign * shift[0], sign * shift[1])}) for sign in (1, -1)]
    slopes = [(a - b) / (2 * _STEP) for a, b in zip(*ends, strict=True)]
    return math.fsum(abs(s) for s in slopes) if result.endswith("_abs") else math.fsum(slopes)


# --- images -----------------------------------------------------------------------------------------------
def _render(call: Call) -> list[Tensor]:
    view = splats.view(call.scene, with_depth=True)
    safe = [view.certain and p.safe for p in view.pixels]
    rgba = [v for p in view.pixels for v in (*p.image[:-1], 1 - p.light)]
    channels = call.scene.channels + 1
    return call.tensors(
        {
            "rgba": _around(rgba, call.error, [s for s in safe for _ in range(channels)]),
            "depth": _around([p.image[-1] for p in view.pixels], call.error, safe),
        }
    )


def _pixels(call: Call, pixels: Sequence[Pixel], channels: int, certain: bool) -> dict[str, list[Span]]:
    """What splat_rasterize says of pixels."""
    safe = [certain and p.safe for p in pixels]
    return {
        "image": _around([v for p in pixels for v in p.image], call.error, [s for s in safe for _ in range(channels)]),
        "alpha": _around([1 - p.light for p in pixels], call.error, safe),
        "transmittance": _around([p.light for p in pixels], call.error, safe),
        "last_ids": _whole([p.last for p in pixels], safe),
        "median_ids": _whole([p.median for p in pixels], [s and p.half for s, p in zip(safe, pixels, strict=True)]),
        "counts": _whole([p.count for p in pixels], safe),
    }


def _features(call: Call) -> list[Tensor]:
    view = splats.view(call.scene, with_depth=False)
    made = _pixels(call, view.pixels, call.scene.channels, view.certain)
    del made["last_ids"]
    return call.tensors(made | {"depths": _around(view.depths, call.error, [view.certain] * len(view.depths))})


def _weighed(call: Call, pixels: Sequence[Pixel], certain: bool, *weights: str) -> bool:
    """Whether no weight lies on a pixel that a rounding error may change."""
    for name in weights:
        given = call.values[name]
        width = len(given) // max(1, len(pixels))
        for k, pixel in enumerate(pixels):
            if not (certain and pixel.safe) and any(given[k * width : (k + 1) * width]):
                return False
    return True


def _view_backward(call: Call) -> list[Tensor]:
    """Of fuzz_render and fuzz_features."""
    render = call.node.op == "fuzz_render_backward"
    weights = [f"v_{n}" for n in composites.FLOWING[call.node.op.removesuffix("_backward")]]
    v = [call.values[w] for w in weights]
    channels = call.scene.channels

    def losses(shifts: Shifts) -> list[float]:
        view = splats.view(call.scene, render, shifts)
        parts = []
        for k, p in enumerate(view.pixels):
            if render:
                shown = [*p.image[:-1], 1 - p.light]
                parts.append(_dot(shown, v[0][k * (channels + 1) :]) + p.image[-1] * v[1][k])
            else:
                parts.append(_dot(p.image, v[0][k * channels :]) + (1 - p.light) * v[1][k])
        return parts if render else [*parts, *(d * w for d, w in zip(view.depths, v[2], strict=True))]

    view = splats.view(call.scene, render)
    certain = _weighed(call, view.pixels, view.certain, *weights[:2])
    certain = certain and (render or view.certain or not any(v[2]))
    return _gradients(call, {f"v_{n}": n for n in composites.GRADIENTS}, certain, losses)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(p * q for p, q in zip(a, b, strict=False))


# --- the small ops ----------------------------------------------------------------------------------------
def _project(call: Call) -> list[Tensor]:
    names = ("means2d", "conics", "depths", "radii", "compensation")
    rows: dict[str, list[Span]] = {n: [] for n in names}
    width = splat.CONIC_LENGTH[call.attrs["projection"]]
    for i in range(call.scene.count):
        f, close = splats.footprint(call.scene, i)
        beyond = None if f is None else splats.outside(f, call.attrs)
        if close or (f is not None and beyond is None):
            rows["radii"] += [(0, _LARGEST_RADIUS, False)] * 2
            for name, count in (("means2d", 2), ("conics", width), ("depths", 1), ("compensation", 1)):
                rows[name] += [ANYTHING] * count
            continue
        if f is None or beyond:
            f = splats.Footprint((0.0, 0.0), 0.0, 0.0, lambda x, y: 0.0, [0.0] * width, 0.0, 0.0, [(0.0, 0.0)] * 2)
        for name, values in (
            ("means2d", f.mean), ("conics", f.conic), ("depths", [f.depth]), ("compensation", [f.compensation]),
        ):  # fmt: skip
            rows[name] += _around(list(values), call.error)
        rows["radii"] += [_ceiling(r, 1e-3 if call.how.single else 1e-7) for r in splats.radii(f)]
    return call.tensors(rows)


def _ceiling(radius: float, tolerance: float) -> Span:
    if radius == 0:
        return (0, 0, False)
    if radius > 1e3:  # next to a footprint without end
        return (1, _LARGEST_RADIUS, False)
    return (math.ceil(radius * (1 - tolerance)), math.ceil(radius * (1 + tolerance)), False)


def _visible(call: Call) -> list[bool]:
    return [min(call.values["radii"][2 * i : 2 * i + 2]) > 0 for i in range(call.x["radii"].shape[0])]


def _project_backward(call: Call) -> list[Tensor]:
    visible = _visible(call)
    weights = [("v_means2d", 2), ("v_conics", call.x["v_conics"].shape[1]), ("v_depths", 1), ("v_compensation", 1)]
    v = [[x for n, w in weights for x in call.values[n][i * w : (i + 1) * w]] for i in range(len(visible))]

    def losses(shifts: Shifts) -> list[float]:
        found = [splats.footprint(call.scene, i)[0] if seen else None for i, seen in enumerate(visible)]
        return [
            0.0 if f is None else _dot([*f.mean, *f.conic, f.depth, f.compensation], w)
            for f, w in zip(found, v, strict=True)
        ]

    certain = all(low > 0 or high <= 0 for low, high, _ in call.x["radii"].spans)
    for i, seen in enumerate(visible):
        f, close = splats.footprint(call.scene, i)
        certain = certain and not (seen and (f is None or close) and any(v[i]))
    return _gradients(call, {f"v_{n}": n for n in splat.ProjectOperands._fields}, certain, losses)


def _shaded(call: Call, i: int) -> tuple[Vector, bool]:
    _, count, channels = call.x["sh"].shape
    coefficients = call.values["sh"][i * count * channels : (i + 1) * count * channels]
    view = call.values["viewmat"]
    rows = tuple(tuple(view[4 * k : 4 * k + 4]) for k in range(3))
    position = Camera(rows, (1, 1), (0, 0), (), "pinhole", (0, 1), (1, 1)).position()
    mean = call.values["means"][3 * i : 3 * i + 3]
    return splats.sh_color(coefficients, channels, call.attrs["sh_degree"], mean, position)


def _sh(call: Call) -> list[Tensor]:
    spans: list[Span] = []
    for i, seen in enumerate(_visible(call)):
        if not seen:
            spans += [(-0.0, 0.0, False)] * call.x["sh"].shape[2]
            continue
        colors = _shaded(call, i)[0]
        around = _around(colors, call.error, [math.isfinite(c) for c in colors])
        spans += [NAN if math.isnan(c) else s for c, s in zip(colors, around, strict=True)]
    return call.tensors({"colors": spans})


def _sh_backward(call: Call) -> list[Tensor]:
    visible, channels = _visible(call), call.x["sh"].shape[2]
    v = [call.values["v_colors"][i * channels : (i + 1) * channels] for i in range(len(visible))]
    shaded = [_shaded(call, i) for i in range(len(visible))]
    counts = [s and all(math.isfinite(c) for c in colors) for s, (colors, _) in zip(visible, shaded, strict=True)]

    def losses(shifts: Shifts) -> list[float]:
        return [_dot(_shaded(call, i)[0], v[i]) if counts[i] else 0.0 for i in range(len(visible))]

    certain = not any(c and kink and any(w) for c, (_, kink), w in zip(counts, shaded, v, strict=True))
    return _gradients(call, {"v_means": "means", "v_sh": "sh", "v_viewmat": "viewmat"}, certain, losses)


def _composited(call: Call) -> list[Pixel]:
    tiles = layers_of_tiles(call.values, call.attrs)
    columns = -(-call.attrs["width"] // call.attrs["tile_size"])
    size = call.attrs["tile_size"]
    made = []
    for x, y in splats.pixel_centers(call.attrs):
        positions, layers = tiles[int(y // size) * columns + int(x // size)]
        pixel = splats.composite(layers, (x, y), call.values["background"], call.attrs, {})
        pixel.last = positions[pixel.last] if pixel.last >= 0 else -1
        made.append(pixel)
    return made


def _rasterize(call: Call) -> list[Tensor]:
    refuse_bad_lists(call.values)
    return call.tensors(_pixels(call, _composited(call), call.x["features"].shape[1], True))


def _rasterize_backward(call: Call) -> list[Tensor]:
    refuse_bad_lists(call.values)
    v_image, v_alpha, channels = call.values["v_image"], call.values["v_alpha"], call.x["features"].shape[1]

    def losses(shifts: Shifts) -> list[float]:
        return [
            _dot(p.image, v_image[k * channels :]) + (1 - p.light) * v_alpha[k] for k, p in enumerate(_composited(call))
        ]

    names = {f"v_{n}": n for n in ("means2d", "conics", "opacities", "features", "background")}
    certain = _weighed(call, _composited(call), True, "v_image", "v_alpha")
    return _gradients(call, {**names, "v_means2d_abs": "means2d"}, certain, losses)


def _bin(call: Call) -> list[Tensor]:
    ranges, ids = bin_tiles(call.values, call.attrs)
    return call.tensors(
        {
            "tile_ranges": [(v, v, False) for pair in ranges for v in pair],
            "sorted_ids": [(v, v, False) for v in ids],
        }
    )


_OPS: Mapping[str, Callable[[Call], list[Tensor]]] = {
    "splat_render": _render,
    "fuzz_render": _render,
    "fuzz_features": _features,
    "fuzz_render_backward": _view_backward,
    "fuzz_features_backward": _view_backward,
    "splat_project": _project,
    "splat_project_backward": _project_backward,
    "splat_sh": _sh,
    "splat_sh_backward": _sh_backward,
    "splat_bin": _bin,
    "splat_rasterize": _rasterize,
    "splat_rasterize_backward": _rasterize_backward,
}
