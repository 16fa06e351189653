"""The graphs behind the rendering functions: built and compiled once per signature, then cached.

The number of Gaussians is not part of a signature. Several cameras of one call are one graph, in which each camera's
operands and results are named with its number (``viewmat.0``, ``image.0``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from stipple import ir
from stipple.ir.ops import splat
from stipple.ir.passes import ExpandComposites, MergeCommonSubexpressions, PassManager, RemoveDeadNodes, split
from stipple.runtime import Executable, Session

GAUSSIANS = ("means", "quats", "scales", "opacities")
META = ("means2d", "conics", "depths", "radii", "opacities", "colors", "tile_ranges", "sorted_ids")
"""Results of each camera besides its image and alpha: footprints and tile lists."""
RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
MIN_ALPHA = 1e-10
"""Lower bound of the alpha by which an accumulated depth is divided to become an expected one."""


@dataclass(frozen=True)
class Signature:
    """Everything that a graph depends on."""

    device: str
    cameras: int
    channels: int
    coefficients: int  # of SH; 0: colours as they are
    colors_per_camera: bool
    distortion: int  # its length
    mode: str
    attrs: tuple[tuple[str, Any], ...]  # of splat_render

    def select(self, schema: tuple[Any, ...]) -> dict[str, Any]:
        return splat.select_attrs(schema, dict(self.attrs))

    @property
    def sh_degree(self) -> int:
        return int(dict(self.attrs)["sh_degree"])


class VjpExecutables(NamedTuple):
    """A forward pass that keeps what the backward pass needs, and the backward pass."""

    forward: Executable
    backward: Executable


@lru_cache(maxsize=4)
def session(device: str) -> Session:
    """The one session that all calls for a device share."""
    return Session(device)


@lru_cache(maxsize=64)
def forward(signature: Signature, with_meta: bool) -> Executable:
    """``image.c`` [H, W, X] and ``alpha.c`` [H, W] of each camera c, and the results in META if ``with_meta``."""
    graph = ir.Graph("rasterization")
    _Views(graph, signature).outputs(with_meta)
    return session(signature.device).compile(graph)


@lru_cache(maxsize=64)
def forward_and_backward(signature: Signature, absgrad: bool) -> VjpExecutables:
    """``forward`` with its meta, and the gradients of all its inputs and of means2d: one graph, cut in two."""
    graph = ir.Graph("rasterization_vjp")
    views = _Views(graph, signature)
    views.outputs(with_meta=True)
    late = views.gradients(absgrad)
    whole = PassManager([ExpandComposites(), MergeCommonSubexpressions(), RemoveDeadNodes()]).run(graph)
    compile_ = session(signature.device).compile
    return VjpExecutables(*(compile_(part) for part in split(whole, late)))


class _Views:
    """All cameras' views of the Gaussians, in one graph."""

    def __init__(self, graph: ir.Graph, signature: Signature) -> None:
        self.graph, self.signature = graph, signature
        self.inputs = self._declared()
        self.prepared: list[ir.PrepareResults] = []
        self.images: list[ir.Value] = []
        self.alphas: list[ir.Value] = []
        for camera in range(signature.cameras):
            self._view(camera)

    def _declared(self) -> dict[str, ir.Value]:
        s = self.signature
        middle = [s.coefficients] if s.coefficients else []
        shapes: dict[str, list[int | str]] = {
            "means": ["N", 3], "quats": ["N", 4], "scales": ["N", 3], "opacities": ["N"], "clip": [2],
        }  # fmt: skip
        colors: list[int | str] = ["N", *middle, s.channels]
        per_camera: dict[str, list[int | str]] = {
            "viewmat": [4, 4], "intrinsics": [3, 3], "distortion": [s.distortion], "background": [s.channels],
        }  # fmt: skip
        if s.colors_per_camera:
            per_camera["colors"] = colors
        else:
            shapes["colors"] = colors
        shapes |= {f"{name}.{c}": shape for c in range(s.cameras) for name, shape in per_camera.items()}
        return {name: self.graph.input(name, shape) for name, shape in shapes.items()}

    def _of(self, name: str, camera: int) -> ir.Value:
        """An input of one camera, or the one that all cameras share."""
        own = f"{name}.{camera}"
        return self.inputs[own if own in self.inputs else name]

    def _view(self, camera: int) -> None:
        s = self.signature
        operands = {name: self._of(name, camera) for name in (*GAUSSIANS, "colors", "viewmat", "intrinsics", "clip")}
        prepared = ir.splat_prepare(
            **operands, distortion=self._of("distortion", camera), **s.select(splat.PREPARE_ATTRS)
        )
        features, behind = self._features(prepared, self._of("background", camera))
        r = ir.splat_rasterize(
            prepared.means2d, prepared.conics, prepared.opacities, features, behind, prepared.tile_ranges,
            prepared.sorted_ids, **s.select(splat.RASTERIZE_ATTRS),
        )  # fmt: skip
        self.prepared.append(prepared)
        self.images.append(self._expected(r.image, r.alpha) if "ED" in s.mode else r.image)
        self.alphas.append(r.alpha)

    def _features(self, prepared: ir.PrepareResults, background: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The features to composite in a mode: colours, depths, or both."""
        if self.signature.mode == "RGB":
            return prepared.colors, background
        depths = ir.reshape(prepared.depths, ["N", 1])
        nothing = ir.full(self.graph, [1], 0.0)
        if "RGB" not in self.signature.mode:
            return depths, nothing
        return ir.concat([prepared.colors, depths], 1), ir.concat([background, nothing])

    def _expected(self, image: ir.Value, alpha: ir.Value) -> ir.Value:
        """The image with its last channel, accumulated depth, divided by alpha."""
        height, width, features = image.shape
        is_depth = np.zeros(int(features.value or 0), bool)
        is_depth[-1] = True
        per_alpha = 1.0 / ir.maximum(ir.reshape(alpha, [height, width, 1]), MIN_ALPHA)
        return image * ir.where(self.graph.constant(is_depth), per_alpha, 1.0)

    def outputs(self, with_meta: bool) -> None:
        for c, (image, alpha, prepared) in enumerate(zip(self.images, self.alphas, self.prepared, strict=True)):
            self.graph.output(f"image.{c}", image)
            self.graph.output(f"alpha.{c}", alpha)
            for name in META if with_meta else ():
                self.graph.output(f"{name}_of.{c}", getattr(prepared, name))

    def gradients(self, absgrad: bool) -> list[str]:
        """Add the gradients as outputs ``v_...``; returns the names of the inputs that they wait for."""
        late = {
            **{f"v_image.{c}": image for c, image in enumerate(self.images)},
            **{f"v_alpha.{c}": alpha for c, alpha in enumerate(self.alphas)},
        }
        seeds = [(value, self.graph.input(name, value.shape)) for name, value in late.items()]
        wrt = {name: v for name, v in self.inputs.items() if name != "clip"}
        wrt |= {f"means2d.{c}": p.means2d for c, p in enumerate(self.prepared)}
        for name, gradient in zip(wrt, ir.pullback(seeds, list(wrt.values())), strict=True):
            self.graph.output(f"v_{name}", gradient)
        for c, prepared in enumerate(self.prepared if absgrad else ()):
            node = next(n for n in self.graph.nodes if _is_backward_of(n, prepared))
            self.graph.output(f"v_means2d_abs.{c}", node.results.v_means2d_abs)
        return list(late)


def _is_backward_of(node: ir.Node, prepared: ir.PrepareResults) -> bool:
    return node.op == "splat_rasterize_backward" and node.operands.means2d is prepared.means2d
