"""Graphs that rearrange SH coefficients and moments on the device when Gaussians are added or removed."""

from __future__ import annotations

from stipple import ir
from stipple.train.state import PARAMS, row_shapes


def build_finite(coefficients: int) -> ir.Graph:
    """Which rows of the parameter ``sh`` are finite: output ``finite`` [N] bool."""
    graph = ir.Graph("finite_rows")
    sh = graph.param("sh", ["N", coefficients, 3])
    graph.output("finite", ir.reduce_min(ir.cast(ir.isfinite(sh), "f32"), (1, 2)) > 0.0)
    return graph


def build_rearrange(coefficients: int) -> ir.Graph:
    """Row i of ``sh`` and of all moments becomes what row ``rows[i]`` was; a moment whose ``reset_...`` [M]
    bool is true becomes zero. M is the new number of Gaussians; ``rows`` [M] i32."""
    graph = ir.Graph("rearrange")
    rows = graph.input("rows", ["M"], "i32")
    shapes = row_shapes(coefficients)
    sh = graph.param("sh", ["N", *shapes["sh"]])
    graph.update(sh, ir.gather(sh, rows))
    for name in PARAMS:
        shape = shapes[name]
        reset = ir.reshape(graph.input(f"reset_{name}", ["M"], "bool"), ["M", *[1] * len(shape)])
        for kind in ("m", "v"):
            moment = graph.param(f"{kind}_{name}", ["N", *shape])
            graph.update(moment, ir.where(reset, 0.0, ir.gather(moment, rows)))
    return graph
