"""The seed's packed buffers on every device."""

from __future__ import annotations

import numpy as np
import pytest

from stipple import ir
from stipple.compat import rlx
from stipple.errors import InputError
from stipple.runtime import Session


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_packed_buffers_of_a_symbolic_number_of_gaussians(count: int, any_session: Session) -> None:
    """prepare, pack, unpack and rasterize through one vector give what render gives, on every device."""
    params = rlx.GaussianSplatRenderParams(width=24, height=20, max_splat_steps=0, max_list_entries=200)
    rng = np.random.default_rng(0)
    arrays = {
        "positions": rng.uniform(-0.8, 0.8, (count, 3)), "scales": rng.uniform(0.05, 0.25, (count, 3)),
        "rotations": rng.normal(size=(count, 4)), "opacities": rng.uniform(0.3, 0.95, count),
        "colors": rng.uniform(0.2, 0.9, (count, 3)), "sh_coeffs": 0.2 * rng.normal(size=(count, 4, 3)),
    }  # fmt: skip
    graph = rlx.Graph("t")
    meta = graph.gaussian_splat_render_meta(
        [0.3, 0.4, -3.0], [0, 0, 0], [0, 1, 0], 40, 0.1, 50, [0.1, 0.2, 0.3], params
    )
    values = {n: graph.input(n, ["N", *a.shape[1:]]) for n, a in arrays.items()}
    inputs = rlx.GaussianSplatInputs(**values, meta=meta)
    packed = graph.gaussian_splat_prepare(inputs, params)
    graph.output("packed", packed)
    graph.output("decomposed", graph.gaussian_splat_rasterize(packed, meta, params))
    graph.output("whole", graph.gaussian_splat_render(inputs, params))
    made = any_session.compile(graph).run({n: a.astype(np.float32) for n, a in arrays.items()})
    np.testing.assert_allclose(made["decomposed"], made["whole"], atol=1e-6)


@pytest.mark.parametrize("name", ["alpha_cutoff", "max_splat_steps", "transmittance_threshold"])
def test_a_packed_buffer_of_other_settings_is_refused(name: str, any_session: Session) -> None:
    attrs = {
        "width": 8, "height": 8, "max_list_entries": 4, "projection": "ray", "alpha_cutoff": 0.01,
        "max_splat_steps": 3, "transmittance_threshold": 0.001,
    }  # fmt: skip
    graph = ir.Graph("t")
    shapes = {"means2d": [1, 2], "conics": [1, 8], "colors": [1, 3], "opacities": [1], "depths": [1]}
    operands = [graph.constant(np.full(s, 0.5, np.float32)) for s in shapes.values()]
    lists = [graph.constant(np.array([[0, 1]], np.int32)), graph.constant(np.array([0], np.int32))]
    camera = [graph.constant(np.eye(3, dtype=np.float32)), graph.constant(np.zeros(3, np.float32))]
    packed = graph.add("splat_pack_prepared", [*operands, *lists, *camera], attrs).outputs[0]
    other = {**attrs, name: attrs[name] * 2}  # type: ignore[operator]
    graph.output("same", graph.add("splat_unpack_prepared", [packed], attrs).result("means2d"))
    assert any_session.compile(graph).run({})["same"].tolist() == [[0.5, 0.5]]
    graph.output("other", graph.add("splat_unpack_prepared", [packed], other).result("means2d"))
    with pytest.raises(InputError, match=f"splat_unpack_prepared: packed with {name} = "):
        any_session.compile(graph).run({})
