"""One view of a scene, without gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stipple import arguments
from stipple import numerics as nx
from stipple.ir.ops import splat
from stipple.render.graphs import Signature, forward
from stipple.scene import Camera, Gaussians

Array = np.ndarray
PROJECTIONS = tuple(splat.CONIC_LENGTH)


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
    """Render a scene; nothing is kept for gradients.

    ``background`` is a colour; ``sh_degree`` limits the SH bands that are evaluated.
    """
    scene, camera = arguments.instance("scene", scene, Gaussians), arguments.instance("camera", camera, Camera)
    degree = nx.MAX_SH_DEGREE if sh_degree is None else arguments.integer("sh_degree", sh_degree, 0, nx.MAX_SH_DEGREE)
    signature = Signature(
        device=arguments.device(device),
        cameras=1,
        channels=3,
        coefficients=scene.sh.shape[1],
        colors_per_camera=False,
        distortion=len(camera.distortion),
        mode="RGB+ED",
        attrs=render_attrs(
            *arguments.image_size(camera.width, camera.height, 3),
            min(degree, scene.sh_degree),
            projection=arguments.choice("projection", projection, PROJECTIONS),
            camera_model=camera.model,
            antialiased=arguments.flag("antialiased", antialiased),
        ),
    )
    feeds: dict[str, Any] = {
        "means": scene.means,
        "quats": scene.quats,
        "scales": scene.scales,
        "opacities": scene.opacities,
        "colors": scene.sh,
        "viewmat.0": arguments.array("camera", camera.viewmat, (4, 4), finite=True),
        "intrinsics.0": camera.intrinsics.astype(np.float32),
        "distortion.0": np.array(camera.distortion, np.float32),
        "clip": np.array([camera.near, camera.far], np.float32),
        "background.0": arguments.array("background", background, (3,), finite=True),
    }
    out = forward(signature, with_meta=False).run(feeds)
    image = out["image.0"]
    return Image(image[..., :3], out["alpha.0"], image[..., 3])


def render_attrs(width: int, height: int, sh_degree: int, **more: Any) -> tuple[tuple[str, Any], ...]:
    """Attributes of splat_render, in the form of a signature."""
    return tuple(sorted({"width": width, "height": height, "sh_degree": sh_degree, **more}.items()))
