"""One optimiser step as one graph: activations, render, loss, gradients, Adam, and what the strategy adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stipple import ir
from stipple import numerics as nx
from stipple.train.config import Config
from stipple.train.state import PARAMS, row_shapes
from stipple.train.strategies import StepParts, Strategy

METRICS = ("loss", "l1", "ssim", "mse")
_MIN_ALPHA = 1e-3


@dataclass(frozen=True)
class StepShape:
    """Everything that a step's graph depends on besides the configuration."""

    width: int
    height: int
    sh_degree: int
    channels: int = 3
    masked: bool = False
    depth: bool = False
    views: int = 0  # number of training views, if something is fitted per view
    camera_model: str = "pinhole"
    distortion: int = 0  # how many coefficients the lens has


def build_step(config: Config, strategy: Strategy, shape: StepShape) -> ir.Graph:
    """The graph of one step.

    Parameters are those of :class:`stipple.train.state.TrainingState` (N Gaussians), and per training view the
    exposure and pose where they are fitted. Inputs: ``pixels`` [H, W, C] u8, ``viewmat``, ``intrinsics``,
    ``distortion``, ``background`` [3], ``step`` from 1, a rate ``lr_...`` for each parameter, and, by shape and
    configuration, ``mask`` [H, W, 1] bool, ``depth`` [H, W], ``view`` [1] i32, ``chosen`` [views] bool;
    and those that the strategy adds. Output: ``metrics``, the numbers that METRICS names, in one array.
    """
    return _Builder(config, strategy, shape).build()


class _Rendered(NamedTuple):
    """color [H, W, 3], alpha [H, W], accumulated depth [H, W] where it is fitted."""

    color: ir.Value
    alpha: ir.Value
    depth: ir.Value | None


