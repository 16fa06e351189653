"""The splat ops of the reference, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stipple.backends.host import camera
from stipple.backends.host.kernel import Compute
from stipple.backends.reference.binning import bin_tiles, bin_tiles_listed
from stipple.backends.reference.composite import rasterize, rasterize_backward
from stipple.backends.reference.project import project, project_backward
from stipple.backends.reference.sh import sh, sh_backward


def _of_attrs(compute: Callable[..., Any]) -> Compute:
    """A kernel that needs only the attributes of a node."""
    return lambda node, x, dims: compute(x, node.attrs)


KERNELS: dict[str, Compute] = {
    **camera.KERNELS,
    "splat_project": _of_attrs(project),
    "splat_project_backward": _of_attrs(project_backward),
    "splat_sh": _of_attrs(sh),
    "splat_sh_backward": _of_attrs(sh_backward),
    "splat_bin": _of_attrs(bin_tiles),
    "splat_bin_listed": _of_attrs(bin_tiles_listed),
    "splat_rasterize": _of_attrs(rasterize),
    "splat_rasterize_backward": _of_attrs(rasterize_backward),
    "splat_rasterize_backward_listed": _of_attrs(lambda x, attrs: rasterize_backward(x.plain, attrs)),
}
