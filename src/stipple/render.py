"""The functional front: ``rasterization`` with gsplat's names, and gradients without a framework.

Each call finds its graph by signature (which inputs, which options, which device) in a cache, so that a second
call builds and compiles nothing; the number of Gaussians is no part of the signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments, ir
from stipple import numerics as nx
from stipple.errors import InputError
from stipple.ir.ops import splat
from stipple.runtime import Executable, Session
from stipple.scene import Camera, Gaussians

Array = np.ndarray
PROJECTIONS = tuple(splat.CONIC_LENGTH)
RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
_GAUSSIANS = ("means", "quats", "scales", "opacities", "colors")
_CAMERA = ("viewmat", "intrinsics", "clip", "background")
_PREPARED = ir.Prepared._fields
_IMAGES = ir.Rasterized._fields
_EPSILON = 1e-10


@dataclass(frozen=True)
class _Signature:
    """What a graph depends on."""

    device: str
    channels: int
    coefficients: int  # 0: colours as they are
    attrs: tuple[tuple[str, Any], ...]


@lru_cache(maxsize=4)
def _session(device: str) -> Session:
    return Session(device)


def _declare(graph: ir.Graph, signature: _Signature) -> dict[str, ir.Value]:
    middle = [signature.coefficients] if signature.coefficients else []
    shapes: dict[str, list[int | str]] = {
        "means": ["N", 3],
        "quats": ["N", 4],
        "scales": ["N", 3],
        "opacities": ["N"],
        "colors": ["N", *middle, signature.channels],
        "viewmat": [4, 4],
        "intrinsics": [3, 3],
        "clip": [2],
        "background": [signature.channels],
    }
    return {name: graph.input(name, shape) for name, shape in shapes.items()}


@lru_cache(maxsize=64)
def _forward(signature: _Signature, everything: bool) -> Executable:
    """Render one view: rgba and depth, and all that gradients need if ``everything``."""
    graph = ir.Graph("rasterization")
    v = _declare(graph, signature)
    attrs = dict(signature.attrs)
    camera = {n: v[n] for n in (*_GAUSSIANS, "viewmat", "intrinsics", "clip")}
    if not everything:
        image = ir.splat_render(**camera, background=v["background"], **attrs)
        graph.output("rgba", image.rgba)
        graph.output("depth", image.depth)
    else:
        prepared = ir.splat_prepare(**camera, **splat.select_attrs(splat.PREPARE_ATTRS, attrs))
        images = ir.splat_rasterize(prepared, v["background"], **splat.select_attrs(splat.RASTERIZE_ATTRS, attrs))
        for name, value in {**prepared._asdict(), **images._asdict()}.items():
            graph.output(name if name not in v else f"seen_{name}", value)
    return _session(signature.device).compile(graph)


@lru_cache(maxsize=64)
def _backward(signature: _Signature, absgrad: bool) -> Executable:
    """Gradients of one view from what its forward made."""
    attrs = dict(signature.attrs)
    prepare_attrs = splat.select_attrs(splat.PREPARE_ATTRS, attrs)
    raster_attrs = splat.select_attrs(splat.RASTERIZE_ATTRS, attrs)
    graph = ir.Graph("rasterization_vjp")
    v = _declare(graph, signature)
    width, height = attrs["width"], attrs["height"]
    conic = splat.CONIC_LENGTH[attrs["projection"]]
    tiles = ir.tile_count(width, height, attrs["tile_size"])
    made: dict[str, tuple[list[int | str], str]] = {
        "means2d": (["N", 2], "f32"),
        "conics": (["N", conic], "f32"),
        "seen_colors": (["N", signature.channels], "f32"),
        "seen_opacities": (["N"], "f32"),
        "depths": (["N"], "f32"),
        "radii": (["N", 2], "i32"),
        "tile_ranges": ([tiles, 2], "i32"),
        "sorted_ids": (["E"], "i32"),
        "rgba": ([height, width, signature.channels + 1], "f32"),
        "depth": ([height, width], "f32"),
        "transmittance": ([height, width], "f32"),
        "last_ids": ([height, width], "i32"),
        "v_rgba": ([height, width, signature.channels + 1], "f32"),
        "v_depth": ([height, width], "f32"),
    }
    m = {name: graph.input(name, shape, dtype) for name, (shape, dtype) in made.items()}
    prepared = [m[n] for n in ("means2d", "conics", "seen_colors", "seen_opacities", "depths")]
    raster = graph.add(
        "splat_rasterize_backward",
        [
            *prepared,
            v["background"],
            *(m[n] for n in ("tile_ranges", "sorted_ids", *_IMAGES, "v_rgba", "v_depth")),
        ],
        raster_attrs,
    )
    back = graph.add(
        "splat_prepare_backward",
        [*(v[n] for n in (*_GAUSSIANS, "viewmat", "intrinsics", "clip")), m["radii"], *raster.outputs[:5]],
        prepare_attrs,
    )
    for name, value in zip((*_GAUSSIANS, "viewmat", "intrinsics"), back.outputs, strict=True):
        graph.output(f"v_{name}", value)
    graph.output("v_background", raster.result("v_background"))
    graph.output("v_means2d", raster.result("v_means2d"))
    if absgrad:
        graph.output("v_means2d_abs", raster.result("v_means2d_abs"))
    return _session(signature.device).compile(graph)


# --- one scene, one camera --------------------------------------------------------------------------------
class Image(NamedTuple):
    """A rendered view: color [H, W, 3], alpha [H, W], and depth [H, W], the expected camera z (0 where empty)."""

    color: Array
    alpha: Array
    depth: Array


def render_view(
    scene: Gaussians,
    camera: Camera,
    background: ArrayLike = (0.0, 0.0, 0.0),
    *,
    sh_degree: int | None = None,
    antialiased: bool = False,
    projection: str = "ewa",
    device: str = "auto",
) -> Image:
    """Render a scene for looking at: nothing is kept for gradients.

    ``background`` is a colour; ``sh_degree`` uses fewer bands than the scene has.
    """
    scene, camera = arguments.instance("scene", scene, Gaussians), arguments.instance("camera", camera, Camera)
    degree = nx.MAX_SH_DEGREE if sh_degree is None else arguments.integer("sh_degree", sh_degree, 0, nx.MAX_SH_DEGREE)
    signature = _Signature(
        arguments.device(device),
        3,
        scene.sh.shape[1],
        _attrs(
            *arguments.image_size(camera.width, camera.height, 3),
            min(degree, scene.sh_degree),
            projection=arguments.choice("projection", projection, PROJECTIONS),
            antialiased=arguments.flag("antialiased", antialiased),
        ),
    )
    feeds: dict[str, Any] = {
        "means": scene.means,
        "quats": scene.quats,
        "scales": scene.scales,
        "opacities": scene.opacities,
        "colors": scene.sh,
        "viewmat": arguments.array("camera", camera.viewmat, (4, 4), finite=True),
        "intrinsics": camera.intrinsics.astype(np.float32),
        "clip": np.array([camera.near, camera.far], np.float32),
        "background": arguments.array("background", background, (3,), finite=True),
    }
    out = _forward(signature, everything=False).run(feeds)
    alpha = out["rgba"][..., 3]
    return Image(out["rgba"][..., :3], alpha, out["depth"] / np.maximum(alpha, _EPSILON))


def _attrs(width: int, height: int, sh_degree: int, **more: Any) -> tuple[tuple[str, Any], ...]:
    attrs = {
        "width": width,
        "height": height,
        "tile_size": nx.TILE_SIZE,
        "alpha_cutoff": nx.ALPHA_CUTOFF,
        "projection": "ewa",
        "sh_degree": sh_degree,
        "eps2d": nx.EPS2D,
        "antialiased": False,
        **more,
    }
    return tuple(sorted(attrs.items()))


# --- gsplat's front ---------------------------------------------------------------------------------------
Gradients = dict[str, Array]
Vjp = Callable[..., Gradients]


def rasterization(
    means: ArrayLike,
    quats: ArrayLike,
    scales: ArrayLike,
    opacities: ArrayLike,
    colors: ArrayLike,
    viewmats: ArrayLike,
    Ks: ArrayLike,  # noqa: N803 - gsplat's name
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    tile_size: int = 16,
    backgrounds: ArrayLike | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    *,
    projection: str = "ewa",
    device: str = "auto",
) -> tuple[Array, Array, dict[str, Any]]:
    """Render Gaussians from C cameras, with the names and the order of gsplat's ``rasterization``.

    means [N, 3]; quats [N, 4] wxyz, of any length; scales [N, 3] linear; opacities [N] in [0, 1]; colors [N, D]
    or [C, N, D], or with ``sh_degree`` harmonics [N, K, 3]; viewmats [C, 4, 4] world to camera; Ks [C, 3, 3];
    backgrounds [C, D]. ``render_mode`` is RGB, D (accumulated depth), ED (expected depth), RGB+D or RGB+ED;
    ``rasterize_mode`` classic or antialiased; ``projection`` ewa, or ray for evaluation without approximation.

    Returns colours [C, H, W, X], alphas [C, H, W, 1], and a dict with means2d, depths, radii, conics, opacities,
    seen_colors [C, N, ...], tile_width, tile_height, tile_size, width, height, n_cameras, isect_offsets and
    flatten_ids (one array a camera). Arrays may be NumPy or anything NumPy reads; results are float32. What gsplat
    memory on its GPU (``packed``, ``sparse_grad``) and ``radius_clip`` is not offered and refused by name.
    """
    call = _Call.of(locals())
    views = [call.forward(c) for c in range(call.cameras)]
    return (*call.assemble(views), call.meta(views))


def rasterization_vjp(*args: Any, **kwargs: Any) -> tuple[Array, Array, dict[str, Any], Vjp]:
    """``rasterization`` and a function for gradients, for those who bring their own loop.

    Takes what ``rasterization`` takes. The fourth result is called with the gradients of the loss in the
    colours [C, H, W, X] and the alphas [C, H, W, 1] (None: zeros) and returns a dict: means, quats, scales,
    opacities, colors, viewmats, Ks, backgrounds, each shaped like the argument, means2d [C, N, 2], and with
    ``absgrad`` means2d_abs [C, N, 2].
    """
    given = inspect.signature(rasterization).bind(*args, **kwargs)
    given.apply_defaults()
    call = _Call.of(given.arguments)
    views = [call.forward(c) for c in range(call.cameras)]

    def vjp(v_colors: ArrayLike | None = None, v_alphas: ArrayLike | None = None) -> Gradients:
        return call.backward(views, v_colors, v_alphas)

    return (*call.assemble(views), call.meta(views), vjp)


@dataclass
class _Call:
    """The checked arguments of one call."""

    gaussians: dict[str, Array]
    per_camera_colors: bool
    viewmats: Array
    intrinsics: Array
    clip: Array
    backgrounds: Array
    mode: str
    absgrad: bool
    signature: _Signature

    @property
    def cameras(self) -> int:
        return len(self.viewmats)

    @classmethod
    def of(cls, a: Mapping[str, Any]) -> _Call:
        _refuse(a)
        degree = None if a["sh_degree"] is None else arguments.integer("sh_degree", a["sh_degree"], 0, nx.MAX_SH_DEGREE)
        viewmats, intrinsics = _cameras(a)
        cameras = len(viewmats)
        means = arguments.array("means", a["means"], ("N", 3))
        count = len(means)
        colors = _colors(a["colors"], count, cameras, degree)
        rank = 2 if degree is None else 3
        channels = colors.shape[-1]
        gaussians = {
            "means": means,
            "quats": arguments.array("quats", a["quats"], (count, 4)),
            "scales": arguments.array("scales", a["scales"], (count, 3)),
            "opacities": arguments.array("opacities", a["opacities"], (count,)),
            "colors": colors,
        }
        backgrounds = np.zeros((cameras, channels), np.float32)
        if a["backgrounds"] is not None:
            backgrounds = arguments.array("backgrounds", a["backgrounds"], (cameras, channels), finite=True)
        attrs = _attrs(
            *arguments.image_size(a["width"], a["height"], channels),
            splat.PASS_THROUGH if degree is None else degree,
            tile_size=arguments.integer("tile_size", a["tile_size"], 1, splat.MAX_TILE_SIZE),
            eps2d=arguments.number("eps2d", a["eps2d"], least=0),
            antialiased=a["rasterize_mode"] == "antialiased",
            projection=arguments.choice("projection", a["projection"], PROJECTIONS),
        )
        coefficients = colors.shape[-2] if rank == 3 else 0
        return cls(
            gaussians,
            colors.ndim == rank + 1,
            viewmats,
            intrinsics,
            _clip(a["near_plane"], a["far_plane"]),
            backgrounds,
            a["render_mode"],
            arguments.flag("absgrad", a["absgrad"]),
            _Signature(arguments.device(a["device"]), channels, coefficients, attrs),
        )

    def feeds(self, camera: int) -> dict[str, Any]:
        """The operands of one view."""
        colors = self.gaussians["colors"]
        return {
            **self.gaussians,
            "colors": colors[camera] if self.per_camera_colors else colors,
            "viewmat": self.viewmats[camera],
            "intrinsics": self.intrinsics[camera],
            "clip": self.clip,
            "background": self.backgrounds[camera],
        }

    def forward(self, camera: int) -> dict[str, Array]:
        return _forward(self.signature, everything=True).run(self.feeds(camera))

    def assemble(self, views: list[dict[str, Array]]) -> tuple[Array, Array]:
        """Colours and alphas of all views in the wanted mode."""
        rgba, depth = np.stack([v["rgba"] for v in views]), np.stack([v["depth"] for v in views])[..., None]
        alphas = rgba[..., -1:]
        if "ED" in self.mode:
            depth = depth / np.maximum(alphas, _EPSILON)
        parts = ([rgba[..., :-1]] if "RGB" in self.mode else []) + ([depth] if "D" in self.mode else [])
        return np.concatenate(parts, axis=-1), alphas

    def meta(self, views: list[dict[str, Array]]) -> dict[str, Any]:
        attrs = dict(self.signature.attrs)
        size = attrs["tile_size"]
        across, down = -(-attrs["width"] // size), -(-attrs["height"] // size)
        stacked = {k: np.stack([v[k] for v in views]) for k in ("means2d", "depths", "radii", "conics")}
        starts = np.stack([v["tile_ranges"][:, 0] for v in views]).reshape(-1, down, across)
        return {
            **stacked,
            "opacities": np.stack([v["seen_opacities"] for v in views]),
            "seen_colors": np.stack([v["seen_colors"] for v in views]),
            "tile_width": across,
            "tile_height": down,
            "tile_size": size,
            "width": attrs["width"],
            "height": attrs["height"],
            "n_cameras": len(views),
            "isect_offsets": starts,
            "flatten_ids": [v["sorted_ids"] for v in views],
        }

    def backward(
        self, views: list[dict[str, Array]], v_colors: ArrayLike | None, v_alphas: ArrayLike | None
    ) -> Gradients:
        """Gradients of all arguments, summed over cameras where cameras share them."""
        colors, alphas = self.assemble(views)
        given = np.zeros_like(colors) if v_colors is None else arguments.array("v_colors", v_colors, colors.shape)
        v_alpha = np.zeros_like(alphas) if v_alphas is None else arguments.array("v_alphas", v_alphas, alphas.shape)
        executable = _backward(self.signature, self.absgrad)
        outs = []
        for camera, view in enumerate(views):
            v_rgba, v_depth = self._image_gradients(view, given[camera], v_alpha[camera])
            feeds = {**self.feeds(camera), **view, "v_rgba": v_rgba, "v_depth": v_depth}
            outs.append(executable.run(feeds))
        made: Gradients = {}
        for n in _GAUSSIANS[:4]:
            made[n] = np.asarray(np.sum([o[f"v_{n}"] for o in outs], axis=0, dtype=np.float32))
        by_camera = np.stack([o["v_colors"] for o in outs])
        made["colors"] = by_camera if self.per_camera_colors else by_camera.sum(axis=0)
        names = {"viewmats": "viewmat", "Ks": "intrinsics", "backgrounds": "background", "means2d": "means2d"}
        if self.absgrad:
            names["means2d_abs"] = "means2d_abs"
        return {**made, **{k: np.stack([o[f"v_{n}"] for o in outs]) for k, n in names.items()}}

    def _image_gradients(self, view: dict[str, Array], v: Array, v_alpha: Array) -> tuple[Array, Array]:
        """Gradients in rgba and accumulated depth from those in the assembled image."""
        channels = self.signature.channels
        v_color = v[..., :channels] if "RGB" in self.mode else np.zeros((*v.shape[:2], channels), np.float32)
        v_depth = v[..., -1] if "D" in self.mode else np.zeros(v.shape[:2], np.float32)
        v_last = v_alpha[..., 0]
        if "ED" in self.mode:
            alpha = view["rgba"][..., -1]
            seen = alpha > _EPSILON
            scale = 1 / np.maximum(alpha, _EPSILON)
            v_last = v_last - np.where(seen, v_depth * view["depth"] * scale * scale, 0)
            v_depth = v_depth * scale
        v_rgba = np.concatenate([v_color, v_last[..., None]], axis=-1)
        return np.ascontiguousarray(v_rgba, np.float32), np.ascontiguousarray(v_depth, np.float32)


def _refuse(a: Mapping[str, Any]) -> None:
    """Raise InputError for what is not offered, and for words that are not known."""
    for name in ("packed", "sparse_grad"):
        if arguments.flag(name, a[name]):
            raise InputError(f"{name} = True is not offered; leave it at False")
    if arguments.number("radius_clip", a["radius_clip"]) != 0:
        raise InputError(f"radius_clip = {a['radius_clip']!r} is not offered; leave it at 0.0")
    arguments.choice("render_mode", a["render_mode"], RENDER_MODES)
    arguments.choice("rasterize_mode", a["rasterize_mode"], ("classic", "antialiased"))


def _cameras(a: Mapping[str, Any]) -> tuple[Array, Array]:
    """viewmats [C, 4, 4] and Ks [C, 3, 3] of at least one pinhole camera without skew."""
    viewmats = arguments.array("viewmats", a["viewmats"], ("C", 4, 4), finite=True)
    if not len(viewmats):
        raise InputError("viewmats: expected at least one camera, got none")
    if not np.allclose(viewmats[:, 3], [0, 0, 0, 1]):
        raise InputError("viewmats: expected 0 0 0 1 in the last row of each")
    intrinsics = arguments.array("Ks", a["Ks"], (len(viewmats), 3, 3), finite=True)
    fixed = intrinsics[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]]
    if not np.allclose(fixed, [0, 0, 0, 0, 1]) or not (intrinsics[:, [0, 1], [0, 1]] > 0).all():
        raise InputError("Ks: expected fx 0 cx / 0 fy cy / 0 0 1 with fx, fy > 0 of each")
    return viewmats, intrinsics


def _colors(value: ArrayLike, count: int, cameras: int, sh_degree: int | None) -> Array:
    """Colours of all cameras or of each, as they are or as harmonics."""
    given = arguments.read("colors", value)
    rank = 2 if sh_degree is None else 3
    shared = given if given.ndim == rank else given[0] if given.ndim == rank + 1 and len(given) == cameras else None
    if shared is None or len(shared) != count or not shared.shape[-1]:
        wanted = "[N, D] or [C, N, D]" if rank == 2 else "[N, K, D] or [C, N, K, D] with sh_degree"
        raise InputError(f"colors: expected {wanted}, N = {count}, C = {cameras}, D >= 1, got {list(given.shape)}")
    if sh_degree is not None and shared.shape[1] < nx.sh_coeff_count(sh_degree):
        raise InputError(
            f"colors: sh_degree = {sh_degree} needs K >= {nx.sh_coeff_count(sh_degree)}, got {shared.shape[1]}"
        )
    return arguments.array("colors", given, given.shape)


def _clip(near: Any, far: Any) -> Array:
    """Distances between which Gaussians are drawn."""
    clip = arguments.number("near_plane", near, above=0), arguments.number("far_plane", far, above=0)
    if not np.float32(clip[0]) < np.float32(clip[1]):
        raise InputError(f"near_plane, far_plane: expected 0 < near < far, got {clip[0]} and {clip[1]}")
    return np.array(clip, np.float32)