class _Builder:
    def __init__(self, config: Config, strategy: Strategy, shape: StepShape) -> None:
        self.config, self.strategy, self.shape = config, strategy, shape
        self.graph = ir.Graph("training_step")
        shapes = row_shapes(nx.sh_coeff_count(shape.sh_degree))
        self.rows: dict[str, list[int | str]] = {name: ["N", *shapes[name]] for name in PARAMS}
        self.params = {name: self.graph.param(name, dims) for name, dims in self.rows.items()}
        self.fitted: dict[str, ir.Value] = {}
        self.measured: dict[str, ir.Value] = {}
        self.view: ir.Value | None = None

    def build(self) -> ir.Graph:
        graph, shape = self.graph, self.shape
        scales, opacities = ir.exp(self.params["log_scales"]), ir.sigmoid(self.params["logit_opacities"])
        viewmat = self._pose(graph.input("viewmat", [4, 4]))
        background = graph.input("background", [3])
        size: dict[str, Any] = {"width": shape.width, "height": shape.height}
        prepared = ir.splat_prepare(
            self.params["means"],
            self.params["quats"],
            scales,
            opacities,
            self.params["sh"],
            viewmat,
            graph.input("intrinsics", [3, 3]),
            distortion=graph.input("distortion", [shape.distortion]),
            camera_model=shape.camera_model,
            sh_degree=shape.sh_degree,
            antialiased=self.config.loss.antialiased,
            **size,
        )
        rendered = self._rendered(prepared, background, size)
        loss = self._image_loss(rendered.color, background)
        loss = self._regularised(loss, rendered, scales, opacities)
        self.measured["loss"] = loss
        graph.output("metrics", ir.concat([ir.reshape(self.measured[name], [1]) for name in METRICS], 0))
        visible = ir.reshape(ir.narrow(prepared.radii, 1, 0, 1), ["N"]) > 0
        self._update(loss, visible, scales, opacities)
        return graph

    def _rendered(self, prepared: ir.PrepareResults, background: ir.Value, size: dict[str, Any]) -> _Rendered:
        """The image, and its depth if that is fitted."""
        p, graph = prepared, self.graph
        features, behind = p.colors, background
        if self.shape.depth:
            features = ir.concat([features, ir.reshape(p.depths, ["N", 1])], 1)
            behind = ir.concat([behind, ir.full(graph, [1], 0.0)])
        r: ir.RasterizeResults = ir.splat_rasterize(
            p.means2d, p.conics, p.opacities, features, behind, p.tile_ranges, p.sorted_ids, **size
        )
        if not self.shape.depth:
            return _Rendered(r.image, r.alpha, None)
        depth = ir.reshape(ir.narrow(r.image, 2, 3, 1), r.alpha.shape)
        return _Rendered(ir.narrow(r.image, 2, 0, 3), r.alpha, depth)

    # --- loss ---------------------------------------------------------------------------------------------
    def _image_loss(self, image: ir.Value, background: ir.Value) -> ir.Value:
        graph, shape = self.graph, self.shape
        size = [shape.height, shape.width]
        color = self._exposed(image)
        pixels = ir.cast(graph.input("pixels", [*size, shape.channels], "u8"), "f32") * (1 / 255)
        target = ir.narrow(pixels, 2, 0, 3)
        if shape.channels == 4:
            alpha = ir.narrow(pixels, 2, 3, 1)
            target = target * alpha + background * (1.0 - alpha)
        if shape.masked:
            mask = ir.cast(graph.input("mask", [*size, 1], "bool"), "f32")
            color, target = color * mask, target * mask
        losses = ir.image_l1_ssim(color, target)
        self.measured = {"l1": losses.l1, "ssim": losses.ssim, "mse": ir.mean(ir.square(color - target))}
        weight = self.config.loss.ssim
        return (1 - weight) * losses.l1 + weight * (1.0 - losses.ssim)

    def _regularised(self, loss: ir.Value, rendered: _Rendered, scales: ir.Value, opacities: ir.Value) -> ir.Value:
        opacity_weight, scale_weight = self.config.regularisers
        if opacity_weight:
            loss = loss + opacity_weight * ir.mean(opacities)
        if scale_weight:
            loss = loss + scale_weight * ir.mean(scales)
        if rendered.depth is not None:
            loss = loss + self.config.loss.depth * self._depth_loss(rendered.depth, rendered.alpha)
        return loss

    def _depth_loss(self, depth: ir.Value, alpha: ir.Value) -> ir.Value:
        """Mean |expected depth - measured| where depth was measured and something is drawn."""
        measured = self.graph.input("depth", [self.shape.height, self.shape.width])
        valid = ir.cast(ir.logical_and(measured > 0.0, alpha > _MIN_ALPHA), "f32")
        difference = ir.abs(depth / ir.maximum(alpha, _MIN_ALPHA) - measured)
        return ir.sum(valid * difference) / ir.maximum(ir.sum(valid), 1.0)

    # --- what is fitted per view --------------------------------------------------------------------------
    def _per_view(self, name: str, width: int) -> ir.Value:
        """The row of the step's view in a parameter [views, width]."""
        if self.view is None:
            self.view = self.graph.input("view", [1], "i32")
        self.fitted[name] = self.graph.param(name, [self.shape.views, width])
        return ir.gather(self.fitted[name], self.view)

    def _exposed(self, color: ir.Value) -> ir.Value:
        """Colours under the view's affine transform, stored as its difference from the identity."""
        if not self.config.extras.exposure:
            return color
        pixels = self.shape.height * self.shape.width
        change = ir.reshape(self._per_view("exposure", 12), [3, 4])
        flat = ir.reshape(color, [pixels, 3])
        moved = flat + flat @ ir.transpose(ir.narrow(change, 1, 0, 3), [1, 0])
        moved = moved + ir.reshape(ir.narrow(change, 1, 3, 1), [1, 3])
        return ir.reshape(moved, color.shape)

    def _pose(self, viewmat: ir.Value) -> ir.Value:
        """The view's matrix after its correction, a rotation (1, x, y, z) / norm and a translation."""
        if not self.config.extras.poses:
            return viewmat
        change = self._per_view("poses", 6)
        quat = ir.concat([ir.full(self.graph, [1, 1], 1.0), ir.narrow(change, 1, 0, 3)], 1)
        products = ir.reshape(ir.transpose(quat, [1, 0]) @ quat, [1, 16])
        basis = self.graph.constant(rotation_basis().T.astype(np.float32))
        rotation = ir.reshape(products @ basis, [3, 3]) / ir.sum(ir.square(quat))
        top = ir.concat([rotation, ir.transpose(ir.narrow(change, 1, 3, 3), [1, 0])], 1)
        bottom = self.graph.constant(np.array([[0, 0, 0, 1]], np.float32))
        return ir.concat([top, bottom], 0) @ viewmat

    # --- update -------------------------------------------------------------------------------------------
    def _update(self, loss: ir.Value, visible: ir.Value, scales: ir.Value, opacities: ir.Value) -> None:
        graph, config = self.graph, self.config
        step = graph.input("step", [])
        wrt = [*self.params.values(), *self.fitted.values()]
        gradients = dict(zip([*self.params, *self.fitted], ir.grad(graph, loss, wrt), strict=True))
        parts = self._parts(visible, scales, opacities, gradients)
        for name, value in self.strategy.updated_statistics(parts).items():
            graph.update(parts.statistics[name], value)
        for name in PARAMS:
            rate = graph.input(f"lr_{name}", self.rows["sh"][1:] if name == "sh" else [])
            dims = self.rows[name]
            m, v = (graph.param(f"{kind}_{name}", dims) for kind in "mv")
            mask = visible if config.rates.visible_only else None
            update = ir.adam(self.params[name], gradients[name], m, v, rate, step, visible=mask)
            moved = update.param
            if name == "means":
                moved = self.strategy.moved_means(parts, moved)
            graph.update(self.params[name], moved)
            graph.update(m, update.m)
            graph.update(v, update.v)
        for name, param in self.fitted.items():
            chosen = self._chosen()
            m, v = (graph.param(f"{kind}_{name}", param.shape) for kind in "mv")
            rate = graph.input(f"lr_{name}", [])
            update = ir.adam(param, gradients[name], m, v, rate, step, visible=chosen)
            graph.update(param, update.param)
            graph.update(m, update.m)
            graph.update(v, update.v)

    def _chosen(self) -> ir.Value:
        """The mask of the row, in parameters fitted per view, that this step may change."""
        found = self.graph.inputs.get("chosen")
        return self.graph.input("chosen", [self.shape.views], "bool") if found is None else found

    def _parts(
        self, visible: ir.Value, scales: ir.Value, opacities: ir.Value, gradients: Mapping[str, ir.Value]
    ) -> StepParts:
        """What the strategy may build on."""
        rows = self.strategy.traits.statistics
        return StepParts(
            graph=self.graph,
            width=self.shape.width,
            height=self.shape.height,
            means=self.params["means"],
            quats=self.params["quats"],
            scales=scales,
            opacities=opacities,
            visible=visible,
            gradients={name: gradients[name] for name in PARAMS},
            statistics={name: self.graph.param(name, ["N", *row]) for name, row in rows.items()},
        )


def rotation_basis() -> np.ndarray:
    """The matrix [9, 16] that maps the products q_i q_j to the rotation matrix of q = (w, x, y, z), times |q|^2."""
    basis = np.zeros((3, 3, 4, 4))
    signs = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], float)
    for axis in range(3):
        basis[axis, axis] = np.diag(signs[axis])
    # off the diagonal: 2 (x_r x_c -+ w x_k)
    for r, c, k, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 0, 2, 1), (1, 2, 0, -1), (2, 0, 1, -1), (2, 1, 0, 1)):
        basis[r, c, 1 + r, 1 + c] = 2
        basis[r, c, 0, 1 + k] = 2 * sign
    return basis.reshape(9, 16)
