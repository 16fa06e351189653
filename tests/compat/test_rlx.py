"""rlx-ir's interface: names, defaults, orders, lengths, and what each field does, forward and back."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest

from scenes import relative_error
from stipple import ir
from stipple.compat import rlx
from stipple.errors import GraphError, InputError, LimitWarning
from stipple.runtime import Executable, Session

RENDER = rlx.GaussianSplatRenderParams(width=24, height=20, max_splat_steps=0, max_list_entries=200)
FIELDS = ("positions", "scales", "rotations", "opacities", "colors", "sh_coeffs")


def scene(count: int = 7, coefficients: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "positions": rng.uniform(-0.8, 0.8, (count, 3)),
        "scales": np.exp(rng.uniform(np.log(0.04), np.log(0.25), (count, 3))),
        "rotations": rng.normal(size=(count, 4)),
        "opacities": rng.uniform(0.3, 0.95, count),
        "colors": rng.uniform(0.2, 0.9, (count, 3)),
        "sh_coeffs": rng.normal(size=(count, coefficients, 3)) * 0.2,
    }


def declare(
    graph: rlx.Graph, arrays: dict[str, np.ndarray], params: rlx.GaussianSplatRenderParams
) -> rlx.GaussianSplatInputs:
    values = {n: graph.input(n, ["N", *a.shape[1:]], "f64") for n, a in arrays.items()}
    meta = graph.gaussian_splat_render_meta(
        [0.3, 0.4, -3.0], [0, 0, 0], [0, 1, 0], 40, 0.1, 50, [0.1, 0.2, 0.3], params
    )
    return rlx.GaussianSplatInputs(**values, meta=ir.cast(meta, "f64"))


def render(arrays: dict[str, np.ndarray], params: Any) -> np.ndarray:
    graph = rlx.Graph("render")
    plain = params if isinstance(params, rlx.GaussianSplatRenderParams) else params.render
    graph.output("rgba", graph.gaussian_splat_render(declare(graph, arrays, plain), params))
    return Session("reference").compile(graph).run(arrays)["rgba"]


def backward_executable(arrays: dict[str, np.ndarray], params: rlx.GaussianSplatBackwardParams) -> Executable:
    graph = rlx.Graph("backward")
    inputs = declare(graph, arrays, params.render)
    d_rgba = graph.input("d_rgba", [params.render.height, params.render.width, 4], "f64")
    packed = graph.gaussian_splat_render_backward(inputs, d_rgba, params)
    graph.output("packed", packed)
    parts = rlx.unpack_gaussian_splat_packed_grads(graph, packed, "N", arrays["sh_coeffs"].shape[1])
    for name in FIELDS:
        graph.output(name, getattr(parts, name))
    return Session("reference").compile(graph)


def weights(params: rlx.GaussianSplatRenderParams = RENDER, scale: float = 0.2) -> np.ndarray:
    return np.clip(np.random.default_rng(9).normal(size=(params.height, params.width, 4)) * scale, -0.9, 0.9)


def gradients(
    arrays: dict[str, np.ndarray], params: rlx.GaussianSplatBackwardParams, d_rgba: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    given = weights(params.render) if d_rgba is None else d_rgba
    return backward_executable(arrays, params).run({**arrays, "d_rgba": given})


def test_signatures_and_defaults() -> None:
    def fields(cls: Any) -> dict[str, Any]:
        return {f.name: f.default for f in dataclasses.fields(cls)}

    assert list(fields(rlx.GaussianSplatInputs)) == [*FIELDS, "meta"]
    assert fields(rlx.GaussianSplatRenderParams) == {
        "width": 64,
        "height": 64,
        "tile_size": 16,
        "radius_scale": 1.6,
        "alpha_cutoff": 1 / 255,
        "max_splat_steps": 32,
        "transmittance_threshold": 0.01,
        "max_list_entries": 576,
    }
    backward = rlx.GaussianSplatBackwardParams()
    assert (backward.loss_grad_clip, backward.sh_band, backward.max_anisotropy) == (1.0, 0, 10.0)
    assert backward.render == rlx.GaussianSplatRenderParams()
    names = list(inspect.signature(rlx.Graph.gaussian_splat_render_meta).parameters)
    assert names == [
        "self",
        "camera_position",
        "camera_target",
        "camera_up",
        "fov_y_degrees",
        "near",
        "far",
        "background",
        "params",
    ]


def test_lengths() -> None:
    assert rlx.gaussian_splat_tile_count(64, 64, 16) == 16
    assert rlx.gaussian_splat_tile_count(65, 1, 16) == 5
    for count in (0, 1, 10):
        n = max(count, 1)
        wanted = n * 4 + n + n * 3 + n * 3 + n * 4 + 576 + 16 * 2 + 64 * 64 * 3 + 11
        assert rlx.gaussian_splat_prep_packed_len(count, 576, 64, 64, 16) == wanted
        for k in (0, 1, 16):
            assert rlx.gaussian_splat_packed_grad_len(count, k) == count * 14 + count * max(k, 1) * 3


def test_meta_order() -> None:
    graph = rlx.Graph("meta")
    params = rlx.GaussianSplatRenderParams(1, 2, 3, 4.0, 0.5, 6, 0.7, 8)
    meta = graph.gaussian_splat_render_meta([11, 12, 13], [14, 15, 16], [17, 18, 19], 20, 21, 22, [23, 24, 25], params)
    wanted = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 1, 2, 3, 4, 0.5, 6, 0.7, 8]
    np.testing.assert_array_equal(meta.node.attrs["value"], np.array(wanted, np.float32))
    with pytest.raises(GraphError, match="camera_up: expected 3 numbers"):
        graph.gaussian_splat_render_meta([0, 0, 0], [1, 1, 1], [1, 1], 20, 1, 2, [0, 0, 0], params)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("symbolic", [True, False])
def test_prepare_and_rasterize_composed_equal_render_bit_for_bit(count: int, symbolic: bool) -> None:
    arrays = scene(count)
    graph = rlx.Graph("both")
    if symbolic:
        inputs = declare(graph, arrays, RENDER)
    else:
        values = {n: graph.input(n, a.shape, "f64") for n, a in arrays.items()}
        inputs = rlx.GaussianSplatInputs(**values, meta=_meta(graph))
    prep = graph.gaussian_splat_prepare(inputs, RENDER)
    graph.output("prep", prep)
    graph.output("render", graph.gaussian_splat_render(inputs, RENDER))
    graph.output("rasterize", graph.gaussian_splat_rasterize(prep, inputs.meta, RENDER))
    graph.output("decomposed", graph.gaussian_splat_render_decomposed(inputs, RENDER))
    out = Session("reference").compile(graph).run(arrays)
    assert out["prep"].shape == (rlx.gaussian_splat_prep_packed_len(count, 200, 24, 20, 16),)
    assert (out["render"][..., 3].max() > 0.3) == (count > 0)
    np.testing.assert_array_equal(out["rasterize"], out["render"])
    np.testing.assert_array_equal(out["decomposed"], out["render"])


def _meta(graph: rlx.Graph) -> ir.Value:
    meta = graph.gaussian_splat_render_meta(
        [0.3, 0.4, -3.0], [0, 0, 0], [0, 1, 0], 40, 0.1, 50, [0.1, 0.2, 0.3], RENDER
    )
    return ir.cast(meta, "f64")


def test_packed_prepare_round_trips() -> None:
    arrays = scene(6)
    graph = rlx.Graph("pack")
    prep = graph.gaussian_splat_prepare(declare(graph, arrays, RENDER), RENDER)
    packing = next(n for n in graph if n.op == "splat_pack_prepared")
    unpacked = graph.add("splat_unpack_prepared", [prep], packing.attrs)
    names = ("means2d", "conics", "colors", "opacities", "depths", "tile_ranges", "sorted_ids")
    for name in names:
        graph.output(f"in_{name}", getattr(packing.operands, name))
        graph.output(f"out_{name}", unpacked.result(name))
    graph.output("prep", prep)
    graph.output("intrinsics", packing.operands.intrinsics)
    out = Session("reference").compile(graph).run(arrays)
    for name in names:
        np.testing.assert_array_equal(out[f"out_{name}"], out[f"in_{name}"])
    packed = out["prep"]
    np.testing.assert_array_equal(packed[3:24:4], out["in_opacities"])
    np.testing.assert_array_equal(packed[24:30], out["in_depths"])
    np.testing.assert_allclose(packed[-11:-3], [24, 20, 16, 1 / 255, 0, 0.01, 6, len(out["in_sorted_ids"])], rtol=1e-7)
    np.testing.assert_allclose(packed[-3:], [0.1, 0.2, 0.3], rtol=1e-7)
    rays = packed[-11 - 24 * 20 * 3 : -11].reshape(20, 24, 3)
    wanted = np.linalg.inv(out["intrinsics"]) @ [5.5, 7.5, 1]
    np.testing.assert_allclose(rays[7, 5], wanted / np.linalg.norm(wanted))


def test_a_buffer_of_other_parameters_is_refused() -> None:
    arrays = scene(3)
    graph = rlx.Graph("t")
    inputs = declare(graph, arrays, RENDER)
    prep = graph.gaussian_splat_prepare(inputs, RENDER)
    other = dataclasses.replace(RENDER, width=20, height=24)  # as many pixels and tiles
    graph.output("rgba", graph.gaussian_splat_rasterize(prep, _meta_of(graph, other), other))
    with pytest.raises(InputError, match="packed with width = 24, not 20"):
        Session("reference").compile(graph).run(arrays)
    with pytest.raises(GraphError, match="do not match a packed prepare buffer"):
        graph.gaussian_splat_rasterize(graph.input("flat", [100], "f64"), inputs.meta, RENDER)
    unlimited = dataclasses.replace(RENDER, max_list_entries=0)
    with pytest.raises(GraphError, match="max_list_entries: expected an int >= 1"):
        graph.gaussian_splat_prepare(inputs, unlimited)


def _meta_of(graph: rlx.Graph, params: rlx.GaussianSplatRenderParams) -> ir.Value:
    meta = graph.gaussian_splat_render_meta([0, 0, -3], [0, 0, 0], [0, 1, 0], 40, 0.1, 50, [0, 0, 0], params)
    return ir.cast(meta, "f64")


@pytest.mark.parametrize("coefficients", [0, 1, 4])
def test_packed_gradients_are_the_derivatives(coefficients: int) -> None:
    """Every element against central differences of the forward render with the same parameters."""
    arrays = scene(3, coefficients, seed=4)
    params = rlx.GaussianSplatBackwardParams(RENDER, sh_band=1 if coefficients == 4 else 0, loss_grad_clip=0)
    out = gradients(arrays, params)
    assert out["packed"].shape == (rlx.gaussian_splat_packed_grad_len(3, coefficients),)
    np.testing.assert_array_equal(out["packed"], np.concatenate([out[n].ravel() for n in FIELDS]))
    graph = rlx.Graph("render")
    graph.output("rgba", graph.gaussian_splat_render(declare(graph, arrays, RENDER), params))
    exe = Session("reference").compile(graph)
    d_rgba = weights()
    for name in FIELDS:
        if arrays[name].size == 0:
            assert np.all(out[name] == 0)
            continue
        wanted = np.zeros(arrays[name].size)
        for i in range(wanted.size):
            losses = []
            for step in (-2e-6, -1e-6, 1e-6, 2e-6):
                moved = {k: v.copy() for k, v in arrays.items()}
                moved[name].flat[i] += step
                losses.append(np.sum(exe.run(moved)["rgba"] * d_rgba))
            wanted[i] = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 12e-6
        assert relative_error(out[name].ravel(), wanted) < 1e-6, name


def test_packed_gradients_round_trip_through_unpack() -> None:
    graph = rlx.Graph("t")
    packed = graph.input("packed", [rlx.gaussian_splat_packed_grad_len(5, 4)])
    parts = rlx.unpack_gaussian_splat_packed_grads(graph, packed, 5, 4)
    shapes = {n: getattr(parts, n).shape.static for n in FIELDS}
    assert shapes == {
        "positions": (5, 3),
        "scales": (5, 3),
        "rotations": (5, 4),
        "opacities": (5,),
        "colors": (5, 3),
        "sh_coeffs": (5, 4, 3),
    }
    assert parts.meta is packed
    flat = ir.concat([ir.reshape(getattr(parts, n), [getattr(parts, n).shape.size]) for n in FIELDS])
    graph.output("again", flat)
    data = np.arange(packed.shape[0].value, dtype=np.float32)
    np.testing.assert_array_equal(Session("reference").compile(graph).run({"packed": data})["again"], data)


def test_gradients_through_the_packed_buffer() -> None:
    """Differentiating prepare -> rasterize through pack and unpack gives what render gives."""
    arrays = scene(5)
    for count_known in (False, True):
        graph = rlx.Graph("t")
        if count_known:
            values = {n: graph.input(n, a.shape, "f64") for n, a in arrays.items()}
            inputs = rlx.GaussianSplatInputs(**values, meta=_meta(graph))
        else:
            inputs = declare(graph, arrays, RENDER)
        w = graph.constant(weights())
        wrt = [inputs.positions, inputs.scales, inputs.opacities, inputs.colors]
        one = ir.grad(graph, ir.sum(graph.gaussian_splat_render(inputs, RENDER) * w), wrt)
        two = ir.grad(graph, ir.sum(graph.gaussian_splat_render_decomposed(inputs, RENDER) * w), wrt)
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            graph.output(f"a{i}", a)
            graph.output(f"b{i}", b)
        out = Session("reference").compile(graph).run(arrays)
        for i in range(4):
            assert np.any(out[f"a{i}"] != 0)
            np.testing.assert_allclose(out[f"b{i}"], out[f"a{i}"], rtol=1e-12, atol=1e-14)


def test_packed_gradients_are_partial_where_inputs_depend_on_each_other() -> None:
    """Colours computed from the positions: the positions' block is still that of the positions alone."""
    arrays = scene()
    found = []
    for computed in (False, True):
        graph = rlx.Graph("t")
        inputs = declare(graph, arrays, RENDER)
        if computed:
            inputs = dataclasses.replace(inputs, colors=ir.sigmoid(inputs.positions))
        d_rgba = graph.constant(weights())
        params = rlx.GaussianSplatBackwardParams(RENDER)
        graph.output("packed", graph.gaussian_splat_render_backward(inputs, d_rgba, params))
        feeds = {**arrays, "colors": 1 / (1 + np.exp(-arrays["positions"]))}
        found.append(Session("reference").compile(graph).run(feeds)["packed"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-15)


def test_one_value_cannot_be_two_inputs_of_a_backward() -> None:
    graph = rlx.Graph("t")
    inputs = declare(graph, scene(), RENDER)
    same = dataclasses.replace(inputs, scales=inputs.positions)
    with pytest.raises(GraphError, match="one value is used for two of them"):
        graph.gaussian_splat_render_backward(same, graph.constant(weights()), rlx.GaussianSplatBackwardParams(RENDER))


def test_flat_inputs_are_taken_as_rows() -> None:
    arrays = scene(4)
    graph = rlx.Graph("flat")
    values = {n: graph.input(n, [a.size], "f64") for n, a in arrays.items()}
    rgba = graph.gaussian_splat_render(rlx.GaussianSplatInputs(**values, meta=_meta(graph)), RENDER)
    graph.output("rgba", rgba)
    out = Session("reference").compile(graph).run({n: a.ravel() for n, a in arrays.items()})
    np.testing.assert_array_equal(out["rgba"], render(arrays, RENDER))
    values["colors"] = graph.input("odd", [13], "f64")
    with pytest.raises(GraphError, match="colors: expected"):
        graph.gaussian_splat_render(rlx.GaussianSplatInputs(**values, meta=_meta(graph)), RENDER)


# --- one test per field -----------------------------------------------------------------------------------
def backward(**changes: Any) -> rlx.GaussianSplatBackwardParams:
    return rlx.GaussianSplatBackwardParams(RENDER, **changes)


def changed(**changes: Any) -> rlx.GaussianSplatRenderParams:
    return dataclasses.replace(RENDER, **changes)


def test_radius_scale_multiplies_sigma() -> None:
    arrays = scene()
    halved = {**arrays, "scales": arrays["scales"] * 0.5}
    one = changed(radius_scale=0.8)
    two = changed(radius_scale=1.6)
    np.testing.assert_allclose(render(halved, two), render(arrays, one), atol=1e-12)
    assert render(arrays, two)[..., 3].sum() > 2 * render(arrays, one)[..., 3].sum()
    a = gradients(halved, rlx.GaussianSplatBackwardParams(two))
    b = gradients(arrays, rlx.GaussianSplatBackwardParams(one))
    np.testing.assert_allclose(a["scales"], 2 * b["scales"], rtol=1e-9)
    np.testing.assert_allclose(a["positions"], b["positions"], rtol=1e-9)


def test_alpha_cutoff_drops_faint_contributions() -> None:
    arrays = scene()
    full, cut = render(arrays, RENDER), render(arrays, changed(alpha_cutoff=0.3))
    alone = {k: v[:1] for k, v in arrays.items()}
    alpha = render(alone, changed(alpha_cutoff=0.3))[..., 3]
    assert np.all((alpha == 0) | (alpha >= 0.3))
    assert (cut[..., 3] == 0).sum() > (full[..., 3] == 0).sum()
    g = gradients(arrays, rlx.GaussianSplatBackwardParams(changed(alpha_cutoff=0.3)))
    faint = arrays["opacities"] < 0.3
    assert not np.array_equal(g["packed"], gradients(arrays, backward())["packed"])
    assert np.all(g["positions"][faint] == 0)


def test_max_splat_steps_keeps_the_nearest_gaussians_of_a_pixel() -> None:
    arrays = scene()
    arrays["positions"] = np.column_stack([np.zeros(7), np.zeros(7), np.linspace(-0.6, 0.6, 7)])
    arrays["opacities"][:] = 0.4
    with pytest.warns(LimitWarning, match="max_splat_steps = 2 cut"):
        out = render(arrays, changed(max_splat_steps=2))
    assert out[..., 3].max() == pytest.approx(1 - 0.6**2, abs=0.02)
    with pytest.warns(LimitWarning, match="max_splat_steps = 2 cut"):
        g = gradients(arrays, rlx.GaussianSplatBackwardParams(changed(max_splat_steps=2)))
    assert np.any(g["colors"][:2] != 0)
    free = gradients(arrays, backward())
    assert np.abs(g["colors"][4:]).sum() < np.abs(free["colors"][4:]).sum()


def test_transmittance_threshold_ends_a_pixel() -> None:
    arrays = scene()
    arrays["positions"] = np.column_stack([np.zeros(7), np.zeros(7), np.linspace(-0.6, 0.6, 7)])
    arrays["scales"][:] = 0.5
    arrays["opacities"][:] = 0.8
    early = changed(transmittance_threshold=0.3)
    assert render(arrays, early)[..., 3].max() <= 0.7
    assert render(arrays, RENDER)[..., 3].max() > 0.95
    g = gradients(arrays, rlx.GaussianSplatBackwardParams(early))
    assert np.abs(g["colors"][2:]).sum() < np.abs(gradients(arrays, backward())["colors"][2:]).sum()


def test_max_list_entries_keeps_the_nearest_gaussians() -> None:
    arrays = scene()
    with pytest.warns(LimitWarning, match="max_list_entries = 3 cut .* of .* tile entries"):
        out = render(arrays, changed(max_list_entries=3))
    assert out[..., 3].sum() < render(arrays, RENDER)[..., 3].sum()
    with pytest.warns(LimitWarning, match="max_list_entries"):
        g = gradients(arrays, rlx.GaussianSplatBackwardParams(changed(max_list_entries=3)))
    depth = arrays["positions"] @ np.array([-0.3, -0.4, 3.0])
    seen = np.flatnonzero(np.abs(g["colors"]).sum(axis=1))
    assert 1 <= len(seen) <= 3
    assert set(seen) == set(np.argsort(depth)[: len(seen)])


def test_tile_size_changes_nothing_but_the_tiles() -> None:
    arrays = scene()
    np.testing.assert_array_equal(render(arrays, changed(tile_size=5)), render(arrays, RENDER))


def test_loss_grad_clip_clamps_each_element() -> None:
    arrays = scene()
    large = weights() * 50
    clipped = gradients(arrays, backward(loss_grad_clip=0.25), large)
    by_hand = gradients(arrays, backward(loss_grad_clip=0), np.clip(large, -0.25, 0.25))
    np.testing.assert_array_equal(clipped["packed"], by_hand["packed"])
    assert not np.array_equal(clipped["packed"], gradients(arrays, backward(loss_grad_clip=0), large)["packed"])


def test_sh_band_is_the_highest_that_counts() -> None:
    arrays = scene(coefficients=16)
    low = {**arrays, "sh_coeffs": np.where(np.arange(16)[None, :, None] < 4, arrays["sh_coeffs"], 0)}
    np.testing.assert_allclose(render(arrays, backward(sh_band=1)), render(low, backward(sh_band=3)), atol=1e-12)
    assert np.abs(render(arrays, backward(sh_band=1)) - render(arrays, backward(sh_band=2))).max() > 1e-3
    g = gradients(arrays, backward(sh_band=1))
    assert np.all(g["sh_coeffs"][:, 4:] == 0)
    assert np.all(np.abs(g["sh_coeffs"][:, :4]).sum(axis=(0, 2)) > 0)
    with pytest.raises(GraphError, match="sh_band 2 needs 9 coefficients, got 4"):
        render(scene(coefficients=4), backward(sh_band=2))


def test_colors_without_harmonics_are_the_colors() -> None:
    arrays = scene(coefficients=0)
    zeros = {**arrays, "sh_coeffs": np.zeros((7, 1, 3))}
    np.testing.assert_allclose(render(arrays, RENDER), render(zeros, RENDER), atol=1e-12)


def test_max_anisotropy_lifts_the_short_axes() -> None:
    arrays = scene()
    arrays["scales"] = np.tile([[0.3, 0.01, 0.002]], (7, 1))
    lifted = {**arrays, "scales": np.tile([[0.3, 0.06, 0.06]], (7, 1))}
    five, free = backward(max_anisotropy=5.0), backward(max_anisotropy=0.0)
    np.testing.assert_allclose(render(arrays, five), render(lifted, free), atol=1e-12)
    assert np.abs(render(arrays, five) - render(arrays, free)).max() > 0.01
    g, wanted = gradients(arrays, five), gradients(lifted, free)["scales"]
    np.testing.assert_allclose(g["scales"][:, 1:], 0, atol=0)
    np.testing.assert_allclose(g["scales"][:, 0], wanted[:, 0] + wanted[:, 1:].sum(axis=1) / 5, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_grad_clip": -1}, "loss_grad_clip"),
        ({"max_anisotropy": 0.5}, "max_anisotropy"),
        ({"sh_band": 5}, "sh_band"),
    ],
)
def test_bad_backward_parameters(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        backward(**changes)


def test_the_picture_is_upright() -> None:
    """A Gaussian above the target appears above the middle, one below it below."""
    arrays = scene(2, 0)
    arrays["positions"] = np.array([[0, 0.6, 0], [0, -0.6, 0.0]])
    arrays["scales"][:] = 0.05
    arrays["opacities"][:] = 0.9
    arrays["colors"] = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    out = render(arrays, RENDER)
    assert out[:10, :, 0].max() > 0.4 > out[10:, :, 0].max()
    assert out[10:, :, 1].max() > 0.4 > out[:10, :, 1].max()
