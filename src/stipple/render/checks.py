"""Checks of the arguments of ``rasterization``: one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple import numerics as nx
from stipple.errors import InputError
from stipple.render.graphs import RENDER_MODES

Array = np.ndarray
_COEFFICIENTS = {"pinhole": (6, 4), "fisheye": (4,)}
"""Numbers of radial coefficients that gsplat's cameras accept."""


def refuse_unoffered(a: Mapping[str, Any]) -> None:
    """Raise InputError for unsupported options and unknown modes."""
    for name in ("packed", "sparse_grad"):
        if arguments.flag(name, a[name]):
            raise InputError(f"{name} = True is not supported; leave it at False")
    if arguments.number("radius_clip", a["radius_clip"]) != 0:
        raise InputError(f"radius_clip = {a['radius_clip']!r} is not supported; leave it at 0.0")
    arguments.choice("render_mode", a["render_mode"], RENDER_MODES)
    arguments.choice("rasterize_mode", a["rasterize_mode"], ("classic", "antialiased"))


def cameras(a: Mapping[str, Any]) -> tuple[Array, Array]:
    """viewmats [C, 4, 4] and Ks [C, 3, 3] of at least one camera without skew."""
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


def colors(value: ArrayLike, count: int, n_cameras: int, sh_degree: int | None) -> Array:
    """Colours shared by all cameras or one set per camera, either as they are or as SH."""
    given = arguments.read("colors", value)
    rank = 2 if sh_degree is None else 3
    shared = given if given.ndim == rank else given[0] if given.ndim == rank + 1 and len(given) == n_cameras else None
    if shared is None or len(shared) != count or not shared.shape[-1]:
        expected = "[N, D] or [C, N, D]" if rank == 2 else "[N, K, D] or [C, N, K, D] with sh_degree"
        raise InputError(f"colors: expected {expected}, N = {count}, C = {n_cameras}, D >= 1, got {list(given.shape)}")
    if sh_degree is not None and shared.shape[1] < nx.sh_coeff_count(sh_degree):
        raise InputError(
            f"colors: sh_degree = {sh_degree} needs K >= {nx.sh_coeff_count(sh_degree)}, got {shared.shape[1]}"
        )
    return arguments.array("colors", given, given.shape)


def clip_planes(near: Any, far: Any) -> Array:
    """Near and far plane, between which Gaussians are drawn."""
    clip = arguments.number("near_plane", near, above=0), arguments.number("far_plane", far, above=0)
    if not np.float32(clip[0]) < np.float32(clip[1]):
        raise InputError(f"near_plane, far_plane: expected 0 < near < far, got {clip[0]} and {clip[1]}")
    return np.array(clip, np.float32)


def distortion(a: Mapping[str, Any], n_cameras: int) -> Array:
    """Distortion [C, D] in the form of the ops, from gsplat's radial and tangential coefficients."""
    model = arguments.choice("camera_model", a["camera_model"], tuple(nx.DISTORTION_LENGTHS))
    radial, tangential = a["radial_coeffs"], a["tangential_coeffs"]
    if model == "ortho" or (model == "pinhole" and radial is None and tangential is None):
        for name, given in (("radial_coeffs", radial), ("tangential_coeffs", tangential)):
            if given is not None:
                raise InputError(f"{name}: camera_model={model!r} takes none; leave it out")
        return np.zeros((n_cameras, 0), np.float32)
    if model == "fisheye" and tangential is not None:
        raise InputError("tangential_coeffs: camera_model='fisheye' takes none; leave it out")
    lengths = _COEFFICIENTS[model]
    given = np.zeros((n_cameras, lengths[0]), np.float32) if radial is None else arguments.read("radial_coeffs", radial)
    if given.ndim != 2 or len(given) != n_cameras or given.shape[1] not in lengths:
        expected = " or ".join(f"[{n_cameras}, {n}]" for n in lengths)
        raise InputError(f"radial_coeffs: expected {expected} for camera_model={model!r}, got {list(given.shape)}")
    coefficients = arguments.array("radial_coeffs", given, given.shape, finite=True)
    if model == "fisheye":
        return coefficients
    rest = np.zeros((n_cameras, 6 - coefficients.shape[1]), np.float32)
    p = np.zeros((n_cameras, 2), np.float32)
    if tangential is not None:
        p = arguments.array("tangential_coeffs", tangential, (n_cameras, 2), finite=True)
    return np.concatenate([coefficients, rest, p], axis=1)
