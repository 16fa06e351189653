"""gsplat's ``rasterization`` with its names, and gradients without a framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple import numerics as nx
from stipple.ir.ops import splat
from stipple.render import checks
from stipple.render.graphs import META, Signature, forward, forward_and_backward, session
from stipple.render.view import PROJECTIONS, render_attrs
from stipple.runtime import DeviceArray

Array = np.ndarray
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
    camera_model: str = "pinhole",
    radial_coeffs: ArrayLike | None = None,
    tangential_coeffs: ArrayLike | None = None,
    projection: str = "ewa",
    device: str = "auto",
) -> tuple[Array, Array, Meta]:
    """Render Gaussians from C cameras, with the names and the order of gsplat's ``rasterization``.

    means [N, 3]; quats [N, 4] wxyz, of any length; scales [N, 3] linear; opacities [N] in [0, 1]; colors [N, D]
    or [C, N, D], or with ``sh_degree`` SH [N, K, 3]; viewmats [C, 4, 4] world to camera; Ks [C, 3, 3];
    backgrounds [C, D]. ``render_mode`` is RGB, D (accumulated depth), ED (expected depth), RGB+D or RGB+ED;
    ``rasterize_mode`` classic or antialiased; ``projection`` ewa, or ray for evaluation without approximation.
    ``camera_model`` is pinhole, ortho or fisheye; radial_coeffs are OpenCV's k1 to k6 [C, 6] or k1 to k4 [C, 4],
    tangential_coeffs its p1, p2 [C, 2]: with them, images need not be undistorted.

    Returns colours [C, H, W, X], alphas [C, H, W, 1], and a mapping with means2d, depths, radii, conics, opacities,
    visible_colors [C, N, ...], tile_width, tile_height, tile_size, width, height, n_cameras, isect_offsets and
    flatten_ids (one array per camera), each fetched from the device when it is accessed. Arrays may be NumPy or
    anything NumPy reads; results are float32. Options that save gsplat memory on its GPU (``packed``, ``sparse_grad``)
    and ``radius_clip`` are not supported and refused by name.
    """
    call = _Call.of(locals())
    executable = forward(call.signature, with_meta=True)
    kept = [f"{name}_of.{c}" for name in META for c in range(call.signature.cameras)]
    out = executable.run(call.feeds, keep=kept)
    return (*call.images(out), Meta(call.signature, out))


def rasterization_vjp(*args: Any, **kwargs: Any) -> tuple[Array, Array, Meta, Vjp]:
    """``rasterization`` and a function for its gradients, for a training loop of your own.

    Takes the arguments of ``rasterization``. The fourth result is called with the gradients of the loss with respect to
    the colours [C, H, W, X] and the alphas [C, H, W, 1] (None: zeros) and returns a dict: means, quats, scales,
    opacities, colors, viewmats, Ks, backgrounds, each shaped like the argument, distortion [C, D] (k1 to k6, p1, p2;
    fisheye k1 to k4), means2d [C, N, 2], and with ``absgrad`` means2d_abs [C, N, 2]. What gradients need stays on the
    device; they refer to the arguments as they were at the call, even if arrays are changed afterwards. The colours and
    alphas are read-only, because gradients need them too: copy them to change them.
    """
    given = inspect.signature(rasterization).bind(*args, **kwargs)
    given.apply_defaults()
    call = _Call.of(given.arguments)
    executables = forward_and_backward(call.signature, call.absgrad)
    backend = session(call.signature.device)
    feeds = {name: backend.upload(array) for name, array in call.feeds.items()}
    shown = {f"{name}.{c}" for name in ("image", "alpha") for c in range(call.signature.cameras)}
    out = executables.forward.run(feeds, keep=executables.forward.graph.outputs.keys() - shown)

    def vjp(v_colors: ArrayLike | None = None, v_alphas: ArrayLike | None = None) -> Gradients:
        known = {**feeds, **out, **call.image_gradients(v_colors, v_alphas)}
        gradients = executables.backward.run({n: known[n] for n in executables.backward.graph.inputs})
        zeros = {n: a.numpy() for n, a in out.items() if n.startswith("v_")}  # where the image does not depend on it
        return call.gradients(zeros | gradients)

    colors, alphas = call.images(out)
    colors.flags.writeable = alphas.flags.writeable = False
    return colors, alphas, Meta(call.signature, out), vjp


_META_ARRAYS = {
    "means2d": "means2d", "depths": "depths", "radii": "radii", "conics": "conics", "opacities": "opacities",
    "visible_colors": "colors",
}  # fmt: skip


class Meta(Mapping[str, Any]):
    """What ``rasterization`` returns besides its images. Arrays are fetched from the device when they are accessed."""

    def __init__(self, signature: Signature, results: Mapping[str, Any]) -> None:
        attrs = dict(signature.attrs)
        size = attrs["tile_size"]
        self._cameras = signature.cameras
        self._kept: dict[str, list[DeviceArray]] = {
            name: [results[f"{name}_of.{c}"] for c in range(signature.cameras)] for name in META
        }
        self._known: dict[str, Any] = {
            "tile_width": -(-attrs["width"] // size),
            "tile_height": -(-attrs["height"] // size),
            "tile_size": size,
            "width": attrs["width"],
            "height": attrs["height"],
            "n_cameras": signature.cameras,
        }
        self._names = (*_META_ARRAYS, *self._known, "isect_offsets", "flatten_ids")

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            if name not in self._names:
                raise KeyError(name)
            self._known[name] = self._fetch(name)
        return self._known[name]

    def _fetch(self, name: str) -> Any:
        if name in _META_ARRAYS:
            return np.stack([a.numpy() for a in self._kept[_META_ARRAYS[name]]])
        if name == "flatten_ids":
            return [a.numpy() for a in self._kept["sorted_ids"]]
        starts = np.stack([a.numpy()[:, 0] for a in self._kept["tile_ranges"]])
        return starts.reshape(self._cameras, self["tile_height"], self["tile_width"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<meta of {self._cameras} cameras: {', '.join(self)}>"


@dataclass
class _Call:
    """The checked arguments of one call."""

    feeds: dict[str, Array]
    absgrad: bool
    signature: Signature

    @classmethod
    def of(cls, a: Mapping[str, Any]) -> _Call:
        checks.refuse_unoffered(a)
        degree = None if a["sh_degree"] is None else arguments.integer("sh_degree", a["sh_degree"], 0, nx.MAX_SH_DEGREE)
        viewmats, intrinsics = checks.cameras(a)
        cameras = len(viewmats)
        means = arguments.array("means", a["means"], ("N", 3))
        count = len(means)
        colors = checks.colors(a["colors"], count, cameras, degree)
        channels, rank = colors.shape[-1], 2 if degree is None else 3
        backgrounds = np.zeros((cameras, channels), np.float32)
        if a["backgrounds"] is not None:
            backgrounds = arguments.array("backgrounds", a["backgrounds"], (cameras, channels), finite=True)
        distortion = checks.distortion(a, cameras)
        feeds = {
            "means": means,
            "quats": arguments.array("quats", a["quats"], (count, 4)),
            "scales": arguments.array("scales", a["scales"], (count, 3)),
            "opacities": arguments.array("opacities", a["opacities"], (count,)),
            "clip": checks.clip_planes(a["near_plane"], a["far_plane"]),
        }
        per_camera = {
            "viewmat": viewmats, "intrinsics": intrinsics, "distortion": distortion, "background": backgrounds,
        }  # fmt: skip
        if colors.ndim == rank + 1:
            per_camera["colors"] = colors
        else:
            feeds["colors"] = colors
        feeds |= {f"{name}.{c}": array[c] for name, array in per_camera.items() for c in range(cameras)}
        attrs = render_attrs(
            *arguments.image_size(a["width"], a["height"], channels),
            splat.PASS_THROUGH if degree is None else degree,
            tile_size=arguments.integer("tile_size", a["tile_size"], 1, splat.MAX_TILE_SIZE),
            eps2d=arguments.number("eps2d", a["eps2d"], minimum=0),
            antialiased=a["rasterize_mode"] == "antialiased",
            projection=arguments.choice("projection", a["projection"], PROJECTIONS),
            camera_model=a["camera_model"],
        )
        signature = Signature(
            device=arguments.device(a["device"]),
            cameras=cameras,
            channels=channels,
            coefficients=colors.shape[-2] if rank == 3 else 0,
            colors_per_camera=colors.ndim == rank + 1,
            distortion=distortion.shape[1],
            mode=a["render_mode"],
            attrs=attrs,
        )
        return cls(feeds, arguments.flag("absgrad", a["absgrad"]), signature)

    def images(self, out: Mapping[str, Any]) -> tuple[Array, Array]:
        """Colours [C, H, W, X] and alphas [C, H, W, 1] of all cameras."""
        images, alphas = ([out[f"{name}.{c}"] for c in range(self.signature.cameras)] for name in ("image", "alpha"))
        return _stacked(images), _stacked(alphas)[..., None]

    def image_gradients(self, v_colors: ArrayLike | None, v_alphas: ArrayLike | None) -> dict[str, Array]:
        """Feeds of the backward pass: the gradients of each camera's image and alpha."""
        s, attrs = self.signature, dict(self.signature.attrs)
        size = (s.cameras, attrs["height"], attrs["width"])
        features = ("RGB" in s.mode) * s.channels + ("D" in s.mode)
        shapes = {"v_colors": (*size, features), "v_alphas": (*size, 1)}
        given = [
            np.zeros(shape, np.float32) if v is None else arguments.array(name, v, shape)
            for (name, shape), v in zip(shapes.items(), (v_colors, v_alphas), strict=True)
        ]
        images = {f"v_image.{c}": given[0][c] for c in range(s.cameras)}
        return images | {f"v_alpha.{c}": given[1][c, ..., 0] for c in range(s.cameras)}

    def gradients(self, out: Mapping[str, Array]) -> Gradients:
        """The results of the backward pass under the names of the arguments."""
        shared = {n: out[f"v_{n}"] for n in ("means", "quats", "scales", "opacities", "colors") if f"v_{n}" in out}
        names = {
            "colors": "colors", "viewmats": "viewmat", "Ks": "intrinsics", "backgrounds": "background",
            "distortion": "distortion", "means2d": "means2d", "means2d_abs": "means2d_abs",
        }  # fmt: skip
        stacked = {
            name: _stacked([out[f"v_{of}.{c}"] for c in range(self.signature.cameras)])
            for name, of in names.items()
            if f"v_{of}.0" in out
        }
        return shared | stacked


def _stacked(arrays: list[Array]) -> Array:
    """Arrays stacked along a new first axis: without a copy if there is only one."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
