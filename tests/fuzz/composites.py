"""Composite ops for the fuzzer alone, whose gradients the oracle can define: it knows no expanded gradient.

``fuzz_render`` is splat_render, ``fuzz_features`` the small ops one by one. Their gradients are ops too, which expand
to what ``ir.pullback`` makes of the expanded forward: on a device, nothing but Stipple's own ops runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stipple import ir
from stipple.ir.op import InferContext, VjpContext
from stipple.ir.ops import splat
from stipple.ir.shape import TensorType

_RENDER = ir.REGISTRY["splat_render"]
GRADIENTS = (
    "means", "quats", "scales", "opacities", "colors", "viewmat", "intrinsics", "distortion", "background",
)  # fmt: skip
FLOWING = {"fuzz_render": ("rgba", "depth"), "fuzz_features": ("image", "alpha", "depths")}
"""The results that carry gradients."""

Forward = Callable[[ir.Graph, Any, Mapping[str, Any]], Sequence[ir.Value]]


def _attrs(schema: Sequence[Any], attrs: Mapping[str, Any]) -> dict[str, Any]:
    return splat.select_attrs(tuple(schema), attrs)


def _render(graph: ir.Graph, x: Any, attrs: Mapping[str, Any]) -> Sequence[ir.Value]:
    made: Sequence[ir.Value] = ir.splat_render(
        x.means, x.quats, x.scales, x.opacities, x.colors, x.viewmat, x.intrinsics, x.background, x.clip, x.distortion,
        **attrs,
    )  # fmt: skip
    return made


def _features(graph: ir.Graph, x: Any, attrs: Mapping[str, Any]) -> Sequence[ir.Value]:
    p = ir.splat_project(
        x.means, x.quats, x.scales, x.opacities, x.viewmat, x.intrinsics, x.clip, x.distortion,
        **_attrs(ir.REGISTRY["splat_project"].attrs, attrs),
    )  # fmt: skip
    features = x.colors
    if attrs["sh_degree"] >= 0:
        features = ir.splat_sh(x.means, x.colors, x.viewmat, p.radii, attrs["sh_degree"])
    opacities = x.opacities * p.compensation
    lists = ir.splat_bin(
        p.means2d, p.conics, opacities, p.radii, p.depths, **_attrs(ir.REGISTRY["splat_bin"].attrs, attrs)
    )
    r = ir.splat_rasterize(
        p.means2d, p.conics, opacities, features, x.background, *lists, **_attrs(splat.RASTERIZE_ATTRS, attrs)
    )
    return r.image, r.alpha, r.transmittance, r.median_ids, r.counts, p.depths


def _infer_features(c: InferContext) -> Sequence[TensorType]:
    _, plane = _RENDER.infer(c)
    c.dims["C"] = c.operands.background.shape[0]
    ids = TensorType(plane.shape, ir.DType.I32)
    return c.result("height width C", plane.dtype), plane, plane, ids, ids, c.result("N", plane.dtype)


def _vjp(name: str) -> Callable[[VjpContext], Sequence[ir.Value | None]]:
    def vjp(g: VjpContext) -> Sequence[ir.Value | None]:
        cotangents = [g.cotangent(result) for result in FLOWING[name]]
        made = g.graph.add(f"{name}_backward", [*g.inputs, *cotangents], g.attrs)
        return [made.result(f"v_{n}") if n in GRADIENTS else None for n in splat.RenderOperands._fields]

    return vjp


def _expand_backward(name: str, forward: Forward) -> Forward:
    def expand(graph: ir.Graph, x: Any, attrs: Mapping[str, Any]) -> Sequence[ir.Value]:
        made = dict(zip(RESULTS[name], forward(graph, x, attrs), strict=True))
        seeds = [(made[n], getattr(x, f"v_{n}")) for n in FLOWING[name]]
        wrt = [getattr(x, n) for n in GRADIENTS]
        assert len(set(wrt)) == len(wrt), "one value is two operands: no gradient of its own"
        gradients = ir.pullback(seeds, wrt, independent=True)
        node = [n for n in graph.nodes if n.op == "splat_rasterize_backward"][-1]
        return (*gradients, node.results.v_means2d, node.results.v_means2d_abs)

    return expand


def _infer_backward(c: InferContext) -> Sequence[TensorType]:
    pairs = c.result("N 2", c.float_dtype)
    return [*(getattr(c.operands, n) for n in GRADIENTS), pairs, pairs]


def _pair(name: str, forward: Forward, infer: Any, docs: str) -> tuple[ir.OpDef, ir.OpDef]:
    one = ir.OpDef(
        name, _RENDER.operands, RESULTS[name], infer, docs, attrs=_RENDER.attrs, vjp=_vjp(name), expand=forward,
        differentiable=frozenset(FLOWING[name]),
    )  # fmt: skip
    backward = ir.OpDef(
        f"{name}_backward",
        (*_RENDER.operands, *(ir.Operand(f"v_{n}") for n in FLOWING[name])),
        (*(f"v_{n}" for n in GRADIENTS), "v_means2d", "v_means2d_abs"),
        _infer_backward,
        f"Gradients of {name}, and those of the projected means.",
        attrs=_RENDER.attrs,
        expand=_expand_backward(name, forward),
    )
    return one, backward


RESULTS = {
    "fuzz_render": ("rgba", "depth"),
    "fuzz_features": ("image", "alpha", "transmittance", "median_ids", "counts", "depths"),
}
DEFINITIONS = (
    *_pair("fuzz_render", _render, _RENDER.infer, "splat_render."),
    *_pair("fuzz_features", _features, _infer_features, "splat_project, splat_sh, splat_bin, splat_rasterize."),
)
NAMES = frozenset(d.name for d in DEFINITIONS)


@contextmanager
def registered() -> Iterator[None]:
    """The ops exist while this lasts: other tests go through all ops, and shall not meet these."""
    for definition in DEFINITIONS:
        ir.register(definition)
    try:
        yield
    finally:
        for definition in DEFINITIONS:
            del ir.REGISTRY[definition.name]
